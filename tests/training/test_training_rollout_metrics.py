"""A round of six answers in two groups, by hand."""

import pytest
from test_training_grpo import rollout

from tenth.base.records import Finish
from tenth.training.rollout_metrics import rollout_metrics

ROUND = [
    rollout(group_id=0, reward=1.0, answer_ids=(1, 2), task="sums"),
    rollout(group_id=0, reward=0.0, answer_ids=(1, 2, 3, 4), task="sums"),
    rollout(group_id=1, reward=1.0, answer_ids=(1,), task="gcd"),
    rollout(group_id=1, reward=1.0, answer_ids=(1, 2, 3, 4, 5), finish=Finish.LENGTH, task="gcd"),
    rollout(group_id=1, reward=0.0, answer_ids=(1, 2), error="timed out", task="gcd"),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reward", 3 / 4),  # the answer whose verifier failed has none
        ("reward_std", (0.5 + 0.0) / 2),  # population deviation of each group
        ("frac_reward_zero_std", 1 / 2),
        ("rewards/accuracy/mean", 3 / 4),
        ("accuracy/sums", 1 / 2),
        ("accuracy/gcd", 1.0),
        ("verifier_error_ratio", 1 / 5),
        ("completions/mean_length", 14 / 5),
        ("completions/min_length", 1.0),
        ("completions/max_length", 5.0),
        ("completions/clipped_ratio", 1 / 5),
        ("completions/mean_terminated_length", 9 / 4),
        ("num_tokens", 14 + 5 * 2),
    ],
)
def test_metrics_carry_trls_names_and_hand_counted_values(name, expected):
    assert rollout_metrics(ROUND)[name] == pytest.approx(expected)


def test_a_round_where_every_verifier_failed_still_has_lengths():
    metrics = rollout_metrics([rollout(error="crashed")])
    assert metrics["verifier_error_ratio"] == 1.0
    assert "reward" not in metrics
    assert metrics["completions/mean_length"] == 2.0
