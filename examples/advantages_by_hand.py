"""GRPO's advantages with a pencil: how one question's answers are weighed against each other.

No value network: an answer is good if it did better than its siblings (DeepSeekMath, arXiv:2402.03300,
section 4.1.2). Torch is not needed.
"""

import math

from tenth.training.advantages import RewardScale, advantages_by_group, group_advantages


def main() -> None:
    """One right answer of four, a group that agrees, and two groups at once."""
    rewards = [1.0, 0.0, 0.0, 0.0]

    # Mean 1/4. Squared distances 9/16, 1/16, 1/16, 1/16 add up to 12/16; divided by 4, that is 3/16.
    mean, std = 1 / 4, math.sqrt(3 / 16)
    by_hand = [(reward - mean) / std for reward in rewards]
    assert group_advantages(rewards) == by_hand
    print(f"one right of four: {[round(a, 3) for a in by_hand]}")  # sqrt(3) for the right one
    assert math.isclose(by_hand[0], math.sqrt(3))

    # All right, or all wrong: nothing to learn from, so the group moves no weight.
    assert group_advantages([1.0, 1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0, 0.0]

    # Without the division (Dr. GRPO) the right answer counts for its distance from the mean alone.
    assert group_advantages(rewards, scale=RewardScale.NONE) == [0.75, -0.25, -0.25, -0.25]

    # A batch holds many groups; None is an answer whose checker failed, and it drags nobody's mean.
    batch = [1.0, 0.0, None, 0.0, 1.0]
    groups = [0, 0, 0, 1, 1]
    print(f"two groups, one answer unknown: {advantages_by_group(batch, groups)}")
    assert advantages_by_group(batch, groups) == [1.0, -1.0, 0.0, -1.0, 1.0]


if __name__ == "__main__":
    main()
