"""What attention asks of a cache: keep the new tokens' entries, hand back where each sequence's entries lie.

Why: the network must not know whether entries are paged, shared or quantised; an engine must not know what
an entry means. An entry is one row per position and layer: [latent, rotated key] for MLA, [keys, values] for
GQA. One form serves prompts, chunks of prompts and single tokens: a token attends to the positions of its own
sequence up to its own.
Not here: any implementation (engine/paged_cache.py).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tenth.model.config import ModelConfig

# Shapes: N tokens of S sequences, T of them per sequence, W entry width, C blocks of b positions in the
# cache, B blocks and P positions per sequence, H heads, G kv heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Sequences that bring equally many tokens, so that one product serves them."""

    sequences: Tensor  # (S',) int64 rows of the tables
    tokens: Tensor  # (S', T) int64 which of the N tokens are theirs, oldest first
    num_blocks: int  # that the longest of them fills


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """The entries of one layer, and which of them each of N tokens may attend to."""

    buffer: Tensor  # (C, b, W)
    tables: Tensor  # (S, B) int32: its blocks of b positions, in order
    ends: Tensor  # (N,) int64 how many positions a token sees: its own and all before
    firsts: Tensor | None  # (S,) int64 first position that is seen; None: 0
    rows: tuple[Rows, ...]  # every token once


class KVCache(Protocol):
    """One verb."""

    def store_token(self, layer_id: int, entries: Tensor) -> Cached:
        """Keep the entries (N, W) of the tokens in hand and return what they may attend to."""


def entry_width(config: ModelConfig) -> int:
    """Numbers kept per position and layer: the latent and the rotary key, or keys and values."""
    return sum(entry_parts(config))


def entry_parts(config: ModelConfig) -> list[int]:
    """The widths of an entry's parts: latent and rotary key, or heads of keys and then of values."""
    if config.mla:
        return [config.mla.kv_lora_rank, config.mla.qk_rope_head_dim]
    assert config.gqa is not None
    return [config.gqa.head_dim] * (2 * config.gqa.num_key_value_heads)


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, cached: Cached, *, scale: float) -> Tensor:
    """Every token over its sequence's entries; softmax in float32 at least.

    q (N, H, Dk), keys (C, b, G, Dk), values (C, b, G, Dv) -> (N, H, Dv)
    """
    out = q.new_empty(*q.shape[:2], values.shape[-1])
    for rows in cached.rows:
        tables = cached.tables[rows.sequences, : rows.num_blocks]  # (S', B)
        k, v = keys[tables].flatten(1, 2), values[tables].flatten(1, 2)  # (S', P, G, Dk | Dv)
        ends = cached.ends[rows.tokens]  # (S', T)
        position = torch.arange(k.shape[1], device=q.device)
        is_seen = position < ends[..., None]  # (S', T, P)
        if cached.firsts is not None:
            is_seen &= position >= cached.firsts[rows.sequences, None, None]
        # The newest token sees all that is seen; beside it lies what others left, and 0 * NaN is NaN.
        v = v.masked_fill(~is_seen[:, -1, :, None, None], 0)
        heads = q[rows.tokens].unflatten(2, (k.shape[2], -1))  # (S', T, G, H / G, Dk)
        scores = torch.einsum("stghd,spgd->sghtp", heads, k) * scale
        scores = scores if scores.dtype == torch.float64 else scores.float()
        weights = scores.masked_fill(~is_seen[:, None, None], -torch.inf).softmax(-1).to(v.dtype)
        out[rows.tokens] = torch.einsum("sghtp,spgd->stghd", weights, v).flatten(2, 3)
    return out
