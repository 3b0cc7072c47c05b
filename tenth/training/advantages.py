"""Group-relative advantages: turn the rewards of one prompt's samples into training weights.

Why: GRPO (DeepSeekMath, arXiv:2402.03300, section 4.1) replaces the value network by the mean of the group,
so this file alone decides "how good was this answer, compared with its siblings".
In:  rewards, one float per sampled answer, and which group each belongs to.
Out: one advantage per answer; zero-mean inside the group, no unit.
Not here: clipping and KL (losses.py); dropping groups without signal (rollout/).
"""

import math
from collections.abc import Sequence
from enum import StrEnum

SMALLEST_STD = 1e-6  # below this the rewards of a group differ by rounding only


class RewardScale(StrEnum):
    """What the distance from the group's mean is divided by (TRL: scale_rewards)."""

    GROUP = "group"  # the group's standard deviation (DeepSeekMath, R1)
    NONE = "none"  # nothing (Dr. GRPO, arXiv:2503.20783: no bias towards easy and hard)


def group_advantages(rewards: Sequence[float], *, scale: RewardScale = RewardScale.GROUP) -> list[float]:
    """A_i = (R_i - mean) / std, over the population of the group (DeepSeekMath section 4.1.2, R1 eq. 3).

    A group that agrees has no spread to divide by: its advantages are 0.
    """
    mean = math.fsum(rewards) / len(rewards)
    std = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    if std < SMALLEST_STD:
        return [0.0] * len(rewards)
    divisor = std if scale is RewardScale.GROUP else 1.0
    return [(reward - mean) / divisor for reward in rewards]


def advantages_by_group(
    rewards: Sequence[float | None], group_ids: Sequence[int], *, scale: RewardScale = RewardScale.GROUP
) -> list[float]:
    """Advantages in the order of `rewards`; None (reward unknown) earns 0 and leaves the mean alone."""
    members: dict[int, list[int]] = {}
    for index, (reward, group_id) in enumerate(zip(rewards, group_ids, strict=True)):
        if reward is not None:
            members.setdefault(group_id, []).append(index)
    advantages = [0.0] * len(rewards)
    for indices in members.values():
        known = [reward for reward in (rewards[i] for i in indices) if reward is not None]
        for index, advantage in zip(indices, group_advantages(known, scale=scale), strict=True):
            advantages[index] = advantage
    return advantages


def overlong_penalty(length: int, *, max_length: int, buffer: int) -> float:
    """Soft overlong punishment (DAPO, arXiv:2503.14476, eq. 13): 0, then down to -1 over `buffer` tokens.

    paper -> here: L_max -> max_length, L_cache -> buffer.
    """
    over = length - (max_length - buffer)
    return 0.0 if over <= 0 else max(-1.0, -over / buffer)
