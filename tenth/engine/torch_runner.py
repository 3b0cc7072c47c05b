"""The network as it stands, over a paged cache: any device, any type, the twin of every faster runner.

In:  batches of tokens.  Out: logits.
Not here: what to compute and what to draw (engine.py).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from tenth.base.errors import RunError
from tenth.engine.paged_cache import PagedCache
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.model.lora import LowRankPair, adapter_names, routing_of
from tenth.model.transformer import Transformer


class TorchRunner:
    """See `Runner`."""

    def __init__(self, model: Transformer, *, cache_dtype: CacheDtype = CacheDtype.AUTO) -> None:
        self.model, self.cache_dtype = model, cache_dtype
        self.device = model.norm.weight.device
        with torch.inference_mode():  # the embedding's rows have the type that all entries will have
            self.dtype = model.embed(torch.zeros(1, dtype=torch.int64, device=self.device)).dtype
        self.block_bytes = self._build(1).block_bytes
        self.layout = f"torch, {self.dtype}, {cache_dtype}, {self.block_bytes} bytes"
        self._cache: PagedCache | None = None
        self._hidden = torch.empty(0)
        self._adapters: tuple[str, ...] = ()

    def _build(self, num_blocks: int) -> PagedCache:
        return PagedCache(
            self.model.config,
            num_blocks=num_blocks,
            dtype=self.dtype,
            device=self.device,
            cache_dtype=self.cache_dtype,
        )

    @property
    def cache(self) -> PagedCache:
        """The cache, which must be there."""
        if self._cache is None:
            raise RunError("the engine sleeps and has no cache; call wake() first.")
        return self._cache

    def allocate(self, num_blocks: int) -> None:
        """See `Runner`."""
        with torch.inference_mode():
            self._cache = self._build(num_blocks)

    def free(self) -> None:
        """See `Runner`."""
        self._cache, self._hidden = None, torch.empty(0)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """See `Runner`."""
        self.cache.step(batch)
        ids, positions = batch.ids.to(self.device), batch.positions.to(self.device)
        with self._routed(batch.adapters):
            self._hidden = self.model.decode(ids, positions, self.cache)  # (N, D)
        return self._logits(self._hidden, batch.outputs)

    @torch.inference_mode()
    def draft(self, batch: Batch, sources: Tensor) -> Tensor:
        """See `Runner`."""
        self.cache.step(batch)
        before = self._hidden[sources.to(self.device)]  # (N, D)
        ids, positions = batch.ids.to(self.device), batch.positions.to(self.device)
        return self._logits(self.model.decode_mtp(ids, positions, before, self.cache), batch.outputs)

    def _routed(self, rows: Tensor | None) -> AbstractContextManager[None]:
        """Each token its own adapter, whichever is active in training. rows (N,)"""
        if not self._adapters:
            return nullcontext()
        if adapter_names(self.model)[: len(self._adapters)] != self._adapters:
            raise RunError("an adapter was detached behind the engine's back; call refresh_adapters() first.")
        routing = routing_of(self.model)
        return routing.using(None) if rows is None else routing.using_rows(rows.to(self.device))

    def _logits(self, hidden: Tensor, outputs: Tensor) -> Tensor:
        logits = self.model.logits(hidden[outputs.to(self.device)])  # (O, V)
        return logits if logits.dtype == torch.float64 else logits.float()

    @torch.inference_mode()
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See `Runner`."""
        self.cache.copy_blocks(pairs)

    @torch.inference_mode()
    def read_block(self, block: int) -> bytes:
        """See `Runner`."""
        return self.cache.read_block(block)

    @torch.inference_mode()
    def write_block(self, block: int, data: bytes) -> None:
        """See `Runner`."""
        self.cache.write_block(block, data)

    def refresh(self) -> None:
        """Nothing is kept beside the network's own weights."""

    def set_adapters(self, adapters: Mapping[str, Mapping[str, LowRankPair]]) -> None:
        """See `Runner`; computed with as they are in the network."""
        self._adapters = tuple(adapters)
