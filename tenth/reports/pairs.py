"""Which answers to show: the same problems before and after, chosen without looking at who was right.

Why: a picked example proves anything. Problems are taken in the order of their content hashes, the same
number per family, and the first stored sample of each is shown, right or wrong.
In:  samples of the base and of R1-Zero.  Out: `Pair`s.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tenth.base.records import Rollout
from tenth.reports.runs import MEASURE_BASE, MEASURE_ZERO, Run, read_rollouts
from tenth.reports.scores import SAMPLED, Sample, read_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One problem, answered by the base and by R1-Zero."""

    before: Sample
    after: Sample


def pair_samples(before: Sequence[Sample], after: Sequence[Sample], *, per_family: int) -> list[Pair]:
    """The first `per_family` problems of each family, by hash, that both models answered."""
    first_before, first_after = first_of_each(before), first_of_each(after)
    chosen: dict[str, list[Pair]] = defaultdict(list)
    for problem_id in sorted(first_before.keys() & first_after.keys()):
        pair = Pair(before=first_before[problem_id], after=first_after[problem_id])
        if len(chosen[pair.before.family]) < per_family:
            chosen[pair.before.family].append(pair)
    return [pair for family in sorted(chosen) for pair in chosen[family]]


def pairs_of_run(run: Run, *, per_family: int) -> list[Pair]:
    """Pairs from the stored samples, or from the evaluations' examples where no samples were kept."""
    return pair_samples(_sampled(run, MEASURE_BASE), _sampled(run, MEASURE_ZERO), per_family=per_family)


def rollouts_along_the_way(files: Sequence[Path], *, count: int) -> list[Rollout]:
    """The first stored rollout of `count` steps, evenly spaced from the first step to the last."""
    if not files:
        return []
    last = len(files) - 1
    picked = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
    found = [read_rollouts(files[i]) for i in picked]
    return [rollouts[0] for rollouts in found if rollouts]


def _sampled(run: Run, stage_name: str) -> Sequence[Sample]:
    stage = run.stage(stage_name)
    if stage is None:
        return []
    stored = read_samples(stage.path, SAMPLED)
    evaluation = None if stored else stage.scores()
    return [s for s in evaluation.examples if s.mode == SAMPLED] if evaluation else stored


def first_of_each(samples: Sequence[Sample]) -> dict[str, Sample]:
    """The first sample of every problem."""
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(sample.problem_id, sample)
    return found
