"""The GRPO update: what reaches the weights does not depend on how the minibatch was cut or laid out."""

import dataclasses
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import VOCAB, TinyLm

from tenth.base.errors import ConfigError
from tenth.base.records import Finish, Rollout
from tenth.training.batches import Layout
from tenth.training.grpo import grpo_gradients, grpo_update, step_metrics, weigh_rollouts
from tenth.training.grpo_loss import GrpoConfig, LossType
from tenth.training.optim import OptimConfig, WeightUpdater


def rollout(*, group_id=0, prompt_ids=(1, 2), answer_ids=(3, 4), logprobs=None, reward=1.0, **values):
    fields = {
        "problem_id": "p", "task": "sums", "level": 1, "rewards": {"accuracy": reward}, "finish": Finish.STOP,
        "policy_step": 0, "prompt": "", "text": "",
    } | values  # fmt: skip
    return Rollout(
        group_id=group_id,
        prompt_ids=tuple(prompt_ids),
        answer_ids=tuple(answer_ids),
        answer_logprobs=tuple(logprobs or [-2.0] * len(answer_ids)),
        reward=reward,
        **fields,
    )


def some_rollouts(seed, *, groups=3, samples=3):
    """Groups with shared prompts, answers of many lengths, log-probabilities a little off the policy's."""
    rng = random.Random(seed)
    found = []
    for group_id in range(groups):
        prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 5))]
        for _ in range(samples):
            answer = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 9))]
            logprobs = [-2.5 + rng.uniform(-1, 1) for _ in answer]
            found.append(
                rollout(
                    group_id=group_id,
                    prompt_ids=prompt,
                    answer_ids=answer,
                    logprobs=logprobs,
                    reward=float(rng.random() < 0.5),
                )
            )
    return found


def gradients(items, config, *, micro_batch_tokens=10_000, layout=Layout.PAD_RIGHT, share=1.0):
    policy = TinyLm()
    updater = WeightUpdater(policy, OptimConfig(max_grad_norm=math.inf))
    reference = TinyLm(seed=5) if config.beta else None
    stats = grpo_gradients(
        policy,
        reference,
        updater,
        items,
        config,
        micro_batch_tokens=micro_batch_tokens,
        layout=layout,
        share=share,
    )
    return [param.grad for param in policy.parameters()], stats


def assert_same(first, second):
    for one, other in zip(first[0], second[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    for name, value in first[1].metrics().items():
        assert second[1].metrics()[name] == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss_type", list(LossType))
@pytest.mark.parametrize("layout", list(Layout))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), micro_batch_tokens=st.integers(1, 120))
def test_micro_batch_size_padding_side_and_packing_change_no_gradient(
    loss_type, layout, seed, micro_batch_tokens
):
    config = GrpoConfig(beta=0.1, loss_type=loss_type)
    items = weigh_rollouts(some_rollouts(seed), config)
    whole = gradients(items, config)
    cut = gradients(items, config, micro_batch_tokens=micro_batch_tokens, layout=layout)
    assert_same(whole, cut)


def test_the_gradient_equals_a_plain_loop_over_sequences_and_tokens():
    # DeepSeekMath eq. 3, written out token by token with nothing of ours but the model.
    config = GrpoConfig(beta=0.1, epsilon=0.2)
    items = weigh_rollouts(some_rollouts(3), config)
    policy, reference = TinyLm(), TinyLm(seed=5)
    objective = torch.zeros((), dtype=torch.float64)
    for item in items:
        ids, start = (*item.rollout.prompt_ids, *item.rollout.answer_ids), len(item.rollout.prompt_ids)
        logp = torch.log_softmax(policy.logits(policy(torch.tensor([ids]))), dim=-1)[0]
        logp_ref = torch.log_softmax(reference.logits(reference(torch.tensor([ids]))), dim=-1)[0].detach()
        for t, token in enumerate(item.rollout.answer_ids):
            ratio = (logp[start + t - 1, token] - item.rollout.answer_logprobs[t]).exp()
            gain = torch.minimum(ratio * item.advantage, ratio.clamp(0.8, 1.2) * item.advantage)
            towards = logp_ref[start + t - 1, token] - logp[start + t - 1, token]
            kl = towards.exp() - towards - 1
            objective = objective + (gain - 0.1 * kl) / len(item.rollout.answer_ids) / len(items)
    expected = torch.autograd.grad(-objective, list(policy.parameters()))
    found, stats = gradients(items, config, micro_batch_tokens=20)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
    assert stats.sums.loss == pytest.approx(-objective.item())


@pytest.mark.parametrize("loss_type", list(LossType))
def test_leaving_out_silent_rollouts_changes_no_gradient(loss_type):
    # A reference with a vanishing weight forces every rollout through the network.
    rollouts = [*some_rollouts(1), *(rollout(group_id=9, reward=1.0) for _ in range(4))]
    skipping, forced = (GrpoConfig(beta=beta, loss_type=loss_type) for beta in (0.0, 1e-300))
    quick, slow = (
        gradients(weigh_rollouts(rollouts, skipping), skipping),
        gradients(weigh_rollouts(rollouts, forced), forced),
    )
    assert quick[1].num_silent >= 4
    assert slow[1].num_silent == 0
    for one, other in zip(quick[0], slow[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# DAPO's denominator is the minibatch's own token count, so there halves of unequal length may differ.
@pytest.mark.parametrize("loss_type", [LossType.GRPO, LossType.DR_GRPO, LossType.SEQUENCE])
def test_two_small_minibatches_weigh_what_one_large_one_does(loss_type):
    # a full minibatch has 12 rollouts, so each half has a share of one half
    config = GrpoConfig(beta=0.1, loss_type=loss_type)
    items = weigh_rollouts(some_rollouts(4, groups=4), config)
    whole, _ = gradients(items, config)
    first, _ = gradients(items[:6], config, share=0.5)
    second, _ = gradients(items[6:], config, share=0.5)
    for one, a, b in zip(whole, first, second, strict=True):
        torch.testing.assert_close(one, a + b, rtol=1e-9, atol=1e-12)


def test_a_rollout_whose_verifier_failed_moves_nothing_and_no_mean():
    failed = rollout(reward=0.0, error="timed out", answer_ids=(5, 5, 5))
    items = weigh_rollouts([rollout(reward=1.0), rollout(reward=0.0), failed], GrpoConfig())
    assert [item.advantage for item in items] == [1.0, -1.0, 0.0]
    assert [item.is_masked for item in items] == [False, False, True]


def test_truncated_answers_are_masked_only_on_request():
    rollouts = [rollout(finish=Finish.LENGTH), rollout(reward=0.0)]
    assert not weigh_rollouts(rollouts, GrpoConfig())[0].is_masked
    assert weigh_rollouts(rollouts, GrpoConfig(mask_truncated_completions=True))[0].is_masked


def test_an_empty_answer_counts_in_its_group_but_has_no_tokens():
    items = weigh_rollouts([rollout(answer_ids=(), reward=0.0), rollout(reward=1.0)], GrpoConfig())
    assert [item.advantage for item in items] == [-1.0, 1.0]
    assert items[0].is_masked


def test_overlong_shaping_enters_before_the_group_mean():
    # max 4, buffer 2: length 4 costs 1, length 2 costs 0; equal rewards are thus told apart
    config = GrpoConfig(overlong_buffer=2, max_completion_length=4)
    items = weigh_rollouts([rollout(answer_ids=(1, 2, 3, 4)), rollout(answer_ids=(1, 2))], config)
    assert [item.advantage for item in items] == [-1.0, 1.0]


def test_when_every_group_agrees_nothing_moves_and_nothing_breaks():
    policy = TinyLm()
    updater = WeightUpdater(policy, OptimConfig())
    config = GrpoConfig(beta=0)
    before = policy.head.detach().clone()
    stats = grpo_update(
        policy, None, updater, weigh_rollouts([rollout(), rollout()], config), config, micro_batch_tokens=99
    )
    assert not stats.has_gradient
    assert stats.metrics() == {"loss": 0.0, "grad_norm": 0.0}
    assert torch.equal(policy.head, before)


def test_a_kl_weight_without_a_reference_is_refused():
    with pytest.raises(ConfigError, match="set beta = 0 or give one"):
        grpo_update(
            TinyLm(), None, WeightUpdater(TinyLm(), OptimConfig()), [], GrpoConfig(), micro_batch_tokens=9
        )


def test_right_answers_become_likelier_and_wrong_ones_less_likely():
    policy, config = TinyLm(), GrpoConfig(beta=0)
    updater = WeightUpdater(policy, OptimConfig(lr=0.01))
    good, bad = rollout(answer_ids=(3, 4), reward=1.0), rollout(answer_ids=(5, 6), reward=0.0)

    def logp(answer):
        table = torch.log_softmax(policy.logits(policy(torch.tensor([[1, 2, *answer[:-1]]]))), dim=-1)[0, 1:]
        return tuple(table.gather(-1, torch.tensor(answer)[:, None]).squeeze(-1).tolist())

    before = (sum(logp((3, 4))), sum(logp((5, 6))))
    for _ in range(3):
        rollouts = [dataclasses.replace(each, answer_logprobs=logp(each.answer_ids)) for each in (good, bad)]
        stats = grpo_update(
            policy, None, updater, weigh_rollouts(rollouts, config), config, micro_batch_tokens=99
        )
        assert stats.metrics()["mismatch_kl"] == pytest.approx(0, abs=1e-12)
    assert sum(logp((3, 4))) > before[0]
    assert sum(logp((5, 6))) < before[1]


def test_a_round_reports_means_but_the_mismatch_of_its_first_minibatch():
    config = GrpoConfig(beta=0)
    items = weigh_rollouts(some_rollouts(2), config)
    first, second = (gradients(part, config)[1] for part in (items[:5], items[5:]))
    merged = step_metrics([first, second])
    assert merged["mismatch_kl"] == first.metrics()["mismatch_kl"]
    assert merged["entropy"] == pytest.approx((first.metrics()["entropy"] + second.metrics()["entropy"]) / 2)


def test_a_gradient_that_is_not_finite_is_never_applied():
    policy, config = TinyLm(), GrpoConfig(beta=0)
    updater = WeightUpdater(policy, OptimConfig())
    before = policy.head.detach().clone()
    rollouts = [rollout(logprobs=[-math.inf, -1.0]), rollout(reward=0.0)]
    stats = grpo_update(
        policy, None, updater, weigh_rollouts(rollouts, config), config, micro_batch_tokens=99
    )
    assert stats.is_broken
    assert torch.equal(policy.head, before)
    assert all(param.grad is None for param in policy.parameters())
    assert step_metrics([stats]) == {"skipped_updates": 1.0}
