"""From a batch to a few fixed shapes: which tokens are computed together, and what fills the empty rows.

Why: a recorded step can be repeated only in the shape it was recorded in, and a matrix product is sure to
round the same way twice only in the same shape. So every token becomes a row of its own, with its sequence's
blocks (a row sees positions before its own, whoever computed them: this step writes before it reads), rows
are padded to a size and blocks to a number out of short lists. Rows that are nobody's write to a scratch
block that no sequence owns.
In:  `Batch`.  Out: `Piece`s, to be computed one after the other.
Not here: computing them (padded_runner.py).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tenth.engine.block_pool import BLOCK
from tenth.engine.runner import Batch

# Shapes: N tokens of S sequences, n of them in a piece of R rows over B blocks each

NUM_FIELDS = 3  # columns of a row before its blocks: id, position, first position attended to
_NARROW = 8  # a sequence that brings more tokens at once is read better by one product for all of them
_MAX_GATHERED_BLOCKS = 4096  # of a piece: what attention copies per layer, 2^18 positions


class Shape(NamedTuple):
    """What a piece is padded to."""

    rows: int
    num_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Tokens that are computed together."""

    tokens: Tensor  # (n,) which of the batch's, n <= R
    inputs: Tensor  # (R, NUM_FIELDS + B) int64
    shape: Shape


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... and the limit itself, which the last step may fall short of."""
    return [1 << i for i in range((limit - 1).bit_length())] + [limit]


class PaddedDecode:
    """Cuts batches into pieces of few shapes.

    `fixed_rows` None: a piece has as few rows as hold its tokens, up to `max_rows`. A number: exactly that
    many, and as many blocks as its tokens' own positions ask for, so that a token's shape does not depend on
    anything but its position.
    """

    def __init__(
        self, *, max_rows: int, max_blocks: int, scratch_block: int, fixed_rows: int | None = None
    ) -> None:
        self.sizes = powers_of_two(max_rows) if fixed_rows is None else [fixed_rows]
        self.fixed_rows, self.scratch_block = fixed_rows, scratch_block
        self._buckets = torch.tensor(powers_of_two(max_blocks))

    @property
    def shape_limit(self) -> Shape:
        """No piece has more rows, none more blocks."""
        return Shape(self.sizes[-1], int(self._buckets[-1]))

    def takes(self, batch: Batch) -> bool:
        """Whether a batch should be cut at all: fixed shapes are for all, others for those that decode."""
        return self.fixed_rows is not None or int(batch.starts.diff().max()) <= _NARROW

    def plan(self, batch: Batch) -> list[Piece]:
        """Every token once, those of a sequence in order."""
        rows = self._rows(batch)  # (N, NUM_FIELDS + blocks of the longest)
        # needed <= bucket, and the next smaller bucket < needed
        buckets = self._buckets[torch.bucketize(batch.positions // BLOCK + 1, self._buckets)]  # (N,)
        if self.fixed_rows is None:
            groups = {int(buckets.max()): torch.arange(len(rows))}
        else:  # ascending, so that what a sequence's token attends to comes before it
            groups = {b: (buckets == b).nonzero().squeeze(1) for b in buckets.unique().tolist()}
        return [
            self._piece(rows, tokens, num_blocks)
            for num_blocks, group in groups.items()
            for tokens in group.split(self._most_rows(num_blocks))
        ]

    def _rows(self, batch: Batch) -> Tensor:
        """What there is to know of each token."""
        counts = batch.starts.diff()  # (S,)
        sequence = torch.repeat_interleave(torch.arange(len(counts)), counts)  # (N,)
        firsts = torch.zeros(len(counts), dtype=torch.int64) if batch.firsts is None else batch.firsts
        fields = torch.stack((batch.ids, batch.positions, firsts[sequence]), 1)  # (N, NUM_FIELDS)
        return torch.cat((fields, batch.tables[sequence].long()), 1)

    def _most_rows(self, num_blocks: int) -> int:
        """Of a piece over that many blocks; a power of two, or one of the sizes."""
        room = max(1, _MAX_GATHERED_BLOCKS // num_blocks)
        return min(self.sizes[-1], 1 << room.bit_length() - 1)

    def _piece(self, rows: Tensor, tokens: Tensor, num_blocks: int) -> Piece:
        size = self._most_rows(num_blocks)
        if self.fixed_rows is None:
            size = next(size for size in self.sizes if size >= len(tokens))
        width = NUM_FIELDS + num_blocks
        inputs = torch.zeros(size, width, dtype=torch.int64)
        inputs[:, NUM_FIELDS:] = self.scratch_block
        known = rows[tokens, :width]  # its table may be shorter than the bucket, or longer
        inputs[: len(tokens), : known.shape[1]] = known
        return Piece(tokens=tokens, inputs=inputs, shape=Shape(size, num_blocks))
