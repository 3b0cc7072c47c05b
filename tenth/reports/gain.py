"""Where the gain of reinforcement learning comes from: readable answers, choosing to think, new ability.

Why: "accuracy rose by 50 points" may mean that the model learnt to close a tag. Four measured numbers
split the rise into three parts that add up to it exactly.

    S  base, template sampled     r  share of S's answers that could be read (an answer tag, closed)
    F  base, forced to think      Z  R1-Zero, template sampled

    format    = S (1 - r) / r      what the unreadable answers would have earned, had they been right as
                                   often as the readable ones; per family, weighted by problems
    thinking  = (F - S) - format   what the base gains by thinking every time, beyond being readable
    ability   = Z - F              what the base cannot do even when it is made to think
    total     = Z - S              the sum of the three

Any part may be negative (a base that thinks badly has F < S) and is then shown as it is. Where no answer
can be read (r = 0) there is nothing to extrapolate from and the format part is 0.
In:  the evaluations of the base and of R1-Zero.  Out: `Gain`.
Not here: words and bars (sections.py, figures.py).
"""

from dataclasses import dataclass

from tenth.reports.scores import FORCED_THINK, SAMPLED, Evaluation, Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Accuracy before and after, and the three parts between. Shares, not points."""

    start: float  # S
    format: float
    thinking: float
    ability: float
    end: float  # Z

    @property
    def total(self) -> float:
        """The whole rise; equal to the sum of the parts."""
        return self.end - self.start


def explain_gain(base: Evaluation, zero: Evaluation) -> Gain | None:
    """Split the rise from the sampled base to sampled R1-Zero; None while one of the three is missing."""
    start, think, end = base.score(SAMPLED), base.score(FORCED_THINK), zero.score(SAMPLED)
    if start is None or think is None or end is None:
        return None
    lost = lost_to_format(base)
    return Gain(
        start=start.accuracy,
        format=lost,
        thinking=think.accuracy - start.accuracy - lost,
        ability=end.accuracy - think.accuracy,
        end=end.accuracy,
    )


def lost_to_format(base: Evaluation) -> float:
    """Accuracy that the sampled base loses to answers nobody can read: the problem-weighted family mean."""
    mode = base.modes[SAMPLED]
    scores = list(mode.families.values()) or [mode.overall]
    weights = [max(score.problems, 1) for score in scores]
    return sum(_lost(s) * w for s, w in zip(scores, weights, strict=True)) / sum(weights)


def _lost(score: Score) -> float:
    readable = score.readable if score.readable is not None else score.format
    if not readable:
        return 0.0
    # A checker that is more lenient than the format can find accuracy > readable; the unreadable rest
    # still cannot earn more than its own share.
    return min(score.accuracy / readable, 1.0) * (1.0 - min(readable, 1.0))
