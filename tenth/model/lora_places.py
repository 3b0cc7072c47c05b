"""Which matrices LoRA may adapt, and where each one lies inside our fused matrices. Torch-free.

Why: adapters are named after Hugging Face's separate projections (`q_proj`, `gate_proj`), our network
computes several of them as one product (`qkv`, `gate_up`). One table says which rows of which matrix are
whose.
In:  a ModelConfig.
Out: `LoraPlace`s in the network's order, and `LoraConfig`, the shape of an adapter.
Left out on purpose: routed experts (a token meets only its own, so an adapter per expert learns little and
costs as much as the expert), the router, embedding and head, and MTP modules, which only draft.
Not here: the modules (lora_linear.py), files (checkpoint/peft.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tenth.base.errors import ConfigError
from tenth.model.config import ModelConfig

TARGETS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "q_a_proj",
    "q_b_proj",
    "kv_a_proj_with_mqa",
    "kv_b_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
_FEED_FORWARD = frozenset({"gate_proj", "up_proj", "down_proj"})
# Decoding with MLA folds this matrix into the query, so rows with different adapters cannot share it.
UNSERVABLE = "kv_b_proj"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The shape of an adapter: W + scale * B A, B (rows, rank), A (rank, columns); arXiv:2106.09685."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    use_rslora: bool = False  # alpha / sqrt(rank), arXiv:2312.03732

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ConfigError(
                f"lora rank = {self.rank} and alpha = {self.alpha} must both be above 0; "
                "16 and 32 are a usual start."
            )
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            raise ConfigError(
                f"lora targets = {list(self.targets)}: {unknown or 'nothing'} cannot be adapted; choose from "
                f"{', '.join(TARGETS)} (embeddings, the head and routed experts are left as they are)."
            )

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPlace:
    """One adaptable projection inside one of our matrices."""

    path: str  # our module: "layers.3.attention.qkv"
    target: str  # "k_proj"
    hf_name: str  # "model.layers.3.self_attn.k_proj"
    start: int  # first of its rows in our matrix
    rows: int
    columns: int
    rope_head_dim: int | None = None  # Hugging Face's rows end in an interleaved rotary part, head by head


def lora_places(config: ModelConfig, targets: tuple[str, ...] = TARGETS) -> tuple[LoraPlace, ...]:
    """Every place of these targets; a target that this network does not have is refused."""
    every = [place for layer_id in range(config.num_hidden_layers) for place in _layer(config, layer_id)]
    known = {place.target for place in every}
    missing = [target for target in targets if target not in known]
    if missing and targets is not TARGETS:
        raise ConfigError(
            f"model '{config.name}' has no {missing[0]} that can be adapted, only "
            f"{', '.join(target for target in TARGETS if target in known)}; routed experts are not adapted."
        )
    return tuple(place for place in every if place.target in targets)


def default_targets(config: ModelConfig) -> tuple[str, ...]:
    """Everything that this network can train, serve beside other adapters, and hand to PEFT.

    In DeepSeek's families and those with experts PEFT (0.21, over transformers 5) takes the feed-forward's
    names for the routed experts', so an adapter of the dense and shared ones would not load there.
    """
    left_out = {UNSERVABLE} | (_FEED_FORWARD if config.mla or config.moe else set())
    known = {place.target for place in lora_places(config)} - left_out
    return tuple(target for target in TARGETS if target in known)


def _layer(config: ModelConfig, layer_id: int) -> Iterator[LoraPlace]:
    attention = _latent(config) if config.mla else _grouped(config)
    prefix = (f"layers.{layer_id}.attention.", f"model.layers.{layer_id}.self_attn.")
    for matrix, columns, parts in attention:
        yield from _parts(config, prefix, matrix, columns, parts)
    width: int | None = config.intermediate_size
    prefix = (f"layers.{layer_id}.ffn.", f"model.layers.{layer_id}.mlp.")
    if config.is_moe_layer(layer_id):
        assert config.moe is not None
        width = config.moe.n_shared_experts * config.moe.moe_intermediate_size or None
        prefix = (f"{prefix[0]}shared.", f"{prefix[1]}shared_experts.")
    if width is not None:
        hidden = config.hidden_size
        gate_up = (("gate_proj", width), ("up_proj", width))
        yield from _parts(config, prefix, "gate_up", hidden, gate_up)
        yield from _parts(config, prefix, "down", width, (("down_proj", hidden),))


_Matrices = Iterator[tuple[str, int, tuple[tuple[str, int], ...]]]  # name, columns, (target, rows)...


def _grouped(config: ModelConfig) -> _Matrices:
    gqa, hidden = config.gqa, config.hidden_size
    assert gqa is not None
    q, kv = config.num_attention_heads * gqa.head_dim, gqa.num_key_value_heads * gqa.head_dim
    yield "qkv", hidden, (("q_proj", q), ("k_proj", kv), ("v_proj", kv))
    yield "o", q, (("o_proj", hidden),)


def _latent(config: ModelConfig) -> _Matrices:
    mla, hidden, heads = config.mla, config.hidden_size, config.num_attention_heads
    assert mla is not None
    queries = heads * mla.qk_head_dim
    first = ("q_proj", queries) if mla.q_lora_rank is None else ("q_a_proj", mla.q_lora_rank)
    yield "qkv_a", hidden, (first, ("kv_a_proj_with_mqa", mla.kv_lora_rank + mla.qk_rope_head_dim))
    if mla.q_lora_rank is not None:
        yield "q_b", mla.q_lora_rank, (("q_b_proj", queries),)
    yield "kv_b", mla.kv_lora_rank, (("kv_b_proj", heads * (mla.qk_nope_head_dim + mla.v_head_dim)),)
    yield "o", heads * mla.v_head_dim, (("o_proj", hidden),)


def _parts(
    config: ModelConfig,
    prefix: tuple[str, str],
    matrix: str,
    columns: int,
    parts: tuple[tuple[str, int], ...],
) -> Iterator[LoraPlace]:
    start = 0
    for target, rows in parts:
        yield LoraPlace(
            path=prefix[0] + matrix,
            target=target,
            hf_name=prefix[1] + target,
            start=start,
            rows=rows,
            columns=columns,
            rope_head_dim=_rope_head_dim(config, target),
        )
        start += rows


def _rope_head_dim(config: ModelConfig, target: str) -> int | None:
    """Rows of one head, where the last of them are rotated and interleaved in files; None elsewhere."""
    mla = config.mla
    if mla is None:
        return None
    if target == "kv_a_proj_with_mqa":
        return mla.kv_lora_rank + mla.qk_rope_head_dim
    return mla.qk_head_dim if target in ("q_proj", "q_b_proj") else None
