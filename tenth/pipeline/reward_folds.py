"""Cross-validation of reward models: folds that share no prompt, and an interval that knows they overlap.

Why: a few hundred pairs leave an accuracy uncertain by several points, and the training parts of repeated
folds overlap, so their accuracies vary together: the naive interval is far too narrow. Nadeau and Bengio
(Inference for the Generalization Error, Machine Learning 52, 2003, section 3) widen it: with J runs and
variance s2 of their accuracies, mean +- t(J - 1) sqrt((1/J + tested/trained) s2).
Folds may agree by chance and leave no variance at all, so the interval never ends inside Wilson's (Probable
Inference, JASA 22, 1927) for as many examples as were tested: no accuracy is known better than those allow.
In:  which prompt each example belongs to, and candidates: functions from (places to learn from, places to be
     tested on, seed) to margins, above 0 where the candidate is right.
Out: `CrossValidated` per candidate; all meet the same folds, so differences can be judged fold by fold.
Not here: the candidates (reward_linear.py, reward_check.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from tenth.base.errors import ConfigError
from tenth.base.seeds import stream_random
from tenth.training.preference import accuracy_of

Places = list[int]
Candidate = Callable[[Places, Places, int], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidated:
    """How a candidate did in every fold of every repeat."""

    name: str
    accuracies: tuple[float, ...]
    tested_per_trained: float
    num_examples: int  # distinct ones, each tested once per repeat

    @property
    def interval(self) -> Interval:
        """Of the accuracy, which lies between 0 and 1."""
        found = corrected_interval(self.accuracies, tested_per_trained=self.tested_per_trained)
        least = wilson_interval(found.mean, num_examples=self.num_examples)
        low, high = min(found.low, least.low), max(found.high, least.high)
        return Interval(mean=found.mean, low=max(0.0, low), high=min(1.0, high))

    @property
    def is_telling(self) -> bool:
        """Whether the interval ends before 0 and 1; one that would go on says that the data are too few."""
        found = corrected_interval(self.accuracies, tested_per_trained=self.tested_per_trained)
        return found.low >= 0 and found.high <= 1

    def beyond(self, other: "CrossValidated") -> Interval:
        """Of the difference to another candidate, fold by fold."""
        differences = [one - two for one, two in zip(self.accuracies, other.accuracies, strict=True)]
        found = corrected_interval(differences, tested_per_trained=self.tested_per_trained)
        return Interval(mean=found.mean, low=max(-1.0, found.low), high=min(1.0, found.high))

    def to_dict(self) -> dict[str, Any]:
        """As a result file holds it."""
        return {"name": self.name, **self.interval.to_dict(), "accuracies": list(self.accuracies)}


def draw_folds(prompts: Sequence[str], *, folds: int, repeats: int, seed: int) -> list[tuple[Places, Places]]:
    """(to learn from, to be tested on) of every fold of every repeat; a prompt is on one side only."""
    distinct = sorted(set(prompts))
    if folds < 2 or repeats < 1 or folds > len(distinct):
        raise ConfigError(
            f"{folds} folds, {repeats} repeats and {len(distinct)} distinct prompts: take at least 2 folds "
            "and 1 repeat, and no more folds than prompts."
        )
    drawn = []
    for repeat in range(repeats):
        order = list(distinct)
        stream_random(seed, "reward-folds", repeat).shuffle(order)
        fold_of = {prompt: place % folds for place, prompt in enumerate(order)}
        for fold in range(folds):
            tested = [place for place, prompt in enumerate(prompts) if fold_of[prompt] == fold]
            trained = [place for place, prompt in enumerate(prompts) if fold_of[prompt] != fold]
            drawn.append((trained, tested))
    return drawn


def cross_validate(
    candidates: Mapping[str, Candidate],
    drawn: Sequence[tuple[Places, Places]],
    *,
    seed: int,
    known: Mapping[str, Sequence[float]] | None = None,
    keep: Callable[[str, list[float]], None] = lambda _name, _accuracies: None,
) -> dict[str, CrossValidated]:
    """Every candidate on every fold. `keep` is told after each fold; what it was told is `known` later on."""
    share = fmean(len(tested) / len(trained) for trained, tested in drawn)
    num_examples = len({place for _, tested in drawn for place in tested})
    found = {}
    for name, candidate in candidates.items():
        accuracies = list((known or {}).get(name, ()))
        for number, (trained, tested) in enumerate(drawn):
            if number >= len(accuracies):
                accuracies.append(accuracy_of(candidate(trained, tested, seed + number)))
                keep(name, accuracies)
        found[name] = CrossValidated(
            name=name,
            accuracies=tuple(accuracies),
            tested_per_trained=share,
            num_examples=num_examples,
        )
    return found


def corrected_interval(values: Sequence[float], *, tested_per_trained: float) -> Interval:
    """Nadeau and Bengio's corrected resampled t interval, 95 %."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean=mean, low=-math.inf, high=math.inf)
    error = math.sqrt((1 / len(values) + tested_per_trained) * variance(values))
    half = student_t_quantile(0.975, degrees=len(values) - 1) * error
    return Interval(mean=mean, low=mean - half, high=mean + half)


def wilson_interval(share: float, *, num_examples: int) -> Interval:
    """Wilson's score interval of a share of `num_examples` independent examples, 95 %."""
    z = 1.959964
    grown = 1 + z * z / num_examples
    middle = (share + z * z / (2 * num_examples)) / grown
    spread = math.sqrt(share * (1 - share) / num_examples + (z / (2 * num_examples)) ** 2)
    return Interval(mean=share, low=middle - z * spread / grown, high=middle + z * spread / grown)


def student_t_quantile(share: float, *, degrees: int) -> float:
    """The value that Student's t stays below with probability `share`, from one half on."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, degrees) < share else (low, middle)
    return (low + high) / 2


def _t_below(value: float, degrees: int) -> float:
    """With tan(angle) = value / sqrt(degrees) the density is cos^(degrees - 1): Simpson's rule."""
    end, pieces = math.atan(value / math.sqrt(degrees)), 400
    width = end / pieces
    heights = [math.cos(place * width) ** (degrees - 1) for place in range(pieces + 1)]
    total = heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2])
    norm = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    return 0.5 + norm * total * width / 3
