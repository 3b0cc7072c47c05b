"""Sequences -> one micro-batch of tensors, padded right, padded left or packed.

Why: everything after the network is a flat list of trained tokens, so that the loss cannot depend on how the
tokens were laid out in the rectangle; tests compare the three layouts.
In:  sequences of ids with a mask of the tokens to train on.
Out: `TokenBatch`. A sequence's last token is never fed: nothing after it is predicted.
Not here: who shares a micro-batch (batch_plan.py); log-probabilities (logprobs.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from tenth.base.errors import DataError
from tenth.data.packing import best_fit

# Shapes: S sequences, B rows, T tokens per row, N trained tokens, A trained tokens of the longest sequence


class Layout(StrEnum):
    """Where sequences lie in the rectangle."""

    PAD_RIGHT = "pad_right"  # needs no mask: causal attention never looks at what follows
    PAD_LEFT = "pad_left"
    PACKED = "packed"  # several sequences per row, kept apart by segment ids


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSequence:
    """Token ids and which of them are trained on. The first cannot be: nothing precedes it."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.trained):
            raise DataError(
                f"a sequence has {len(self.ids)} ids and {len(self.trained)} mask entries; give one per id."
            )
        if len(self.ids) < 2:
            raise DataError(
                f"a sequence of {len(self.ids)} tokens has nothing to predict; leave out empty documents."
            )
        if self.trained[0]:
            raise DataError(
                "the first token of a sequence has no context to be predicted from; start with bos."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """One forward pass, and where its trained tokens are."""

    ids: Tensor  # (B, T) int64
    positions: Tensor | None  # (B, T) int64 inside the sequence; None: 0, 1, 2, ...
    segment_ids: Tensor | None  # (B, T) int64, 0 for padding; None: attend to all that precedes
    token_mask: Tensor | None  # (B, T) bool, false for padding; None: no padding
    answer_index: Tensor  # (N,) int64 into the flat (B T): where the next token is trained
    answer_ids: Tensor  # (N,) int64 the token to predict there
    sequence_ids: Tensor  # (N,) int64 which of the S sequences it belongs to
    answer_columns: Tensor  # (N,) int64 its rank among its sequence's trained tokens
    num_sequences: int

    def to_rows(self, values: Tensor) -> Tensor:
        """Flat trained-token values (N,) -> (S, A), zero where a sequence has no more."""
        width = int(self.answer_columns.max()) + 1 if len(self.answer_columns) else 0
        return values.new_zeros(self.num_sequences, width).index_put(
            (self.sequence_ids, self.answer_columns), values
        )


def collate(
    sequences: Sequence[TrainedSequence], *, pad_id: int = 0, layout: Layout = Layout.PAD_RIGHT
) -> TokenBatch:
    """Lay the sequences out; the batch's S order is the order given."""
    lengths = [len(sequence.ids) - 1 for sequence in sequences]
    places, num_rows, width = _place(lengths, layout)
    ids = torch.full((num_rows, width), pad_id)  # (B, T)
    targets = torch.full((num_rows, width), pad_id)  # (B, T)
    is_trained = torch.zeros(num_rows, width, dtype=torch.bool)  # (B, T)
    is_real = torch.zeros(num_rows, width, dtype=torch.bool)  # (B, T)
    owners = torch.zeros(num_rows, width, dtype=torch.long)  # (B, T)
    positions = torch.zeros(num_rows, width, dtype=torch.long)  # (B, T)
    for index, (sequence, (row, start)) in enumerate(zip(sequences, places, strict=True)):
        span = slice(start, start + lengths[index])
        tokens = torch.tensor(sequence.ids)
        ids[row, span] = tokens[:-1]
        targets[row, span] = tokens[1:]
        is_trained[row, span] = torch.tensor(sequence.trained[1:])
        is_real[row, span] = True
        owners[row, span] = index
        positions[row, span] = torch.arange(lengths[index])
    answer_index, answer_owners = _by_sequence(is_trained, owners)
    needs_segments = layout is not Layout.PAD_RIGHT
    return TokenBatch(
        ids=ids,
        positions=positions if needs_segments else None,
        segment_ids=(owners + 1) * is_real if needs_segments else None,
        token_mask=None if bool(is_real.all()) else is_real,
        answer_index=answer_index,
        answer_ids=targets.flatten()[answer_index],
        sequence_ids=answer_owners,
        answer_columns=_ranks(answer_owners),
        num_sequences=len(sequences),
    )


def _place(lengths: Sequence[int], layout: Layout) -> tuple[list[tuple[int, int]], int, int]:
    """(row, first column) of each sequence, number of rows, width."""
    width = max(lengths)
    if layout is Layout.PAD_RIGHT:
        return [(row, 0) for row in range(len(lengths))], len(lengths), width
    if layout is Layout.PAD_LEFT:
        return [(row, width - length) for row, length in enumerate(lengths)], len(lengths), width
    rows = best_fit(lengths, capacity=width)
    places = [(0, 0)] * len(lengths)
    for row, members in enumerate(rows):
        start = 0
        for index in members:
            places[index] = (row, start)
            start += lengths[index]
    return places, len(rows), width


def _by_sequence(is_trained: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions of trained tokens, ordered by sequence and inside it by time, and their owners."""
    index = is_trained.flatten().nonzero().squeeze(-1)  # (N,)
    of = owners.flatten()[index]  # (N,)
    order = of.argsort(stable=True)
    return index[order], of[order]


def _ranks(owners: Tensor) -> Tensor:
    """0, 1, 2, ... inside each run of equal owners; owners are sorted."""
    first = torch.searchsorted(owners, owners)  # (N,)
    return torch.arange(len(owners)) - first
