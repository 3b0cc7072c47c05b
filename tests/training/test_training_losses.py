"""Losses against torch's own in float64, and against pencil and paper."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tenth.training.losses import (
    bits_per_byte,
    chosen_logprobs,
    clipped_surrogate,
    k3_kl,
)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_chosen_logprobs_equal_log_softmax_in_value_and_gradient(temperature):
    logits, ids, weights = randn(6, 9), torch.tensor([0, 8, 3, 3, 1, 5]), randn(6, seed=2)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    logp, entropy = chosen_logprobs(ours, ids, temperature=temperature)
    expected = F.log_softmax(theirs / temperature, dim=-1).gather(-1, ids[:, None]).squeeze(-1)
    (logp * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(
        entropy, torch.distributions.Categorical(logits=logits / temperature).entropy()
    )
    assert not entropy.requires_grad


def test_a_uniform_distribution_over_eight_has_entropy_log_eight():
    _, entropy = chosen_logprobs(torch.zeros(1, 8), torch.tensor([3]))
    assert entropy.item() == pytest.approx(math.log(8))


def test_k3_is_zero_for_equal_policies_and_by_hand_otherwise():
    # r = pi_ref / pi_theta = 2: 2 - log 2 - 1
    logp = torch.tensor([math.log(0.25), math.log(0.5)])
    assert k3_kl(logp, torch.tensor([math.log(0.5), math.log(0.5)])).tolist() == pytest.approx(
        [1 - math.log(2), 0.0]
    )


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k3_is_never_negative(logp, logp_ref):
    assert (
        k3_kl(torch.tensor(logp, dtype=torch.float64), torch.tensor(logp_ref, dtype=torch.float64)) >= -1e-12
    )


def test_the_mean_of_k3_is_the_kl_divergence():
    policy, reference = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.3, 0.3, 0.4]).double()
    exact = (policy * (policy.log() - reference.log())).sum()
    assert (policy * k3_kl(policy.log(), reference.log())).sum().item() == pytest.approx(exact.item())


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, 2.0),  # on policy: the advantage itself
        (1.5, 1.0, 1.28),  # good and already likelier: capped at 1 + 0.28
        (0.5, 1.0, 0.5),  # good but less likely: not capped
        (0.5, -1.0, -0.8),  # bad and already less likely: capped at 1 - 0.2
        (1.5, -1.0, -1.5),  # bad and likelier: not capped
    ],
)
def test_the_surrogate_clips_only_what_has_gone_far_enough(ratio, advantage, expected):
    value = clipped_surrogate(
        torch.tensor(math.log(ratio)), torch.tensor(advantage), epsilon_low=0.2, epsilon_high=0.28
    )
    assert value.item() == pytest.approx(expected)


def test_a_clipped_token_has_no_gradient():
    log_ratio = torch.tensor([math.log(1.5), math.log(1.1)], requires_grad=True)
    clipped_surrogate(log_ratio, torch.tensor([1.0, 1.0]), epsilon_low=0.2, epsilon_high=0.2).sum().backward()
    assert log_ratio.grad.tolist() == pytest.approx([0.0, 1.1])


def test_one_bit_per_byte_is_log_two_nats_per_byte():
    assert bits_per_byte(10 * math.log(2), num_bytes=10) == pytest.approx(1.0)
