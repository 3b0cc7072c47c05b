"""Adapters laid out for the C++ forward pass: two thin matrices per product that an adapter changes.

Why: they are read beside the packed base (native/adapters.h), so they change without packing it again.
In:  low-rank pairs by module path (model/lora.py), adapter after adapter.
Out: `NativeAdapters`, whose `of` describes a batch's share in them.
Not here: which row has which adapter (batcher.py).
"""

import ctypes
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.model.lora import LowRankPair

# Shapes: N outputs in P panels of 16, K inputs, R ranks

_SITES = {  # native/adapters.h, Site: where in a layer, by module path behind "layers.N."
    "attention.qkv": 0,
    "attention.qkv_a": 0,
    "attention.q_b": 1,
    "attention.o": 2,
    "ffn.gate_up": 3,
    "ffn.shared.gate_up": 3,
    "ffn.down": 4,
    "ffn.shared.down": 4,
}
_NUM_SITES = 5

_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _LowRank(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in ("down", "up", "spans")),
        *((name, _int) for name in ("rank", "is_bf16")),
    )


class BatchAdapters(ctypes.Structure):
    """native/adapters.h, Adapters."""

    _fields_ = (("of_row", _pointer), ("pairs", _pointer), ("layers", _int), ("max_rank", _int))


class NativeAdapters:
    """All adapters of one network, and everything that keeps them alive."""

    def __init__(
        self, adapters: Iterable[Mapping[str, LowRankPair]], *, num_layers: int, cells: torch.dtype
    ) -> None:
        self._kept: list[Tensor] = []
        self._cells = cells  # float32, or bfloat16 where training rounds adapters too
        self._layers, self._max_rank = num_layers, 0
        each = list(adapters)
        self._table = (_LowRank * (len(each) * num_layers * _NUM_SITES))()
        for number, pairs in enumerate(each):
            for path, pair in pairs.items():
                _, layer, site = path.split(".", 2)
                at = (number * num_layers + int(layer)) * _NUM_SITES + _SITES[site]
                self._table[at] = self._low_rank(pair.down, pair.up)

    def of(self, rows: Tensor | None) -> BatchAdapters:
        """For a batch whose rows have these adapters, by number; -1: none. rows (rows,) int32"""
        if rows is None:
            return BatchAdapters()
        assert rows.dtype == torch.int32, "the forward pass reads plain arrays"
        return BatchAdapters(rows.data_ptr(), ctypes.addressof(self._table), self._layers, self._max_rank)

    def _low_rank(self, down: Tensor, up: Tensor) -> _LowRank:
        """down (R, K), up (N, R)"""
        up = F.pad(up.float(), (0, -len(down) % 4, 0, -len(up) % 16))
        down = F.pad(down.float(), (0, 0, 0, -len(down) % 4))
        rank = len(down)
        self._max_rank = max(self._max_rank, rank)
        panels = up.view(-1, 16, rank)  # (P, 16, R)
        is_used = panels.count_nonzero(1).bool()  # (P, R)
        ranks = torch.arange(rank)
        first = torch.where(is_used, ranks, rank).amin(1)
        end = torch.where(is_used, ranks + 1, 0).amax(1)
        spans = torch.stack((torch.minimum(first, end), end), dim=1)  # (P, 2)
        return _LowRank(
            self._address(down.to(self._cells)),
            self._address(panels.transpose(1, 2).to(self._cells)),
            self._address(spans.int()),
            rank,
            self._cells == torch.bfloat16,
        )

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().clone(memory_format=torch.contiguous_format))
        return self._kept[-1].data_ptr()
