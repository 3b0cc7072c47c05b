"""A model measured by its rewards on problems it never trains on.

Why: for somebody's own rewards there is no right or wrong, only more or less; so the reward itself is what is
compared before and after. Intervals are over problems, since samples of one problem are not independent.
In:  scored rollouts, whole groups.  Out: `HeldOut`.
Not here: accuracy of R1-Zero's modes (evaluate.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tenth.base.records import Finish, Record, Rollout
from tenth.rollout.collect import groups_of
from tenth.rollout.evaluate import half_width


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Record):
    """The means over all problems."""

    reward: float
    half_width: float  # of the 95 % interval of `reward`
    rewards: Mapping[str, float]  # by name, unweighted
    mean_tokens: float
    truncated: float  # share that was cut off by its length
    problems: int
    samples: int  # per problem
    unscored: int  # answers whose reward failed; they are in none of the means


def measure_rewards(rollouts: Sequence[Rollout]) -> HeldOut:
    """At least one rollout must have been scored."""
    known = [rollout for rollout in rollouts if rollout.error is None]
    by_problem = [fmean(each.reward for each in group) for group in groups_of(known).values()]
    names = sorted({name for rollout in known for name in rollout.rewards})
    num_problems = len(groups_of(rollouts))
    return HeldOut(
        reward=fmean(by_problem),
        half_width=half_width(by_problem),
        rewards={
            name: fmean(rollout.rewards[name] for rollout in known if name in rollout.rewards)
            for name in names
        },
        mean_tokens=fmean(len(rollout.answer_ids) for rollout in rollouts),
        truncated=fmean(rollout.finish is Finish.LENGTH for rollout in rollouts),
        problems=num_problems,
        samples=len(rollouts) // num_problems,
        unscored=len(rollouts) - len(known),
    )
