"""The cache in blocks of 64 positions, as tensors: where a step's entries go and where they are read from.

Why: blocks can be shared between requests, handed to somebody else and written to disk; a sequence's past
is a list of block numbers.
In/out: see model/cache.py. Int8: every part of an entry (latent, rotary key, one head) has a scale of its
own, so that a part with large numbers does not coarsen the others; blocks are widened when they are read.
Not here: who owns which block (block_pool.py).
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from tenth.engine.block_pool import BLOCK
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.model.cache import Cached, Rows, entry_parts
from tenth.model.config import ModelConfig

# Shapes: L layers, C blocks in the cache, W entry width, K parts of an entry, N tokens, S sequences


class PagedCache:
    """Entries of every layer, the MTP module's last; satisfies `KVCache` for the batch set last."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_blocks: int,
        dtype: torch.dtype,
        device: torch.device,
        cache_dtype: CacheDtype,
    ) -> None:
        self.parts, self.dtype, self.device = entry_parts(config), dtype, device
        self.is_int8 = cache_dtype is CacheDtype.INT8
        layers = config.num_hidden_layers + min(1, config.num_nextn_predict_layers)
        shape = (layers, num_blocks, BLOCK)
        stored = torch.int8 if self.is_int8 else dtype
        self.entries = torch.empty(*shape, sum(self.parts), dtype=stored, device=device)  # (L, C, BLOCK, W)
        num_scales = len(self.parts) if self.is_int8 else 0
        self.scales = torch.empty(*shape, num_scales, dtype=torch.float32, device=device)  # (L, C, BLOCK, K)
        self.repeats = torch.tensor(self.parts, device=device)

    @property
    def block_bytes(self) -> int:
        """Of one block over all layers."""
        return sum(t[:, 0].numel() * t.element_size() for t in (self.entries, self.scales))

    def step(self, batch: Batch) -> None:
        """The entries that come next belong to this batch."""
        counts = batch.starts.diff()  # (S,)
        sequence = torch.repeat_interleave(torch.arange(len(counts)), counts)  # (N,)
        blocks = batch.tables[sequence, batch.positions // BLOCK].long()
        self.places = (blocks * BLOCK + batch.positions % BLOCK).to(self.device)
        self.tables = batch.tables.to(self.device)
        self.ends = (batch.positions + 1).to(self.device)
        self.firsts = None if batch.firsts is None else batch.firsts.to(self.device)
        self.rows = tuple(self._rows(batch, counts))

    def _rows(self, batch: Batch, counts: Tensor) -> list[Rows]:
        """Sequences that bring equally many tokens, together."""
        lasts = batch.positions[batch.starts[1:].long() - 1]  # (S,)
        rows = []
        for count in counts.unique().tolist():
            sequences = (counts == count).nonzero().squeeze(1)
            tokens = batch.starts[sequences].long()[:, None] + torch.arange(count)
            num_blocks = int(lasts[sequences].max()) // BLOCK + 1
            rows.append(
                Rows(
                    sequences=sequences.to(self.device), tokens=tokens.to(self.device), num_blocks=num_blocks
                )
            )
        return rows

    def store_token(self, layer_id: int, entries: Tensor) -> Cached:
        """See `KVCache`."""
        layer = self.entries[layer_id]
        if not self.is_int8:
            layer.view(-1, layer.shape[-1]).index_copy_(0, self.places, entries)
            return self._cached(layer, self.tables)
        codes, scales = self._narrow(entries)
        layer.view(-1, layer.shape[-1]).index_copy_(0, self.places, codes)
        self.scales[layer_id].view(-1, len(self.parts)).index_copy_(0, self.places, scales)
        used = self.tables.flatten()  # (S * B,)
        wide = self._widen(layer[used], self.scales[layer_id, used])
        return self._cached(wide, torch.arange(len(used), device=self.device).view(self.tables.shape))

    def _cached(self, buffer: Tensor, tables: Tensor) -> Cached:
        return Cached(buffer=buffer, tables=tables, ends=self.ends, firsts=self.firsts, rows=self.rows)

    def _narrow(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """(N, W) -> codes (N, W) int8 and scales (N, K)"""
        parts = entries.float().split(self.parts, -1)
        scales = torch.stack([part.abs().amax(-1) for part in parts], -1) / 127  # (N, K)
        wide = scales.clamp(min=1e-30).repeat_interleave(self.repeats, -1, output_size=entries.shape[-1])
        return (entries.float() / wide).round().to(torch.int8), scales

    def _widen(self, codes: Tensor, scales: Tensor) -> Tensor:
        wide = scales.repeat_interleave(self.repeats, -1, output_size=codes.shape[-1])
        return (codes * wide).to(self.dtype)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See `Runner`."""
        for source, target in pairs:
            self.entries[:, target] = self.entries[:, source]
            self.scales[:, target] = self.scales[:, source]

    def read_block(self, block: int) -> bytes:
        """See `Runner`."""
        return b"".join(_bytes_of(t[:, block]) for t in (self.entries, self.scales))

    def write_block(self, block: int, data: bytes) -> None:
        """See `Runner`."""
        rest = bytearray(data)
        for tensor in (self.entries, self.scales):
            target = tensor[:, block]
            size = target.numel() * target.element_size()
            if size:
                found = torch.frombuffer(rest[:size], dtype=target.dtype).view(target.shape)
                target.copy_(found)
            rest = rest[size:]


def _bytes_of(tensor: Tensor) -> bytes:
    held = tensor.cpu().contiguous()
    return ctypes.string_at(held.data_ptr(), held.numel() * held.element_size()) if held.numel() else b""
