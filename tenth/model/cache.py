"""What attention asks of a cache: keep each position's entry, hand back where a sequence's entries lie.

Why: the network must not know whether entries are paged, shared or quantised; an engine must not know what
an entry means. An entry is one row per position and layer: [latent, rotated key] for MLA, [keys, values] for
GQA.
Not here: any implementation (engine/kv_cache.py).
"""

import ctypes
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tenth.model.ops import is_native, kernels, pointer

# Shapes: S slots, P positions, W entry width, R sequences decoding one token, H heads, G kv heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """The entries of one layer for R sequences."""

    buffer: Tensor  # (S, P, W)
    slots: Tensor  # (R,) int64 slot of each sequence
    lengths: Tensor  # (R,) int64 positions filled, the newest included


class KVCache(Protocol):
    """Two verbs, one for prompts and one for single tokens."""

    def store_prompt(self, layer_id: int, entries: Tensor) -> None:
        """Keep the entries (B, T, W) of the prompts being read."""

    def store_token(self, layer_id: int, entries: Tensor) -> Cached:
        """Keep one new entry (R, W) per sequence and return everything they may attend to."""


class _Decode(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("rows", "heads", "kv_heads", "key", "value"),
            *("k_slot", "k_time", "k_head", "v_slot", "v_time", "v_head"),
        )
    ] + [("scale", ctypes.c_float)]


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, cached: Cached, *, scale: float) -> Tensor:
    """One query per sequence over its cache.

    q (R, H, Dk), keys (S, P, G, Dk), values (S, P, G, Dv) -> (R, H, Dv)
    """
    if not is_native(q, keys) or q.dtype != keys.dtype:
        return decode_attention_reference(q, keys, values, cached, scale=scale)
    q = q.contiguous()
    rows, heads, width = q.shape
    out = torch.empty(rows, heads, values.shape[-1], dtype=q.dtype)
    shape = _Decode(
        rows, heads, keys.shape[2], width, values.shape[-1], *keys.stride()[:3], *values.stride()[:3], scale
    )
    kernels().tenth_decode_attention(
        int(q.dtype == torch.bfloat16), ctypes.byref(shape), pointer(q), pointer(keys), pointer(values),
        pointer(cached.slots), pointer(cached.lengths), pointer(out),
    )  # fmt: skip
    return out


def decode_attention_reference(
    q: Tensor, keys: Tensor, values: Tensor, cached: Cached, *, scale: float
) -> Tensor:
    """The obvious form: gather, mask, softmax in float32 at least."""
    longest = int(cached.lengths.max())
    group = q.shape[1] // keys.shape[2]
    k = keys[cached.slots, :longest].repeat_interleave(group, 2)  # (R, P, H, Dk)
    v = values[cached.slots, :longest].repeat_interleave(group, 2)  # (R, P, H, Dv)
    scores = torch.einsum("rhd,rphd->rhp", q, k) * scale  # (R, H, P)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    is_past = torch.arange(longest, device=q.device) < cached.lengths[:, None]  # (R, P)
    weights = scores.masked_fill(~is_past[:, None], -torch.inf).softmax(-1).to(v.dtype)
    return torch.einsum("rhp,rphd->rhd", weights, v)
