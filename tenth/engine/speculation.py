"""Whether guessing pays: tokens per second of steps with drafts and without, and which to do next.

Why: checking a guess costs an additional row in the step and making one may cost a layer. At batch 1 a step's
time hardly depends on its rows, in a wide batch it grows with them, so what pays is measured, apart for each
width of batch, and measured again now and then.
In:  what steps cost and brought. Out: whether to draft in the next one.
Not here: a clock (times are handed in), drafts (drafts.py). Nothing here can change a token: a draft is kept
only if it is what would have been drawn.
"""

from dataclasses import dataclass, field

_TRIAL_STEPS = 8  # of each kind before anything is concluded, and at every new trial
_TRUST_STEPS = 256  # steps of the better kind between two trials of the other
_MEMORY = 0.98  # what a past step still counts after one more: guesses are right by chance, so count many


@dataclass(slots=True)
class _Rate:
    """Tokens and seconds of steps of one kind, the latest counting most."""

    tokens: float = 0.0
    seconds: float = 0.0
    trial: int = 0  # steps since the trial began
    idle: int = 0  # steps of the other kind since the last of this kind

    def add(self, tokens: float, seconds: float) -> None:
        self.tokens = _MEMORY * self.tokens + tokens
        self.seconds = _MEMORY * self.seconds + seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Width:
    """What is known about batches of about one width."""

    drafted: _Rate = field(default_factory=_Rate)
    plain: _Rate = field(default_factory=_Rate)


class SpeculationGate:
    """Judges from measured steps. Widths count by powers of two."""

    def __init__(self) -> None:
        self._widths: dict[int, _Width] = {}

    def pays(self, width: int) -> bool:
        """Whether drafts have paid so far at this width; True as long as nobody knows."""
        known = self._at(width)
        is_known = known.drafted.seconds and known.plain.seconds
        return not is_known or known.drafted.tokens_per_second > known.plain.tokens_per_second

    def should_draft(self, width: int) -> bool:
        """Whether the next step of this width should: the better kind, or the one that is due for a trial."""
        known = self._at(width)
        if known.drafted.trial < _TRIAL_STEPS:
            return True
        return known.plain.trial >= _TRIAL_STEPS and self.pays(width)

    def record(self, width: int, *, is_drafted: bool, tokens: int, seconds: float) -> None:
        """A step of `width` sequences has taken so long and brought so many tokens."""
        known = self._at(width)
        mine, other = (known.drafted, known.plain) if is_drafted else (known.plain, known.drafted)
        mine.add(tokens / width, seconds)
        mine.trial += 1
        mine.idle = 0
        other.idle += 1
        if other.idle >= _TRUST_STEPS:
            other.tokens = other.seconds = 0.0  # what was is no judge of what is
            other.trial = other.idle = 0

    def _at(self, width: int) -> _Width:
        return self._widths.setdefault(width.bit_length(), _Width())
