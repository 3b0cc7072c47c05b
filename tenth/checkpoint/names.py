"""Our parameters and the tensors of a Hugging Face checkpoint: one plan, followed in both directions.

Why: what is multiplied together lies in one matrix here (queries, keys and values; gate and up; all experts)
and rotation is half-split; Hugging Face keeps a tensor for each, and DeepSeek's rotated rows are interleaved
(model/rope.py). Every foreign format is read and written through the plan that follows from a `ModelConfig`:
families differ only in which tensors their configuration calls for.
In:  a configuration and tensors under Hugging Face names, or our state dict.
Out: our parameters filled, or tensors under Hugging Face names, one at a time.
Both layouts of experts are read: a tensor for each expert, and transformers' fused `experts.gate_up_proj`,
which is laid out as ours; a tensor for each is written. The MTP module k is the layer after the last, as
DeepSeek numbers it, with copies of the embedding and the head that are written and not needed.
Not here: files (safetensors_dir.py, sharded_writer.py), FP8 (block_fp8.py), config.json (model/hf_config.py).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.checkpoint.safetensors_dir import shown
from tenth.checkpoint.tensor_file import is_finite
from tenth.checkpoint.tensor_source import TensorInfo, TensorSource
from tenth.model.config import ModelConfig, MoeConfig
from tenth.model.rope import half_to_interleaved, interleaved_to_half
from tenth.model.transformer import Transformer

_DERIVED = re.compile(r"\.rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)$")  # old files
_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A Hugging Face tensor, and the rows of our parameter that it is."""

    name: str
    shape: tuple[int, ...]
    begin: int = 0  # its first row in ours
    expert: int | None = None  # which of our stacked matrices it is part of
    rope: tuple[int, int] | None = None  # (rotated rows, all rows) of each of its heads, where it has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One of our parameters or buffers. Without pieces it is zero and not part of the checkpoint."""

    name: str
    pieces: tuple[Piece, ...]
    fused: str | None = None  # the one tensor that, where a checkpoint has it, stands for all the pieces
    fused_shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How the tensors of a checkpoint differ from what a configuration calls for."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]  # sentences


def plan(config: ModelConfig, *, mtp: bool = True) -> Iterator[Entry]:
    """Every parameter of the network, in Hugging Face's order."""
    table = (config.vocab_size, config.hidden_size)
    yield _whole("embed.weight", "model.embed_tokens.weight", *table)
    for i in range(config.num_hidden_layers):
        yield from _block(config, i, ours=f"layers.{i}.", theirs=f"model.layers.{i}.")
    yield _whole("norm.weight", "model.norm.weight", config.hidden_size)
    if not config.tie_word_embeddings:
        yield _whole("head.weight", _HEAD, *table)
    for k in range(config.num_nextn_predict_layers if mtp else 0):
        yield from _mtp(config, k)


def expected_hf(config: ModelConfig, *, mtp: bool) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a complete checkpoint, one tensor for each expert."""
    shapes = {piece.name: piece.shape for entry in plan(config, mtp=mtp) for piece in entry.pieces}
    return shapes | dict.fromkeys(_mtp_copies(config) if mtp else (), shapes["model.embed_tokens.weight"])


def has_mtp(names: Collection[str], config: ModelConfig) -> bool:
    """Whether a checkpoint has the MTP layers: transformers drops them when it saves."""
    prefix = f"model.layers.{config.num_hidden_layers}."
    return config.num_nextn_predict_layers > 0 and any(name.startswith(prefix) for name in names)


def compare_names(infos: Mapping[str, TensorInfo], config: ModelConfig, *, mtp: bool) -> Fit:
    """What is missing, what nobody asked for, and what has another shape."""
    expected: dict[str, tuple[int, ...]] = {}
    for entry in plan(config, mtp=mtp):
        if entry.fused is not None and entry.fused in infos:
            expected[entry.fused] = entry.fused_shape
        else:
            expected |= {piece.name: piece.shape for piece in entry.pieces}
    ignored = {_HEAD, *_mtp_copies(config)}  # where it is not expected, the head is the embedding
    return Fit(
        missing=tuple(name for name in expected if name not in infos),
        unexpected=tuple(
            name
            for name in infos
            if name not in expected and name not in ignored and not _DERIVED.search(name)
        ),
        misshapen=tuple(
            f"{name} is {infos[name].shape} and not {shape}"
            for name, shape in expected.items()
            if name in infos and infos[name].shape != shape
        ),
    )


def require_fit(infos: Mapping[str, TensorInfo], config: ModelConfig, *, mtp: bool, origin: Path) -> None:
    """Refuse a checkpoint whose tensors are not the network's."""
    _require_plausible(infos, config, origin=origin)
    fit = compare_names(infos, config, mtp=mtp)
    for found, problem in (
        (fit.missing, "tensors are missing"),
        (fit.misshapen, "tensors do not have the shape that config.json asks for"),
        (fit.unexpected, "tensors belong to no part of the network"),
    ):
        if found:
            raise CheckpointError(
                f"{origin}: {len(found)} {problem} (first: {', '.join(map(shown, found[:3]))}); config.json "
                "and weights do not belong together, or a part of the download is missing."
            )


class OwnNames:
    """A `TensorSource` over tensors under our own names, as tenth 0.2 stored them."""

    def __init__(self, source: TensorSource, config: ModelConfig, *, origin: Path) -> None:
        self._source, stored = source, source.infos()
        self._pieces = {piece.name: (entry.name, piece) for entry in plan(config) for piece in entry.pieces}
        missing = [name for name, _ in self._pieces.values() if name not in stored]
        if missing:
            raise CheckpointError(f"{origin}: {shown(missing[0])} is missing; restore the directory.")
        self._infos = {
            name: TensorInfo(dtype=stored[ours].dtype, shape=piece.shape)
            for name, (ours, piece) in self._pieces.items()
        }

    def infos(self) -> Mapping[str, TensorInfo]:
        """Under Hugging Face names."""
        return self._infos

    def read(self, name: str) -> Tensor:
        """The rows of our parameter that it is."""
        ours, piece = self._pieces[name]
        return _outward(self._source.read(ours), piece)


@torch.no_grad()
def fill_model(model: Transformer, source: TensorSource, *, is_interleaved: bool, origin: Path) -> None:
    """Fill the network tensor by tensor, so that no more than one of them is held beside it.

    The source has been found to fit (`require_fit`). `is_interleaved`: how the rotated rows of latent
    attention are ordered in it.
    """
    infos = source.infos()
    own = model.state_dict()
    for entry in plan(model.config):
        target = own[entry.name]
        if entry.fused is not None and entry.fused in infos:
            _copy(target, source.read(entry.fused), name=entry.fused, origin=origin)
            continue
        if not entry.pieces:
            target.zero_()
        for piece in entry.pieces:
            tensor = source.read(piece.name)
            if piece.rope and is_interleaved:
                tensor = interleaved_to_half(tensor, piece.rope[0], head_dim=piece.rope[1])
            _copy(_part(target, piece), tensor, name=piece.name, origin=origin)


def to_hf_tensors(
    state: Mapping[str, Tensor], config: ModelConfig, *, keep_mtp: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors under Hugging Face names; views where nothing has to be moved."""
    for entry in plan(config, mtp=keep_mtp):
        for piece in entry.pieces:
            yield piece.name, _outward(state[entry.name], piece)
    for name in _mtp_copies(config) if keep_mtp else ():
        is_head = name.endswith("head.weight") and not config.tie_word_embeddings
        yield name, state["head.weight" if is_head else "embed.weight"]


def _require_plausible(infos: Mapping[str, TensorInfo], config: ModelConfig, *, origin: Path) -> None:
    """A plan for a billion layers would take a day to compare."""
    largest = max((info.shape[0] for info in infos.values() if info.shape), default=0)
    experts = config.moe.n_routed_experts if config.moe else 0
    layers = config.num_hidden_layers + config.num_nextn_predict_layers
    if layers > len(infos) or experts > largest:
        raise CheckpointError(
            f"{origin}: config.json tells of {layers:,} layers and {experts:,} experts in each, which "
            f"{len(infos):,} tensors cannot hold; restore config.json."
        )


def _copy(target: Tensor, tensor: Tensor, *, name: str, origin: Path) -> None:
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{origin}: '{name}' holds {tensor.dtype}, which is no weight of a known format; choose the "
            "checkpoint's bfloat16 or FP8 weights."
        )
    target.copy_(tensor)
    if not is_finite(target):
        raise CheckpointError(
            f"{origin}: '{name}' holds NaN or infinite numbers; restore the file, or use an earlier one."
        )


def _outward(ours: Tensor, piece: Piece) -> Tensor:
    """The Hugging Face tensor that is part of ours."""
    part = _part(ours, piece)
    return part if piece.rope is None else half_to_interleaved(part, piece.rope[0], head_dim=piece.rope[1])


def _part(ours: Tensor, piece: Piece) -> Tensor:
    matrix = ours if piece.expert is None else ours[piece.expert]
    return matrix[piece.begin : piece.begin + piece.shape[0]]


def _mtp_copies(config: ModelConfig) -> list[str]:
    """DeepSeek's MTP layers store the tables that they share once more."""
    layers = range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)
    names = ("embed_tokens.weight", "shared_head.head.weight")
    return [f"model.layers.{layer}.{name}" for layer in layers for name in names]


def _mtp(config: ModelConfig, k: int) -> Iterator[Entry]:
    hidden, layer_id = config.hidden_size, config.num_hidden_layers + k
    ours, theirs = f"mtp.{k}.", f"model.layers.{layer_id}."
    yield _whole(f"{ours}enorm.weight", f"{theirs}enorm.weight", hidden)
    yield _whole(f"{ours}hnorm.weight", f"{theirs}hnorm.weight", hidden)
    yield _whole(f"{ours}eh_proj.weight", f"{theirs}eh_proj.weight", hidden, 2 * hidden)
    yield from _block(config, layer_id, ours=f"{ours}block.", theirs=theirs)
    yield _whole(f"{ours}norm.weight", f"{theirs}shared_head.norm.weight", hidden)


def _block(config: ModelConfig, layer_id: int, *, ours: str, theirs: str) -> Iterator[Entry]:
    hidden = config.hidden_size
    yield _whole(f"{ours}attention_norm.weight", f"{theirs}input_layernorm.weight", hidden)
    attention = _latent if config.mla else _grouped
    yield from attention(config, f"{ours}attention.", f"{theirs}self_attn.")
    yield _whole(f"{ours}ffn_norm.weight", f"{theirs}post_attention_layernorm.weight", hidden)
    if config.is_moe_layer(layer_id):
        assert config.moe is not None
        yield from _experts(config.moe, hidden, f"{ours}ffn.", f"{theirs}mlp.")
    else:
        yield from _swiglu(config.intermediate_size, hidden, f"{ours}ffn.", f"{theirs}mlp.")


def _latent(config: ModelConfig, ours: str, theirs: str) -> Iterator[Entry]:
    mla, heads, hidden = config.mla, config.num_attention_heads, config.hidden_size
    assert mla is not None
    rope, q_rank, kv_rank = mla.qk_rope_head_dim, mla.q_lora_rank, mla.kv_lora_rank
    q_rows, kv_rows = heads * mla.qk_head_dim, kv_rank + rope
    rotated_q, rotated_kv = (rope, mla.qk_head_dim), (rope, kv_rows)
    if q_rank is None:
        first = Piece(name=f"{theirs}q_proj.weight", shape=(q_rows, hidden), rope=rotated_q)
    else:
        first = Piece(name=f"{theirs}q_a_proj.weight", shape=(q_rank, hidden))
    second = Piece(
        name=f"{theirs}kv_a_proj_with_mqa.weight",
        shape=(kv_rows, hidden),
        begin=first.shape[0],
        rope=rotated_kv,
    )
    yield Entry(name=f"{ours}qkv_a.weight", pieces=(first, second))
    if q_rank is not None:
        yield _whole(f"{ours}q_norm.weight", f"{theirs}q_a_layernorm.weight", q_rank)
        piece = Piece(name=f"{theirs}q_b_proj.weight", shape=(q_rows, q_rank), rope=rotated_q)
        yield Entry(name=f"{ours}q_b.weight", pieces=(piece,))
    yield _whole(f"{ours}kv_norm.weight", f"{theirs}kv_a_layernorm.weight", kv_rank)
    rows = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    yield _whole(f"{ours}kv_b.weight", f"{theirs}kv_b_proj.weight", rows, kv_rank)
    yield _whole(f"{ours}o.weight", f"{theirs}o_proj.weight", hidden, heads * mla.v_head_dim)


def _grouped(config: ModelConfig, ours: str, theirs: str) -> Iterator[Entry]:
    gqa, hidden = config.gqa, config.hidden_size
    assert gqa is not None
    q_rows, kv_rows = config.num_attention_heads * gqa.head_dim, gqa.num_key_value_heads * gqa.head_dim
    rows = {"q_proj": q_rows, "k_proj": kv_rows, "v_proj": kv_rows}
    yield _stacked(f"{ours}qkv.weight", theirs, "weight", rows, hidden)
    if gqa.qkv_bias:
        yield _stacked(f"{ours}qkv.bias", theirs, "bias", rows)
    if gqa.qk_norm:
        yield _whole(f"{ours}q_norm.weight", f"{theirs}q_norm.weight", gqa.head_dim)
        yield _whole(f"{ours}k_norm.weight", f"{theirs}k_norm.weight", gqa.head_dim)
    yield _whole(f"{ours}o.weight", f"{theirs}o_proj.weight", hidden, q_rows)
    if gqa.o_bias:
        yield _whole(f"{ours}o.bias", f"{theirs}o_proj.bias", hidden)


def _swiglu(width: int, hidden: int, ours: str, theirs: str) -> Iterator[Entry]:
    rows = {"gate_proj": width, "up_proj": width}
    yield _stacked(f"{ours}gate_up.weight", theirs, "weight", rows, hidden)
    yield _whole(f"{ours}down.weight", f"{theirs}down_proj.weight", hidden, width)


def _experts(moe: MoeConfig, hidden: int, ours: str, theirs: str) -> Iterator[Entry]:
    experts, width = range(moe.n_routed_experts), moe.moe_intermediate_size
    yield _whole(f"{ours}router.weight", f"{theirs}gate.weight", len(experts), hidden)
    bias = Piece(name=f"{theirs}gate.e_score_correction_bias", shape=(len(experts),))
    is_biased = moe.topk_method == "noaux_tc"  # the others choose without: ours is zero
    yield Entry(name=f"{ours}router.bias", pieces=(bias,) if is_biased else ())
    gate_up = tuple(
        Piece(name=f"{theirs}experts.{e}.{part}.weight", shape=(width, hidden), begin=begin, expert=e)
        for e in experts
        for part, begin in (("gate_proj", 0), ("up_proj", width))
    )
    down = tuple(
        Piece(name=f"{theirs}experts.{e}.down_proj.weight", shape=(hidden, width), expert=e) for e in experts
    )
    for name, pieces, shape in (("gate_up", gate_up, (2 * width, hidden)), ("down", down, (hidden, width))):
        fused = f"{theirs}experts.{name}_proj"
        yield Entry(name=f"{ours}{name}", pieces=pieces, fused=fused, fused_shape=(len(experts), *shape))
    if moe.n_shared_experts:
        width *= moe.n_shared_experts
        yield from _swiglu(width, hidden, f"{ours}shared.", f"{theirs}shared_experts.")


def _whole(ours: str, theirs: str, *shape: int) -> Entry:
    return Entry(name=ours, pieces=(Piece(name=theirs, shape=shape),))


def _stacked(ours: str, theirs: str, kind: str, rows: Mapping[str, int], *width: int) -> Entry:
    """Several tensors under each other."""
    pieces, begin = [], 0
    for part, count in rows.items():
        pieces.append(Piece(name=f"{theirs}{part}.{kind}", shape=(count, *width), begin=begin))
        begin += count
    return Entry(name=ours, pieces=tuple(pieces))
