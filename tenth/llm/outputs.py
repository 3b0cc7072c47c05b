"""What comes out of a model, as text: pieces while it is being written, and the whole of it.

Why: a stream, a batch call and a server need the same facts about an answer, so there is one record for a
part and for the whole: an answer is the sum of its pieces.
Not here: where pieces are made (text_requests.py).
"""

from dataclasses import dataclass, field
from io import StringIO

from tenth.base.records import Finish
from tenth.engine.request import TopLogprobs


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
    """Adds up the pieces of one request, in time and memory that grow with the answers only."""

    def __init__(self, num_samples: int) -> None:
        self._sums: dict[int, _Sum] = {}  # by sample
        self._num_open = num_samples

    @property
    def is_finished(self) -> bool:
        """Whether every sample has ended."""
        return self._num_open == 0

    def add(self, piece: Piece) -> None:
        """The next piece of any sample."""
        self._sums.setdefault(piece.sample, _Sum()).add(piece)
        self._num_open -= piece.finish is not None

    def take(self) -> list[Piece]:
        """Everything since the last time, one piece per sample, in order."""
        pieces = [each.to_piece(sample) for sample, each in sorted(self._sums.items())]
        self._sums = {}
        return pieces


@dataclass(slots=True)
class _Sum:
    """Neighbouring pieces of one sample."""

    text: StringIO = field(default_factory=StringIO)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    finish: Finish | None = None
    stop: str | None = None
    cached_tokens: int = 0
    error: str | None = None

    def add(self, piece: Piece) -> None:
        self.text.write(piece.text)
        self.ids += piece.ids
        self.logprobs += piece.logprobs
        self.top_logprobs += piece.top_logprobs
        self.finish, self.stop, self.error = piece.finish, piece.stop, piece.error
        self.cached_tokens = max(self.cached_tokens, piece.cached_tokens)

    def to_piece(self, sample: int) -> Piece:
        return Piece(
            sample=sample,
            text=self.text.getvalue(),
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.top_logprobs),
            finish=self.finish,
            stop=self.stop,
            cached_tokens=self.cached_tokens,
            error=self.error,
        )
