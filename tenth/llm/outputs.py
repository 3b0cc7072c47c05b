"""What comes out of a model, as text: pieces while it is being written, and the whole of it.

Why: a stream, a batch call and a server need the same facts about an answer, so there is one record for a
part and for the whole: an answer is the sum of its pieces.
Not here: where pieces are made (text_requests.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from tenth.base.records import Finish
from tenth.engine.request import TopLogprobs

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of one sample's answer; or, summed up, all of it."""

    sample: int  # 0 .. n-1
    text: str
    ids: tuple[int, ...]  # as sampled: the stop id and the tokens of a stop string are there
    logprobs: tuple[float, ...]  # of those ids, natural log, of the model's own temperature-1 distribution
    top_logprobs: tuple[TopLogprobs, ...] = ()  # per id, best first, where asked for
    finish: Finish | None = None  # None: more will come
    stop: str | None = None  # the stop string that ended the answer
    cached_tokens: int = 0  # of the prompt, found in the prefix cache
    error: str | None = None  # what went wrong, where finish is ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What one prompt brought: its `n` samples, in order."""

    prompt_ids: tuple[int, ...]
    samples: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The answer, or the first of them."""
        return self.samples[0].text

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt_ids)

    @property
    def cached_tokens(self) -> int:
        """How many of the prompt's tokens were found in the prefix cache; all samples share one prompt."""
        return max(each.cached_tokens for each in self.samples)


class Gathered:
    """Adds up the pieces of one request, in time that grows with their number only."""

    def __init__(self, num_samples: int) -> None:
        self._pieces: dict[int, list[Piece]] = {}  # by sample
        self._num_open = num_samples

    @property
    def is_finished(self) -> bool:
        """Whether every sample has ended."""
        return self._num_open == 0

    def add(self, piece: Piece) -> None:
        """The next piece of any sample."""
        self._pieces.setdefault(piece.sample, []).append(piece)
        self._num_open -= piece.finish is not None

    def take(self) -> list[Piece]:
        """Everything since the last time, one piece per sample."""
        merged = [merge(pieces) for _, pieces in sorted(self._pieces.items())]
        self._pieces = {}
        return merged


def merge(pieces: Sequence[Piece]) -> Piece:
    """Pieces of one sample, in their order, as one."""
    if len(pieces) == 1:
        return pieces[0]
    last = pieces[-1]
    return Piece(
        sample=last.sample,
        text="".join(each.text for each in pieces),
        ids=_joined(each.ids for each in pieces),
        logprobs=_joined(each.logprobs for each in pieces),
        top_logprobs=_joined(each.top_logprobs for each in pieces),
        finish=last.finish,
        stop=last.stop,
        cached_tokens=max(each.cached_tokens for each in pieces),
        error=last.error,
    )


def _joined(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(parts))
