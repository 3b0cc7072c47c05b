"""Which tensor of a Hugging Face checkpoint becomes which tensor of a GGUF file: names, shapes, rows.

Why: writer and reader follow one table, made from the plan of every other format (names.py), so each undoes
what the other does.
llama.cpp wants three things otherwise than Hugging Face has them:
- expert matrices stacked, one tensor per layer and kind;
- latent attention's `kv_b_proj` apart, per head: keys transposed (H, rank, nope), values (H, value, rank);
- rotated rows interleaved for `llama` and `deepseek2` (it turns neighbours), half-split for the Qwens.
  DeepSeek's are interleaved already unless config.json says `rope_interleave: false`; Llama's never are.
In:  a ModelConfig.  Out: `Entry` records in file order.
Not here: MTP layers: llama.cpp's own converter leaves them out of `deepseek2` files, and so does this one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import groupby

from torch import Tensor

from tenth.checkpoint.names import Piece, plan
from tenth.model.config import ModelConfig
from tenth.model.hf_config import model_type_of
from tenth.model.rope import half_to_interleaved, interleaved_to_half

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
# Hugging Face's names without "model.layers.N." and ".weight", a file's without "blk.N.", in its order.
_NAMES: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_proj": "attn_k",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_k_b",  # and attn_v_b
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
    **{f"mlp.experts.{{}}.{part}_proj": f"ffn_{part}_exps" for part in ("gate", "up", "down")},
    **{f"mlp.shared_experts.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
}
_ORDER = {name: place for place, name in enumerate(_NAMES)}
_ARCHITECTURES = {"deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2", "qwen3_moe": "qwen3moe"}


class Kind(Enum):
    """How a tensor there is made of tensors here."""

    PLAIN = auto()
    EXPERTS = auto()  # stacked from one tensor per expert
    LATENT_KEY = auto()  # a part of kv_b_proj
    LATENT_VALUE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedRows:
    """The rows of a projection that are turned: the last `rope_dim` of every `head_dim`."""

    head_dim: int
    rope_dim: int

    def to_gguf(self, weight: Tensor) -> Tensor:
        """Half-split rows, interleaved."""
        return half_to_interleaved(weight, self.rope_dim, head_dim=self.head_dim)

    def from_gguf(self, weight: Tensor) -> Tensor:
        """Interleaved rows, half-split."""
        return interleaved_to_half(weight, self.rope_dim, head_dim=self.head_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor of the GGUF file."""

    gguf: str
    hf: str  # of EXPERTS: with a {} where the expert's number stands
    shape: tuple[int, ...]  # in the GGUF file, rows first
    hf_shape: tuple[int, ...]  # of EXPERTS: of each
    kind: Kind = Kind.PLAIN
    rotated: RotatedRows | None = None  # where the order of rows differs


def architecture_of(config: ModelConfig) -> str:
    """What llama.cpp calls the family."""
    model_type = model_type_of(config)
    return _ARCHITECTURES.get(model_type, model_type)


def entries(config: ModelConfig, *, is_interleaved: bool) -> Iterator[Entry]:
    """Every tensor of the file. `is_interleaved`: how the Hugging Face side holds DeepSeek's rotated rows."""
    pieces = (piece for entry in plan(config, mtp=False) for piece in entry.pieces)
    names = (_Name.of(piece) for piece in pieces if not piece.expert)  # all are stacked with the first
    for _, layer in groupby(names, key=lambda name: name.prefix):
        for name in sorted(layer, key=lambda name: _ORDER[name.stem]):
            if name.stem == "self_attn.kv_b_proj":
                yield from _latent(config, name)
            else:
                yield _entry(config, name, is_interleaved=is_interleaved)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    """A Hugging Face tensor, and its name taken apart."""

    piece: Piece
    hf: str
    prefix: str  # "blk.N." in a layer
    stem: str  # a key of _NAMES
    kind: str  # weight, bias, ...

    @classmethod
    def of(cls, piece: Piece) -> "_Name":
        hf = piece.name if piece.expert is None else piece.name.replace(".experts.0.", ".experts.{}.")
        layer = _LAYER.fullmatch(hf)
        stem, _, kind = (layer[2] if layer else hf).rpartition(".")
        return cls(piece=piece, hf=hf, prefix=f"blk.{layer[1]}." if layer else "", stem=stem, kind=kind)


def _entry(config: ModelConfig, name: _Name, *, is_interleaved: bool) -> Entry:
    piece = name.piece
    is_biased_choice = name.kind == "e_score_correction_bias"
    gguf = name.prefix + ("exp_probs_b.bias" if is_biased_choice else f"{_NAMES[name.stem]}.{name.kind}")
    entry = Entry(gguf=gguf, hf=name.hf, shape=piece.shape, hf_shape=piece.shape)
    if piece.expert is not None:
        assert config.moe is not None
        shape = (config.moe.n_routed_experts, *piece.shape)
        return replace(entry, shape=shape, kind=Kind.EXPERTS)
    if piece.rope is not None and not is_interleaved:
        return replace(entry, rotated=RotatedRows(rope_dim=piece.rope[0], head_dim=piece.rope[1]))
    if architecture_of(config) == "llama" and name.stem in ("self_attn.q_proj", "self_attn.k_proj"):
        return replace(entry, rotated=RotatedRows(rope_dim=config.rope_dim, head_dim=config.rope_dim))
    return entry


def _latent(config: ModelConfig, name: _Name) -> Iterator[Entry]:
    """The two parts of kv_b_proj."""
    mla, heads = config.mla, config.num_attention_heads
    assert mla is not None
    for part, kind, shape in (
        ("attn_k_b", Kind.LATENT_KEY, (heads, mla.kv_lora_rank, mla.qk_nope_head_dim)),
        ("attn_v_b", Kind.LATENT_VALUE, (heads, mla.v_head_dim, mla.kv_lora_rank)),
    ):
        gguf, hf_shape = f"{name.prefix}{part}.weight", name.piece.shape
        yield Entry(gguf=gguf, hf=name.hf, shape=shape, hf_shape=hf_shape, kind=kind)
