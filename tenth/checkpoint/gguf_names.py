"""Which tensor of a Hugging Face checkpoint becomes which tensor of a GGUF file: names, shapes, rows.

Why: writer and reader follow one table, made from the configuration, so each undoes what the other does.
llama.cpp wants three things otherwise than Hugging Face has them:
- expert matrices stacked, one tensor per layer and kind;
- latent attention's `kv_b_proj` apart, per head: keys transposed (H, rank, nope), values (H, value, rank);
- rotated rows interleaved for `llama` and `deepseek2` (it turns neighbours), half-split for the Qwens.
  DeepSeek's are interleaved already unless config.json says `rope_interleave: false`; Llama's never are.
In:  a ModelConfig.  Out: `Entry` records in file order.
Not here: MTP layers: llama.cpp's own converter leaves them out of `deepseek2` files, and so does this one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from torch import Tensor

from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.hf_config import model_type_of
from tenth.model.rope import half_to_interleaved, interleaved_to_half

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
    table = (config.vocab_size, config.hidden_size)
    yield _plain("token_embd.weight", "model.embed_tokens.weight", *table)
    for layer_id in range(config.num_hidden_layers):
        for entry in _layer(config, layer_id, is_interleaved=is_interleaved):
            there, here = f"blk.{layer_id}.{entry.gguf}", f"model.layers.{layer_id}.{entry.hf}"
            yield replace(entry, gguf=there, hf=here)
    yield _plain("output_norm.weight", "model.norm.weight", config.hidden_size)
    if not config.tie_word_embeddings:
        yield _plain("output.weight", "lm_head.weight", *table)


def _layer(config: ModelConfig, layer_id: int, *, is_interleaved: bool) -> Iterator[Entry]:
    wide = config.hidden_size
    yield _plain("attn_norm.weight", "input_layernorm.weight", wide)
    if config.mla:
        yield from _latent(config, config.mla, is_permuted=not is_interleaved)
    elif config.gqa:
        yield from _grouped(config, config.gqa, is_permuted=architecture_of(config) == "llama")
    yield _plain("ffn_norm.weight", "post_attention_layernorm.weight", wide)
    if config.moe and config.is_moe_layer(layer_id):
        yield from _experts(wide, config.moe)
    else:
        yield from _swiglu(wide, config.intermediate_size)


def _latent(config: ModelConfig, mla: MlaConfig, *, is_permuted: bool) -> Iterator[Entry]:
    heads, wide, rank = config.num_attention_heads, config.hidden_size, mla.kv_lora_rank
    entry, queries = rank + mla.qk_rope_head_dim, heads * mla.qk_head_dim
    query = RotatedRows(head_dim=mla.qk_head_dim, rope_dim=mla.qk_rope_head_dim) if is_permuted else None
    key = RotatedRows(head_dim=entry, rope_dim=mla.qk_rope_head_dim) if is_permuted else None
    if mla.q_lora_rank is None:
        yield replace(_plain("attn_q.weight", "self_attn.q_proj.weight", queries, wide), rotated=query)
    else:
        q_b = _plain("attn_q_b.weight", "self_attn.q_b_proj.weight", queries, mla.q_lora_rank)
        yield _plain("attn_q_a.weight", "self_attn.q_a_proj.weight", mla.q_lora_rank, wide)
        yield _plain("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", mla.q_lora_rank)
        yield replace(q_b, rotated=query)
    kv_a = _plain("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", entry, wide)
    yield replace(kv_a, rotated=key)
    yield _plain("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", rank)
    kv_b = Entry(
        gguf="attn_k_b.weight",
        hf="self_attn.kv_b_proj.weight",
        shape=(heads, rank, mla.qk_nope_head_dim),
        hf_shape=(heads * (mla.qk_nope_head_dim + mla.v_head_dim), rank),
        kind=Kind.LATENT_KEY,
    )
    yield kv_b
    value = (heads, mla.v_head_dim, rank)
    yield replace(kv_b, gguf="attn_v_b.weight", shape=value, kind=Kind.LATENT_VALUE)
    yield _plain("attn_output.weight", "self_attn.o_proj.weight", wide, heads * mla.v_head_dim)


def _grouped(config: ModelConfig, gqa: GqaConfig, *, is_permuted: bool) -> Iterator[Entry]:
    wide, queries = config.hidden_size, config.num_attention_heads * gqa.head_dim
    keys = gqa.num_key_value_heads * gqa.head_dim
    rows = RotatedRows(head_dim=gqa.head_dim, rope_dim=gqa.head_dim) if is_permuted else None
    for part, width, rotated in (("q", queries, rows), ("k", keys, rows), ("v", keys, None)):
        there, here = f"attn_{part}", f"self_attn.{part}_proj"
        yield replace(_plain(f"{there}.weight", f"{here}.weight", width, wide), rotated=rotated)
        if gqa.qkv_bias:
            yield replace(_plain(f"{there}.bias", f"{here}.bias", width), rotated=rotated)
        if gqa.qk_norm and part != "v":
            yield _plain(f"{there}_norm.weight", f"self_attn.{part}_norm.weight", gqa.head_dim)
    yield _plain("attn_output.weight", "self_attn.o_proj.weight", wide, queries)
    if gqa.o_bias:
        yield _plain("attn_output.bias", "self_attn.o_proj.bias", wide)


def _experts(wide: int, moe: MoeConfig) -> Iterator[Entry]:
    count = moe.n_routed_experts
    yield _plain("ffn_gate_inp.weight", "mlp.gate.weight", count, wide)
    if moe.topk_method == "noaux_tc":
        yield _plain("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", count)
    for each in _swiglu(wide, moe.moe_intermediate_size):
        there, here = each.gguf.replace(".", "_exps."), each.hf.replace("mlp.", "mlp.experts.{}.")
        yield replace(each, gguf=there, hf=here, shape=(count, *each.shape), kind=Kind.EXPERTS)
    if moe.n_shared_experts:
        for each in _swiglu(wide, moe.moe_intermediate_size * moe.n_shared_experts):
            there, here = each.gguf.replace(".", "_shexp."), each.hf.replace("mlp.", "mlp.shared_experts.")
            yield replace(each, gguf=there, hf=here)


def _swiglu(wide: int, narrow: int) -> Iterator[Entry]:
    yield _plain("ffn_gate.weight", "mlp.gate_proj.weight", narrow, wide)
    yield _plain("ffn_up.weight", "mlp.up_proj.weight", narrow, wide)
    yield _plain("ffn_down.weight", "mlp.down_proj.weight", wide, narrow)


def _plain(gguf: str, hf: str, *shape: int) -> Entry:
    return Entry(gguf=gguf, hf=hf, shape=shape, hf_shape=shape)
