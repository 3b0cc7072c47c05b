"""How many pairs would be needed: accuracy against the number of pairs, fitted and continued.

Why: where a reward model does not beat counting words, the honest next question is how much data would change
that. In:  accuracies of runs that learnt from different numbers of pairs. Out: a fitted curve, and the number
at which the lower end of its interval would lie above a mark; None where the curve does not say so.
Not here: the runs (reward_check.py).

The curve is a line in log-odds, logit(accuracy) = a + b ln(pairs): it starts at a coin for few pairs, bends
towards 1, and is a power law of the odds. Fitted by least squares through the mean of each size.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

MOST_PAIRS = 1e8  # beyond it a curve fitted to hundreds says nothing
_BOOTSTRAPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """logit(accuracy) = intercept + slope ln(pairs)."""

    intercept: float
    slope: float

    def accuracy(self, pairs: float) -> float:
        """What the curve expects."""
        return 1 / (1 + math.exp(-(self.intercept + self.slope * math.log(pairs))))

    def pairs_needed(self, *, mark: float, half_width: float, at_pairs: float) -> float | None:
        """The smallest number of pairs to learn from at which accuracy - half width exceeds `mark`.

        The interval narrows with the square root of the number of pairs; today's is `half_width` at
        `at_pairs`.
        """
        pairs = float(at_pairs)
        while pairs <= MOST_PAIRS:
            if self.accuracy(pairs) - half_width * math.sqrt(at_pairs / pairs) > mark:
                return pairs
            pairs *= 1.02
        return None


def fit_curve(runs: Mapping[int, Sequence[float]]) -> LearningCurve:
    """`runs`: number of pairs -> accuracies of the runs that learnt from so many."""
    points = [(math.log(size), _logit(fmean(found))) for size, found in runs.items()]
    x_mean, y_mean = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / spread
    return LearningCurve(intercept=y_mean - slope * x_mean, slope=slope)


def extrapolate(
    runs: Mapping[int, Sequence[float]], *, mark: float, half_width: float, seed: int
) -> dict[str, Any]:
    """The curve, the pairs that it asks for, and the 80 % range of that over resampled runs."""
    largest = max(runs)
    ask = {"mark": mark, "half_width": half_width, "at_pairs": float(largest)}
    curve, rng = fit_curve(runs), random.Random(seed)
    needs = sorted(
        fit_curve({size: rng.choices(found, k=len(found)) for size, found in runs.items()}).pairs_needed(
            **ask
        )
        or math.inf
        for _ in range(_BOOTSTRAPS)
    )
    low, high = needs[_BOOTSTRAPS // 10], needs[-_BOOTSTRAPS // 10 - 1]
    return {
        "points": {str(size): fmean(found) for size, found in runs.items()},
        "intercept": curve.intercept,
        "slope": curve.slope,
        "mark": mark,
        "pairs_needed": curve.pairs_needed(**ask),
        "range_80": [None if math.isinf(need) else need for need in (low, high)],
        "share_without_end": sum(map(math.isinf, needs)) / _BOOTSTRAPS,
    }


def _logit(accuracy: float) -> float:
    inside = min(0.999, max(0.001, accuracy))
    return math.log(inside / (1 - inside))
