"""The C++ forward pass as a `Runner`: a whole step in one call (native/forward.cpp).

Why: at batch sizes that fit a CPU a step through torch is mostly the overhead of its thousand small calls.
Batch-invariant: a token's numbers do not depend on what else is in the batch, on chunking or on threads.
In:  batches of tokens.  Out: logits.
Not here: packing (native_network.py); the twin that defines what is computed (torch_runner.py).
"""

import ctypes
import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tenth.base.errors import RunError
from tenth.engine.block_pool import BLOCK
from tenth.engine.native_adapters import BatchAdapters, NativeAdapters
from tenth.engine.native_network import NativeNetwork, cell_dtype
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.model.cache import entry_parts
from tenth.model.lora import LowRankPair
from tenth.model.ops import kernels
from tenth.model.transformer import Transformer

_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _Cache(ctypes.Structure):
    _fields_ = (("data", _pointer), ("layers", _int), ("layer_bytes", _int), ("is_int8", _int))


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, _int) for name in ("rows", "sequences", "outputs", "table_width")),
        *((name, _pointer) for name in ("ids", "positions", "starts", "tables", "output_rows", "firsts")),
        *((name, _pointer) for name in ("logits", "hidden", "sources")),
        ("adapters", BatchAdapters),
    )


class NativeRunner:
    """See `Runner`. Needs `cell_dtype(model)`."""

    def __init__(self, model: Transformer, *, cache_dtype: CacheDtype = CacheDtype.AUTO) -> None:
        cells = cell_dtype(model)
        if cells is None:
            raise RunError(f"model '{model.config.name}' cannot run in the native engine; use TorchRunner.")
        self.model, self.cells, self.is_int8 = model, cells, cache_dtype is CacheDtype.INT8
        parts = entry_parts(model.config)
        entry_bytes = sum(parts) * (1 if self.is_int8 else cells.itemsize)
        self._layer_bytes = BLOCK * (entry_bytes + (4 * len(parts) if self.is_int8 else 0))
        self._layers = model.config.num_hidden_layers + min(1, model.config.num_nextn_predict_layers)
        self.block_bytes = self._layers * self._layer_bytes
        self.layout = f"native, {cells}, {cache_dtype}, {parts}, {self._layers} layers"
        self._entries: Tensor | None = None  # (blocks, block_bytes) uint8
        self._hidden = torch.empty(0)
        self._network: NativeNetwork | None = None
        self._adapters = NativeAdapters((), num_layers=0, cells=cells)
        self._buffers = _buffers(self)

    def allocate(self, num_blocks: int) -> None:
        """See `Runner`."""
        self._entries = torch.empty(num_blocks, self.block_bytes, dtype=torch.uint8)
        self.refresh()

    def free(self) -> None:
        """See `Runner`; the packed weights go as well."""
        self._entries, self._network, self._hidden = None, None, torch.empty(0)

    def refresh(self) -> None:
        """See `Runner`."""
        self._network = None  # first: the old copy must not stay while the new one is made
        with torch.inference_mode():
            self._network = NativeNetwork(self.model, cells=self.cells)

    def set_adapters(self, adapters: Mapping[str, Mapping[str, LowRankPair]]) -> None:
        """See `Runner`."""
        layers = self.model.config.num_hidden_layers
        self._adapters = NativeAdapters(adapters.values(), num_layers=layers, cells=self.cells)

    @property
    def entries(self) -> Tensor:
        """The cache, which must be there."""
        if self._entries is None:
            raise RunError("the engine sleeps and has no cache; call wake() first.")
        return self._entries

    def forward(self, batch: Batch) -> Tensor:
        """See `Runner`."""
        hidden = torch.empty(len(batch.ids), self.model.config.hidden_size)
        logits = self._run(batch, hidden, sources=None)
        self._hidden = hidden
        return logits

    def draft(self, batch: Batch, sources: Tensor) -> Tensor:
        """See `Runner`."""
        before = self._hidden[sources]  # (N, D)
        return self._run(batch, torch.empty_like(before), sources=before)

    def _run(self, batch: Batch, hidden: Tensor, *, sources: Tensor | None) -> Tensor:
        entries = self.entries
        assert self._network is not None
        logits = torch.empty(len(batch.outputs), self._network.head_width)
        starts = batch.starts.long()
        asked = (batch.ids, batch.positions, starts, batch.tables, batch.outputs, batch.firsts)
        described = _Batch(
            *(len(batch.ids), len(starts) - 1, len(batch.outputs), batch.tables.shape[1]),
            *map(_address, (*asked, logits, hidden, sources)),
            self._adapters.of(batch.adapters),
        )
        cache = _Cache(entries.data_ptr(), self._layers, self._layer_bytes, self.is_int8)
        kernels().tenth_forward(
            self._network.pointer, ctypes.byref(cache), ctypes.byref(described), self._buffers,
            int(self.cells == torch.bfloat16), int(sources is not None),
        )  # fmt: skip
        return logits[:, : self.model.config.vocab_size]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See `Runner`."""
        for source, target in pairs:
            self.entries[target] = self.entries[source]

    def read_block(self, block: int) -> bytes:
        """See `Runner`."""
        return ctypes.string_at(self.entries[block].data_ptr(), self.block_bytes)

    def write_block(self, block: int, data: bytes) -> None:
        """See `Runner`."""
        ctypes.memmove(self.entries[block].data_ptr(), data, self.block_bytes)


def _address(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    assert tensor.is_contiguous(), "the forward pass reads plain arrays"
    return tensor.data_ptr()


def _buffers(owner: NativeRunner) -> ctypes.c_void_p:
    """Room for what a step computes on its way; given back when the runner goes."""
    library = kernels()
    library.tenth_buffers_new.restype = _pointer
    buffers = _pointer(library.tenth_buffers_new())
    weakref.finalize(owner, library.tenth_buffers_free, buffers)
    return buffers
