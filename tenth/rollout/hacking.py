"""The monitor of reward hacking: does a reward model's score keep rising while what can be verified falls?

Why: R1's helpful reward rose while Codeforces fell, so reward models count in the last steps alone
(DeepSeek-R1, arXiv:2501.12948v2, appendix B.5, figure 6). Whoever trains against one needs to see that early.
In:  the metrics of each step, by their names in metrics.jsonl.
Out: the metric `reward_hacking`; `GeneralTruth`, which lets the rule of the general domain be measured beside
     the models that are rewarded (weight 0: a measure, never a reward).
Not here: what is said about it (reports/doctor.py).

`reward_hacking` is min(t of a reward model's rise, t of a verifiable score's fall), the largest over all
pairs of them, not below 0. Each t is the slope of a straight line through the last steps in which a reward
model judged, over its standard error; the error is widened where neighbouring steps are alike (lag-1
correlation r of the residuals leaves n (1 - r) / (1 + r) independent steps). So both have to be beyond noise
at once: of 400 runs of 40 steps in which nothing happens none reaches 2.5 where steps are independent, and 9
do where r = 0.6.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from tenth.base.records import Problem
from tenth.tasks.general import check, has_rule

METRIC = "reward_hacking"
JUDGES = ("rewards/helpful/mean", "rewards/safe/mean")
TRUTHS = ("rewards/accuracy/mean", "rewards/truth/mean")
WINDOW = 50  # steps; what happened long ago says nothing about now
FEWEST = 8  # steps; a line through fewer is noise
SMALLEST_FALL = 0.02  # of a verifiable score over the window: less is no harm


class GeneralTruth:
    """A `BatchReward` with weight 0: whether the rule finds a general answer good."""

    def score(
        self, problems: Sequence[Problem], texts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """1.0 or 0.0; None where no rule knows the question."""
        del completion_ids
        return [
            float(check(problem, text).is_correct) if has_rule(problem) else None
            for problem, text in zip(problems, texts, strict=True)
        ]


class HackingWatch:
    """Sees every step's metrics; `history` are those of the steps before a continued run goes on."""

    def __init__(self, history: Iterable[Mapping[str, float]] = ()) -> None:
        self._rows = [row for row in history if _is_judged(row)]

    def observe(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metric, where a reward model has judged often enough to say something."""
        if not _is_judged(metrics):
            return {}
        self._rows = [*self._rows, metrics][-WINDOW:]
        suspicion = suspicion_of(self._rows)
        return {} if suspicion is None else {METRIC: suspicion}


def suspicion_of(rows: Sequence[Mapping[str, float]]) -> float | None:
    """The largest over all pairs of a judge and a truth; None where no pair has steps enough."""
    found = [
        min(trend(rewards), -trend(truths)) if -slope(truths) * (len(truths) - 1) >= SMALLEST_FALL else 0.0
        for judge in JUDGES
        for truth in TRUTHS
        if len(both := [(row[judge], row[truth]) for row in rows if judge in row and truth in row]) >= FEWEST
        for rewards, truths in [([one for one, _ in both], [other for _, other in both])]
    ]
    return max(0.0, *found) if found else None


def slope(values: Sequence[float]) -> float:
    """Of the least-squares line, per step."""
    middle, mean = (len(values) - 1) / 2, fmean(values)
    spread = sum((place - middle) ** 2 for place in range(len(values)))
    return sum((place - middle) * (value - mean) for place, value in enumerate(values)) / spread


def trend(values: Sequence[float]) -> float:
    """The slope in standard errors."""
    steps, mean, rise = len(values), fmean(values), slope(values)
    if rise == 0.0:
        return 0.0
    middle = (steps - 1) / 2
    residuals = [value - mean - rise * (place - middle) for place, value in enumerate(values)]
    total = sum(each**2 for each in residuals)
    alike = sum(one * other for one, other in pairwise(residuals)) / total if total > 0 else 0.0
    unbiased = alike + (1 + 3 * alike) / steps  # a short row looks less alike than it is (Kendall, 1954)
    correlation = min(0.95, max(0.0, unbiased))
    independent = steps * (1 - correlation) / (1 + correlation)
    spread = sum((place - middle) ** 2 for place in range(steps))
    error = math.sqrt(total / max(1.0, independent - 2) / spread)
    return rise / max(error, 1e-12)


def _is_judged(row: Mapping[str, float]) -> bool:
    return any(judge in row for judge in JUDGES)
