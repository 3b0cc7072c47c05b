"""A Transformer's weights packed for the C++ forward pass, and the structures that describe it there.

Why: decoding reads every weight once per step, so weights lie in the order in which they are read
(native/panels.h).
In:  a Transformer in float32, bfloat16 or quantised.
Out: a `NativeNetwork`, whose `pointer` the forward pass takes: a copy of the weights as they were.
Not here: the cache and batches (native_runner.py).
"""

import ctypes
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tenth.model.attention import GroupedQueryAttention
from tenth.model.block import Block
from tenth.model.config import ModelConfig
from tenth.model.lora import LoraLinear
from tenth.model.mla import LatentAttention
from tenth.model.mlp import SwiGLU
from tenth.model.moe import MoE
from tenth.model.mtp import MtpModule
from tenth.model.norm import RMSNorm
from tenth.model.ops import is_native, kernels, pointer
from tenth.model.quantized import QuantizedMatrix
from tenth.model.transformer import Transformer

# Shapes: N rows, K columns of a matrix, G groups of columns with one scale, E experts, H heads

_F32, _BF16, _I8, _I4 = range(4)  # native/panels.h, Kind
_ITEM_BYTES = {_F32: 4.0, _BF16: 2.0, _I8: 1.0, _I4: 0.5}

_int, _float, _pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in ("data", "scales", "bias")),
        *((name, _int) for name in ("rows", "cols", "kind", "group")),
    )


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("in_", "q_up", "out")),
        *((name, _pointer) for name in ("up_key", "up_value", "q_norm", "kv_norm")),
        *((name, _int) for name in ("heads", "kv_heads", "nope", "rope", "value", "latent", "q_rows")),
        ("scale", _float),
        ("norm_eps", _float),
    )


class _FeedForward(ctypes.Structure):
    _fields_ = (("gate_up", _Matrix), ("down", _Matrix))


class _Experts(ctypes.Structure):
    _fields_ = (
        ("router", _Matrix),
        ("router_bias", _pointer),
        ("experts", _pointer),
        ("shared", _FeedForward),
        *((name, _int) for name in ("count", "chosen", "groups", "kept_groups", "normalised")),
        ("is_softmax", _int),
        ("is_biased", _int),
        ("scaling", _float),
        ("padding", _float),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", _pointer),
        ("ffn_norm", _pointer),
        ("attention", _Attention),
        ("ffn", _FeedForward),
        ("experts", _Experts),
    )


class _Draft(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in ("embed_norm", "hidden_norm", "norm")),
        ("join", _Matrix),
        ("layer", _Layer),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        *((name, _int) for name in ("hidden", "num_layers", "rope_half")),
        ("layers", _pointer),
        ("embed", _Matrix),
        ("head", _Matrix),
        *((name, _pointer) for name in ("norm", "cos", "sin")),
        ("eps", _float),
        ("padding", _float),
        ("draft", _Draft),
    )


def cell_dtype(model: Transformer) -> torch.dtype | None:
    """What entries and activations are kept in; None where the C++ pass cannot compute this network here."""
    embed = model.embed
    dtype = embed.dtype if isinstance(embed, QuantizedMatrix) else embed.weight.dtype
    if dtype not in (torch.float32, torch.bfloat16) or not is_native(model.norm.weight):
        return None
    if not _fits(model.config):
        return None
    # Elsewhere bfloat16 weights are widened: the processor cannot multiply them.
    return dtype if dtype == torch.float32 or kernels().tenth_has_bf16_products() else torch.float32


def _fits(config: ModelConfig) -> bool:
    """Whether the widths are those that the kernels take."""
    if config.mla:
        widths = [config.mla.kv_lora_rank, config.mla.v_head_dim]
        pairs = [config.mla.qk_nope_head_dim, config.mla.qk_rope_head_dim, config.mla.q_lora_rank or 0]
    else:
        assert config.gqa is not None
        widths, pairs = [config.gqa.head_dim], []
    if config.moe:
        widths.append(config.moe.moe_intermediate_size)
    widths += [config.hidden_size, config.intermediate_size]
    return all(width % 16 == 0 for width in widths) and all(width % 2 == 0 for width in pairs)


class NativeNetwork:
    """Packed weights and everything that keeps them alive."""

    def __init__(self, model: Transformer, *, cells: torch.dtype) -> None:
        self._kept: list[object] = []
        self._plain_kind = _BF16 if cells == torch.bfloat16 else _F32
        config, blocks = model.config, cast(list[Block], list(model.layers))
        layers = (_Layer * len(blocks))(*(self._layer(block) for block in blocks))
        embed = self._matrix(model.embed)
        network = _Network(
            hidden=config.hidden_size,
            num_layers=len(blocks),
            rope_half=config.rope_dim // 2,
            layers=self._address(layers),
            embed=embed,
            head=embed if model.head is None else self._matrix(model.head),
            norm=self._floats(model.norm.weight),
            cos=self._tensor(model.cos.float()),
            sin=self._tensor(model.sin.float()),
            eps=config.rms_norm_eps,
        )
        if len(model.mtp):
            network.draft = self._draft(cast(MtpModule, model.mtp[0]))
        self._network = network
        self.head_width = (config.vocab_size + 15) // 16 * 16

    @property
    def pointer(self) -> object:
        """For the forward pass."""
        return ctypes.byref(self._network)

    def _address(self, structures: ctypes.Array) -> int:
        self._kept.append(structures)
        return ctypes.addressof(structures)

    def _tensor(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _floats(self, tensor: Tensor) -> int:
        return self._tensor(tensor.detach().float().clone(memory_format=torch.contiguous_format))

    def _matrix(self, module: nn.Module) -> _Matrix:
        """Of a linear map or an embedding, plain or quantised; adapters stay beside it."""
        if isinstance(module, LoraLinear):
            module = module.base
        bias = getattr(module, "bias", None)
        if isinstance(module, QuantizedMatrix):
            return self._quantised(module.codes, module.scales, module, bias=bias)
        return self._packed(cast(Tensor, module.weight), bias=bias)

    def _packed(self, weight: Tensor, *, bias: Tensor | None = None, kind: int | None = None) -> _Matrix:
        """weight (N, K)"""
        kind = self._plain_kind if kind is None or weight.shape[1] % 2 else kind
        values = weight.detach().to(torch.bfloat16 if kind == _BF16 else torch.float32).contiguous()
        rows, cols = values.shape
        return _Matrix(self._panels(values, kind, rows, cols), None, self._bias(bias), rows, cols, kind, cols)

    def _quantised(
        self, codes: Tensor, scales: Tensor, of: QuantizedMatrix, *, bias: Tensor | None = None
    ) -> _Matrix:
        """codes (N, K) or (N, K / 2), scales (N, G)"""
        rows, groups = scales.shape
        cols, kind = groups * of.group, _I8 if of.bits == 8 else _I4
        turned = torch.empty((rows + 15) // 16, groups, 16, dtype=torch.float16)
        scales = scales.contiguous()
        kernels().tenth_pack_scales(pointer(scales), _int(rows), _int(groups), pointer(turned))
        data = self._panels(codes.contiguous(), kind, rows, cols)
        return _Matrix(data, self._tensor(turned), self._bias(bias), rows, cols, kind, of.group)

    def _panels(self, values: Tensor, kind: int, rows: int, cols: int) -> int:
        size = int((rows + 15) // 16 * 16 * cols * _ITEM_BYTES[kind])
        data = torch.empty(size, dtype=torch.uint8)
        kernels().tenth_pack(_int(kind), pointer(values), _int(rows), _int(cols), pointer(data))
        return self._tensor(data)

    def _bias(self, bias: Tensor | None) -> int | None:
        if bias is None:
            return None
        wide = torch.zeros((len(bias) + 15) // 16 * 16)
        wide[: len(bias)] = bias.detach().float()
        return self._tensor(wide)

    def _draft(self, module: MtpModule) -> _Draft:
        return _Draft(
            embed_norm=self._floats(module.enorm.weight),
            hidden_norm=self._floats(module.hnorm.weight),
            norm=self._floats(module.norm.weight),
            join=self._matrix(module.eh_proj),
            layer=self._layer(module.block),
        )

    def _layer(self, block: Block) -> _Layer:
        attention = block.attention
        layer = _Layer(
            attention_norm=self._floats(block.attention_norm.weight),
            ffn_norm=self._floats(block.ffn_norm.weight),
            attention=self._latent(attention)
            if isinstance(attention, LatentAttention)
            else self._grouped(attention),
        )
        if isinstance(block.ffn, MoE):
            layer.experts = self._experts(block.ffn)
        else:
            layer.ffn = self._feed_forward(block.ffn)
        return layer

    def _grouped(self, attention: GroupedQueryAttention) -> _Attention:
        return _Attention(
            in_=self._matrix(attention.qkv),
            out=self._matrix(attention.o),
            q_norm=self._floats(attention.q_norm.weight) if attention.has_qk_norm else None,
            kv_norm=self._floats(attention.k_norm.weight) if attention.has_qk_norm else None,
            norm_eps=attention.q_norm.eps if attention.has_qk_norm else 0.0,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            rope=attention.head_dim,
            value=attention.head_dim,
            scale=attention.scale,
        )

    def _latent(self, attention: LatentAttention) -> _Attention:
        mla, heads = attention.mla, attention.heads
        up = attention.kv_b.weight.view(heads, -1, mla.kv_lora_rank)  # (H, nope + value, latent)
        key, value = up.split([mla.qk_nope_head_dim, mla.v_head_dim], dim=1)
        has_query_latent = mla.q_lora_rank is not None
        return _Attention(
            in_=self._matrix(attention.qkv_a),
            q_up=self._matrix(attention.q_b) if has_query_latent else _Matrix(),
            out=self._matrix(attention.o),
            up_key=self._address((_Matrix * heads)(*(self._packed(each.t()) for each in key))),
            up_value=self._address((_Matrix * heads)(*(self._packed(each) for each in value))),
            q_norm=self._floats(cast(RMSNorm, attention.q_norm).weight) if has_query_latent else None,
            kv_norm=self._floats(attention.kv_norm.weight),
            norm_eps=attention.kv_norm.eps,
            heads=heads,
            nope=mla.qk_nope_head_dim,
            rope=mla.qk_rope_head_dim,
            value=mla.v_head_dim,
            latent=mla.kv_lora_rank,
            q_rows=attention.q_rows,
            scale=attention.scale,
        )

    def _feed_forward(self, ffn: SwiGLU) -> _FeedForward:
        return _FeedForward(self._matrix(ffn.gate_up), self._matrix(ffn.down))

    def _experts(self, moe: MoE) -> _Experts:
        config, router = moe.config, moe.router
        gate_up, down = self._each(moe.gate_up), self._each(moe.down)
        pairs = (_FeedForward(gate_up(e), down(e)) for e in range(config.n_routed_experts))
        return _Experts(
            router=self._packed(router.weight, kind=_F32),
            router_bias=self._floats(router.bias),
            experts=self._address((_FeedForward * config.n_routed_experts)(*pairs)),
            shared=_FeedForward() if moe.shared is None else self._feed_forward(moe.shared),
            count=config.n_routed_experts,
            chosen=config.num_experts_per_tok,
            groups=config.n_group,
            kept_groups=config.topk_group,
            normalised=int(config.norm_topk_prob),
            is_softmax=int(config.scoring_func == "softmax"),
            is_biased=int(config.topk_method == "noaux_tc"),
            scaling=config.routed_scaling_factor,
        )

    def _each(self, experts: Tensor | QuantizedMatrix) -> Callable[[int], _Matrix]:
        """How to pack one expert's matrix."""
        if isinstance(experts, QuantizedMatrix):
            return lambda e: self._quantised(experts.codes[e], experts.scales[e], experts)
        return lambda e: self._packed(experts[e])
