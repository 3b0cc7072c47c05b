"""The batch rule and the two ways of cutting."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.training.batch_plan import BatchPlan, plan_micro_batches


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            BatchPlan(prompts=32, samples=16, minibatch_size=256),
            "32 prompts × 16 samples = 512 rollouts = 2 minibatches × 256",
        ),
        (
            BatchPlan(prompts=8, samples=8, minibatch_size=64),
            "8 prompts × 8 samples = 64 rollouts = 1 minibatch × 64",
        ),
        (
            BatchPlan(prompts=3, samples=5, minibatch_size=4),
            "3 prompts × 5 samples = 15 rollouts = 4 minibatches × 4 (the last has 3)",
        ),
    ],
)
def test_the_rule_is_one_sentence(plan, sentence):
    assert plan.sentence() == sentence


def test_a_group_of_one_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="at least 2; set it to 8"):
        BatchPlan(prompts=4, samples=1, minibatch_size=4)


@given(prompts=st.integers(1, 9), samples=st.integers(2, 9), size=st.integers(1, 50), seed=st.integers(0, 9))
def test_any_sizes_work_and_every_rollout_is_trained_once(prompts, samples, size, seed):
    plan = BatchPlan(prompts=prompts, samples=samples, minibatch_size=size)
    parts = list(plan.minibatches(range(plan.rollouts), random.Random(seed)))
    assert len(parts) == plan.num_minibatches
    assert sorted(item for part in parts for item in part.items) == list(range(plan.rollouts))
    assert all(part.share == 1 for part in parts[:-1])
    assert parts[-1].share == len(parts[-1].items) / size


def test_the_same_generator_cuts_the_same_way():
    plan = BatchPlan(prompts=4, samples=4, minibatch_size=5)
    first, second = (list(plan.minibatches(range(16), random.Random(3))) for _ in range(2))
    assert first == second


def test_micro_batches_start_with_the_longest_and_pad_no_more_than_the_budget():
    # lengths 9 9 4 4 4 2, budget 18: 2 × 9, then 3 × 4 with room for a fourth of width 4
    assert plan_micro_batches([4, 9, 2, 4, 9, 4], budget_tokens=18) == [[1, 4], [0, 3, 5, 2]]


def test_a_sequence_longer_than_the_budget_goes_alone():
    assert plan_micro_batches([50, 3, 3], budget_tokens=6) == [[0], [1, 2]]


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 100))
def test_micro_batches_cover_everything_once_within_the_budget(lengths, budget):
    parts = plan_micro_batches(lengths, budget_tokens=budget)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    assert all(len(part) == 1 or max(lengths[i] for i in part) * len(part) <= budget for part in parts)
