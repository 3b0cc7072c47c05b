"""Rewards on held-out problems: means over problems, and what failed in none of them."""

import pytest

from tenth.base.records import Finish, Rollout
from tenth.rollout.held_out import HeldOut, measure_rewards


def rollout(group_id, reward, *, tokens=3, finish=Finish.STOP, error=None, **rewards):
    return Rollout(
        problem_id=str(group_id),
        task="",
        level=0,
        group_id=group_id,
        prompt_ids=(0,),
        answer_ids=(5,) * tokens,
        answer_logprobs=(),
        rewards=rewards,
        reward=reward,
        finish=finish,
        policy_step=0,
        prompt="",
        text="",
        error=error,
    )


def test_the_mean_is_over_problems_and_its_interval_too():
    found = measure_rewards([rollout(0, 1.0), rollout(0, 0.0), rollout(1, 1.0), rollout(1, 1.0)])
    assert found.reward == 0.75  # of 0.5 and 1
    # standard deviation 0.25 over two problems: 1.96 * 0.25 / sqrt(2)
    assert found.half_width == pytest.approx(0.346, abs=1e-3)
    assert (found.problems, found.samples) == (2, 2)


def test_answers_whose_reward_failed_are_counted_and_in_no_mean():
    failed = rollout(0, 0.0, tokens=9, finish=Finish.LENGTH, error="it crashed")
    found = measure_rewards([rollout(0, 1.0, tokens=3, mine=1.0), failed])
    assert (found.reward, found.rewards, found.unscored) == (1.0, {"mine": 1.0}, 1)
    assert (found.mean_tokens, found.truncated) == (6.0, 0.5)


def test_a_reward_without_an_opinion_leaves_its_mean_alone():
    found = measure_rewards([rollout(0, 1.0, a=1.0, b=0.5), rollout(1, 1.0, a=0.0)])
    assert found.rewards == {"a": 0.5, "b": 0.5}


def test_what_was_measured_is_read_back_as_it_was():
    found = measure_rewards([rollout(0, 0.5, mine=0.5)])
    assert HeldOut.from_dict(found.to_dict()) == found
