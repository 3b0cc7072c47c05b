"""The GRPO objective by hand, in all its variants."""

import math

import pytest
import torch

from tenth.base.errors import ConfigError
from tenth.training.grpo_loss import GrpoConfig, LossType, Normaliser, grpo_loss

# Two sequences: one of two tokens with advantage 1, one of one token with advantage -1.
MASK = torch.tensor([[True, True], [True, False]])
ADVANTAGES = torch.tensor([1.0, -1.0])
OLD = torch.log(torch.tensor([[0.5, 0.4], [0.2, 1.0]]))
WHOLE = Normaliser(num_sequences=2, num_tokens=3)


def loss_of(probabilities, config, *, reference=None, normaliser=WHOLE):
    logp = torch.log(torch.tensor(probabilities))
    ref = None if reference is None else torch.log(torch.tensor(reference))
    return grpo_loss(logp, OLD, ref, ADVANTAGES, MASK, config, normaliser=normaliser)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # ratios 1.1 and 0.9 with A = 1; 1.5 with A = -1, unclipped since it hurts
        (LossType.GRPO, -((1.1 + 0.9) / 2 - 1.5) / 2),
        (LossType.DAPO, -(1.1 + 0.9 - 1.5) / 3),
        (LossType.DR_GRPO, -(1.1 + 0.9 - 1.5) / (2 * 10)),
        # one ratio per sequence: 1.1 × 0.9 = 0.99 and 1.5
        (LossType.SEQUENCE, -(0.99 - 1.5) / 2),
    ],
)
def test_each_variant_divides_by_its_own_denominator(loss_type, expected):
    config = GrpoConfig(beta=0, loss_type=loss_type, max_completion_length=10)
    loss, _ = loss_of([[0.55, 0.36], [0.3, 1.0]], config)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_on_policy_the_loss_is_minus_the_mean_advantage_and_so_zero():
    loss, sums = loss_of([[0.5, 0.4], [0.2, 1.0]], GrpoConfig(beta=0))
    assert loss.item() == pytest.approx(0.0)
    assert (sums.clipped_low, sums.clipped_high, sums.mismatch) == (0.0, 0.0, 0.0)


def test_the_kl_term_is_k3_per_token_times_beta():
    # pi_ref / pi = 2 on the first token, 1 elsewhere: k3 = 2 - log 2 - 1, halved per sequence and per mean
    loss, sums = loss_of([[0.5, 0.4], [0.2, 1.0]], GrpoConfig(beta=0.1), reference=[[1.0, 0.4], [0.2, 1.0]])
    k3 = 1 - math.log(2)
    assert loss.item() == pytest.approx(0.1 * k3 / 2 / 2, rel=1e-5)
    assert sums.kl == pytest.approx(k3, rel=1e-5)


def test_r1s_sequence_form_takes_the_kl_of_the_whole_sequence():
    # pi_ref / pi = 2 × 1.5 = 3 for the first sequence
    loss, _ = loss_of(
        [[0.5, 0.4], [0.2, 1.0]],
        GrpoConfig(beta=0.1, loss_type=LossType.SEQUENCE),
        reference=[[1.0, 0.6], [0.2, 1.0]],
    )
    assert loss.item() == pytest.approx(0.1 * (3 - math.log(3) - 1) / 2, rel=1e-5)


def test_clip_higher_lets_a_good_token_rise_further():
    raised = [[0.65, 0.4], [0.2, 1.0]]  # ratio 1.3
    plain, plain_sums = loss_of(raised, GrpoConfig(beta=0))
    higher, higher_sums = loss_of(raised, GrpoConfig(beta=0, epsilon_high=0.4))
    assert plain.item() == pytest.approx(-((1.2 + 1) / 2 - 1) / 2, rel=1e-5)
    assert higher.item() == pytest.approx(-((1.3 + 1) / 2 - 1) / 2, rel=1e-5)
    assert (plain_sums.clipped_high, higher_sums.clipped_high) == (1.0, 0.0)


def test_an_epsilon_of_ten_clips_only_above_eleven():
    # R1's first RL stage: the lower bound 1 - 10 can never bind
    _, sums = loss_of([[0.5, 0.4], [0.001, 1.0]], GrpoConfig(beta=0, epsilon=10.0))
    assert (sums.clipped_low, sums.clipped_high) == (0.0, 0.0)


def test_clip_counts_are_by_side():
    # ratio 1.4 with A = 1 is clipped high; ratio 0.5 with A = -1 is clipped low
    _, sums = loss_of([[0.7, 0.4], [0.1, 1.0]], GrpoConfig(beta=0))
    assert (sums.clipped_high, sums.clipped_low, sums.tokens) == (1.0, 1.0, 3.0)


@pytest.mark.parametrize("loss_type", list(LossType))
def test_masked_tokens_have_no_gradient(loss_type):
    logp = OLD.clone().requires_grad_()
    loss, _ = grpo_loss(
        logp, OLD, OLD - 0.1, ADVANTAGES, MASK, GrpoConfig(beta=0.5, loss_type=loss_type), normaliser=WHOLE
    )
    loss.backward()
    assert logp.grad[1, 1].item() == 0
    assert logp.grad[MASK].abs().min() > 0


def test_on_policy_the_gradient_of_a_token_is_its_advantage_over_its_denominators():
    logp = OLD.clone().requires_grad_()
    grpo_loss(logp, OLD, None, ADVANTAGES, MASK, GrpoConfig(beta=0), normaliser=WHOLE)[0].backward()
    assert logp.grad.tolist() == [pytest.approx([-0.25, -0.25]), pytest.approx([0.5, 0.0])]


def test_the_loss_of_a_minibatch_is_the_sum_over_its_parts():
    config, logp = GrpoConfig(beta=0.1), OLD + 0.05
    whole, _ = grpo_loss(logp, OLD, OLD, ADVANTAGES, MASK, config, normaliser=WHOLE)
    parts = [
        grpo_loss(
            logp[i : i + 1],
            OLD[i : i + 1],
            OLD[i : i + 1],
            ADVANTAGES[i : i + 1],
            MASK[i : i + 1],
            config,
            normaliser=WHOLE,
        )[0]
        for i in range(2)
    ]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize(
    ("values", "words"),
    [({"beta": -1}, "beta"), ({"epsilon": 0}, "epsilon"), ({"overlong_buffer": 0}, "overlong_buffer")],
)
def test_a_configuration_that_cannot_work_says_why(values, words):
    with pytest.raises(ConfigError, match=words):
        GrpoConfig(**values)
