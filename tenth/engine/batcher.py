"""From planned works to tensors: which tokens at which positions over which blocks, and who draws where.

Why: this runs for every row of every step, so it is one plain loop; block tables live in one tensor that is
written only where a sequence got another block.
In:  works.  Out: `Packed`.
Not here: what is computed (runner.py) and what becomes of it (engine.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from tenth.engine.runner import Batch
from tenth.engine.sampler import DrawSettings
from tenth.engine.sequence import Sample
from tenth.engine.track import Work

# Shapes: M sequences at most, B blocks per sequence, O rows of logits, R draws


@dataclass(slots=True)
class Packed:
    """A batch, and the draws that its logits are for."""

    batch: Batch
    samples: list[Sample]  # (R,) who draws
    indices: list[int]  # (R,) the how-manieth token of the sample it will be
    uniforms: Tensor  # (R,)
    settings: DrawSettings
    is_adjusted: bool  # whether any sample needs more than the sampler
    sources: Tensor | None  # (R,) the logits' row for each draw; None: one after the other
    starts: list[int]  # first row of each work in the batch


class Batcher:
    """Gives each running sample a row of the block tables and packs steps."""

    def __init__(self, *, max_sequences: int, max_blocks: int) -> None:
        self._tables = torch.zeros(max_sequences, max_blocks, dtype=torch.int32)  # (M, B)
        self._free = list(range(max_sequences - 1, -1, -1))
        self._drawing: list[Sample] = []
        self._settings = DrawSettings.of(())
        self._is_adjusted = False
        self.adapters: Mapping[str, int] = {}  # their numbers

    def drop(self, samples: Iterable[Sample]) -> None:
        """These have lost their blocks."""
        for sample in samples:
            if sample.slot >= 0:
                self._free.append(sample.slot)
                sample.slot, sample.filled = -1, 0
            sample.draft_next = 0

    def pack(self, works: Sequence[Work], *, firsts: list[int] | None = None) -> Packed:
        """One step's tensors. Logits are wanted where a work reaches its sample's newest token, and of the
        drafts after it; those of a prompt with several samples serve all of them."""
        ids: list[int] = []
        positions: list[int] = []
        starts, slots = [0], []
        outputs: list[int] = []
        samples: list[Sample] = []
        indices: list[int] = []
        sources: list[int] = []
        num_blocks = 1
        for work in works:
            sample: Sample = work.track  # type: ignore[assignment]
            start, count, tokens = work.start, work.count, sample.tokens
            if sample.filled != len(sample.blocks):
                self._fill(sample)
            if sample.filled > num_blocks:
                num_blocks = sample.filled
            slots.append(sample.slot)
            if count == 1:
                ids.append(tokens[start])
                positions.append(start)
            else:
                ids += tokens[start : start + count - work.num_drafts]
                ids += sample.drafts
                positions += range(start, start + count)
            starts.append(len(ids))
            end = start + count - work.num_drafts
            if end != len(tokens):
                continue
            index = end - sample.prompt_len
            for draft in range(1 + work.num_drafts):
                samples.append(sample)
                indices.append(index + draft)
                sources.append(len(outputs))
                outputs.append(len(ids) - 1 - work.num_drafts + draft)
            if sample.siblings and firsts is None:  # of guesses each has its own
                samples += sample.siblings
                indices += [index] * len(sample.siblings)
                sources += [len(outputs) - 1] * len(sample.siblings)
        self._settle(samples)
        batch = Batch(
            ids=torch.tensor(ids),
            positions=torch.tensor(positions),
            starts=torch.tensor(starts, dtype=torch.int32),
            tables=self._tables[:, :num_blocks].index_select(0, torch.tensor(slots)),
            outputs=torch.tensor(outputs, dtype=torch.int64),
            firsts=None if firsts is None else torch.tensor(firsts),
            adapters=self._number(works) if self.adapters and firsts is None else None,
        )
        return Packed(
            batch=batch,
            samples=samples,
            indices=indices,
            uniforms=torch.tensor([s.uniform(i) for s, i in zip(samples, indices, strict=True)]),
            settings=self._settings,
            is_adjusted=self._is_adjusted,
            sources=torch.tensor(sources) if len(sources) > len(outputs) else None,
            starts=starts,
        )

    def _number(self, works: Sequence[Work]) -> Tensor | None:
        """The adapter of every token; draft modules have none."""
        names: list[str | None] = [cast(Sample, work.track).adapter for work in works]
        if not any(names):
            return None
        numbers = torch.tensor([-1 if name is None else self.adapters[name] for name in names])
        return numbers.int().repeat_interleave(torch.tensor([work.count for work in works]))

    def _settle(self, samples: list[Sample]) -> None:
        """The settings of these draws, kept from the last step where nobody came or went."""
        if samples != self._drawing:
            self._drawing = samples
            self._settings = DrawSettings.of([sample.params for sample in samples])
            self._is_adjusted = any(sample.is_adjusted for sample in samples)

    def _fill(self, sample: Sample) -> None:
        """Bring the sample's row of the tables up to date."""
        if sample.slot < 0:
            sample.slot = self._free.pop()
        new = torch.tensor(sample.blocks[sample.filled :], dtype=torch.int32)
        sample.filled = len(sample.blocks)
        self._tables[sample.slot, sample.filled - len(new) : sample.filled] = new
