"""Advantages worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.training.advantages import RewardScale, advantages_by_group, group_advantages, overlong_penalty


def test_an_answer_equal_to_the_group_mean_earns_nothing():
    assert group_advantages([0.0, 0.5, 1.0])[1] == 0.0


@pytest.mark.parametrize("scale", list(RewardScale))
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_a_group_that_fully_agrees_teaches_nothing(scale, reward):
    assert group_advantages([reward] * 3, scale=scale) == [0.0, 0.0, 0.0]


def test_the_only_right_answer_of_four_is_pushed_by_root_three():
    # mean 1/4, population standard deviation sqrt(3)/4, so (1 - 1/4) / (sqrt(3)/4) = sqrt(3)
    expected = [3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)]
    assert group_advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx(expected)


def test_without_scaling_the_advantage_is_the_distance_from_the_mean():
    assert group_advantages([1.0, 0.0, 0.0, 0.0], scale=RewardScale.NONE) == [0.75, -0.25, -0.25, -0.25]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_advantages_are_zero_mean_and_unit_variance_or_silent(rewards):
    advantages = group_advantages(rewards)
    assert sum(advantages) == pytest.approx(0, abs=1e-6)
    square = sum(a * a for a in advantages) / len(advantages)
    assert square == pytest.approx(1) or square == 0


def test_groups_do_not_see_each_other_even_when_interleaved():
    assert advantages_by_group([1.0, 5.0, 0.0, 5.0], [7, 8, 7, 8]) == [1.0, 0.0, -1.0, 0.0]


def test_an_unknown_reward_earns_nothing_and_does_not_move_the_mean():
    assert advantages_by_group([1.0, None, 0.0], [1, 1, 1]) == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(("length", "penalty"), [(60, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (120, -1.0)])
def test_soft_overlong_punishment_slopes_over_the_last_twenty_of_a_hundred_tokens(length, penalty):
    assert overlong_penalty(length, max_length=100, buffer=20) == penalty
