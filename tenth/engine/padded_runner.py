"""A step in fixed shapes over fixed memory, so that it can be recorded once and repeated, and so that a token
is computed in the same way whoever keeps it company.

Why: a decode step is a thousand small calls; where a device runs them faster than Python makes them, they are
recorded and repeated as one. A recording knows addresses, not values: rows are written into one tensor,
hidden states are read from another. With `fixed_rows` a token's numbers depend on its sequence alone: every
operation sees one shape, which the token's position decides (padding.py). With one row that leaves nothing
else for them to depend on; with more it takes a library whose products do not treat the rows of one matrix
differently.
In:  batches of tokens.  Out: logits.
Not here: how a device records (cuda_runner.py); what fills a shape (padding.py).
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.engine.block_pool import BLOCK
from tenth.engine.padding import NUM_FIELDS, PaddedDecode, Shape
from tenth.engine.paged_cache import PagedCache
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.engine.torch_runner import TorchRunner
from tenth.model.cache import Rows
from tenth.model.lora import LowRankPair
from tenth.model.transformer import Transformer

# Shapes: N tokens, R rows of a piece, B blocks of each, D hidden, O tokens whose logits are wanted

Step = Callable[[], None]
Capture = Callable[[Step], Step]  # do the step, and return what does it again


def repeat_plainly(step: Step) -> Step:
    """The stand-in where nothing can be recorded: the step is its own recording."""
    return step


class RowCache(PagedCache):
    """A paged cache for rows whose tables are on the device already; nothing here waits for it."""

    def set_rows(self, positions: Tensor, tables: Tensor, firsts: Tensor | None) -> None:
        """The entries that come next belong to these rows, each a sequence of its own. (R,), (R, B), (R,)"""
        blocks = tables.gather(1, (positions // BLOCK)[:, None]).squeeze(1)  # (R,)
        self.places = blocks * BLOCK + positions % BLOCK
        self.tables, self.ends, self.firsts = tables, positions + 1, firsts
        each = torch.arange(len(positions), device=positions.device)
        self.rows = (Rows(sequences=each, tokens=each[:, None], num_blocks=tables.shape[1]),)


class PaddedRunner(TorchRunner):
    """See `Runner`. Batches that the planner does not take are computed as they come."""

    def __init__(
        self,
        model: Transformer,
        *,
        cache_dtype: CacheDtype = CacheDtype.AUTO,
        max_rows: int = 1,
        fixed_rows: int | None = None,
        build_capture: Callable[[], Capture] = lambda: repeat_plainly,
    ) -> None:
        super().__init__(model, cache_dtype=cache_dtype)
        self.max_rows, self.fixed_rows, self.build_capture = max_rows, fixed_rows, build_capture
        if fixed_rows is not None:
            self.layout += f", {fixed_rows} rows at a time"
        self.recordings: dict[tuple[Shape, bool], Step] = {}

    def set_adapters(self, adapters: Mapping[str, Mapping[str, LowRankPair]]) -> None:
        """See `Runner`. A recording has one set of weights."""
        if adapters:
            raise ConfigError(
                f"adapter '{next(iter(adapters))}' cannot be served by an engine that computes in fixed "
                "shapes; set deterministic = False, or merge it into the model."
            )

    def _build(self, num_blocks: int) -> RowCache:
        return RowCache(
            self.model.config,
            num_blocks=num_blocks,
            dtype=self.dtype,
            device=self.device,
            cache_dtype=self.cache_dtype,
        )

    def allocate(self, num_blocks: int) -> None:
        """See `Runner`. One block more, for rows that are nobody's."""
        super().allocate(num_blocks + 1)
        self.planner = PaddedDecode(
            max_rows=self.max_rows,
            max_blocks=-(-self.model.config.max_position_embeddings // BLOCK),
            scratch_block=num_blocks,
            fixed_rows=self.fixed_rows,
        )
        limit, width = self.planner.shape_limit, self.model.config.hidden_size
        with torch.inference_mode():
            shape = (limit.rows, NUM_FIELDS + limit.num_blocks)
            self._inputs = torch.zeros(shape, dtype=torch.int64, device=self.device)
            self._before = torch.zeros(limit.rows, width, dtype=self.dtype, device=self.device)
            self._after = torch.zeros_like(self._before)
        self._start_recording()

    def free(self) -> None:
        """See `Runner`. Recordings hold the cache's addresses, and memory of their own."""
        super().free()
        self.recordings.clear()
        self._inputs = self._before = self._after = torch.empty(0)

    def refresh(self) -> None:
        """A recorded step reads weights where they lie: written in place, the new ones are used as they are.
        Only where a tensor was replaced does a recording read what nobody owns any more."""
        if self._cache is not None and self._addresses() != self._weights:
            self._start_recording()

    def _start_recording(self) -> None:
        self.recordings.clear()
        self._capture, self._weights = self.build_capture(), self._addresses()

    def _addresses(self) -> list[int]:
        return [t.data_ptr() for t in chain(self.model.parameters(), self.model.buffers())]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """See `Runner`."""
        if not self._takes(batch):
            return super().forward(batch)
        self._hidden = self._run(batch, before=None)
        return self._logits(self._hidden, batch.outputs)

    @torch.inference_mode()
    def draft(self, batch: Batch, sources: Tensor) -> Tensor:
        """See `Runner`."""
        if not self._takes(batch):
            return super().draft(batch, sources)
        before = self._hidden[sources.to(self.device)]  # (N, D)
        return self._logits(self._run(batch, before=before), batch.outputs)

    def _takes(self, batch: Batch) -> bool:
        """Whether a batch is computed in pieces; there must be a cache."""
        return self.cache is not None and self.planner.takes(batch)

    def _run(self, batch: Batch, *, before: Tensor | None) -> Tensor:
        """Hidden states of all tokens, piece by piece. -> (N, D)"""
        hidden = self._after.new_empty(len(batch.ids), self._after.shape[1])
        for piece in self.planner.plan(batch):
            tokens, (rows, num_blocks) = piece.tokens.to(self.device), piece.shape
            self._inputs[:rows, : NUM_FIELDS + num_blocks].copy_(piece.inputs)
            if before is not None:
                self._before[: len(tokens)].copy_(before[tokens])
            self._repeat(piece.shape, is_draft=before is not None)
            hidden[tokens] = self._after[: len(tokens)]
        return hidden

    def _repeat(self, shape: Shape, *, is_draft: bool) -> None:
        key = (shape, is_draft)
        if key not in self.recordings:
            self.recordings[key] = self._capture(partial(self.compute, shape, is_draft=is_draft))
        self.recordings[key]()

    def compute(self, shape: Shape, *, is_draft: bool) -> None:
        """What is recorded: from the rows that were written to their hidden states, without a question to the
        device in between."""
        rows = self._inputs[: shape.rows, : NUM_FIELDS + shape.num_blocks]
        ids, positions, firsts = rows[:, :NUM_FIELDS].unbind(1)
        cache = self.cache
        assert isinstance(cache, RowCache)
        cache.set_rows(positions, rows[:, NUM_FIELDS:], firsts if is_draft else None)
        if is_draft:
            hidden = self.model.decode_mtp(ids, positions, self._before[: shape.rows], cache)
        else:
            hidden = self.model.decode(ids, positions, cache)
        self._after[: shape.rows].copy_(hidden)

    def _logits(self, hidden: Tensor, outputs: Tensor) -> Tensor:
        if self.fixed_rows is None:
            return super()._logits(hidden, outputs)
        # On the CPU, where the sampler goes row by row too: on a GPU running sums are not repeatable.
        found = [
            self.model.logits(F.pad(rows, (0, 0, 0, self.fixed_rows - len(rows))))[: len(rows)].cpu()
            for rows in hidden[outputs.to(self.device)].split(self.fixed_rows)
        ]
        logits = torch.cat(found)  # (O, V)
        return logits if logits.dtype == torch.float64 else logits.float()
