"""Distillation: divergences against torch's own and by hand, what the rest is worth, and a student that
learns."""

import math

import pytest
import torch
from test_training_sft import some_examples
from tiny_lm import VOCAB, TinyLm
from torch.nn import functional as F

from tenth.base.errors import ConfigError, DataError
from tenth.training.batches import TrainedSequence
from tenth.training.distill import (
    Direction,
    DistillConfig,
    TaughtSequence,
    distill_gradients,
    distill_loss,
    divergence,
    kl,
    live_gradients,
    live_loss,
    teacher_top_k,
    with_rest,
)
from tenth.training.optim import OptimConfig, WeightUpdater

FORWARD, REVERSE = (DistillConfig(direction=direction) for direction in Direction)


def draw_logits(seed, rows=7, vocab=VOCAB):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocab, generator=generator, dtype=torch.float64) * 3


def all_logits(model, sequences):
    """Of every trained token, sequence by sequence, one forward pass each."""
    rows = []
    for each in sequences:
        logits = model.logits(model(torch.tensor([each.ids[:-1]])))[0]
        rows.append(logits[torch.tensor(each.trained[1:])])
    return torch.cat(rows)


def taught(teacher, sequences, *, k, temperature=1.0):
    tops = teacher_top_k(teacher, sequences, k=k, temperature=temperature, micro_batch_tokens=20)
    return [TaughtSequence(sequence=each, teacher=top) for each, top in zip(sequences, tops, strict=True)]


def updater_of(model):
    return WeightUpdater(model, OptimConfig(max_grad_norm=math.inf, lr=1e-2, weight_decay=0.0))


def gradients_of(model):
    return [param.grad.clone() for param in model.parameters()]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_both_directions_over_a_whole_vocabulary_are_torchs_kl_div(temperature):
    student, teacher = (draw_logits(seed).div(temperature).log_softmax(-1) for seed in (1, 2))
    scale = temperature**2
    forward = divergence(student, teacher, DistillConfig(temperature=temperature))
    reverse = divergence(
        student, teacher, DistillConfig(direction=Direction.REVERSE, temperature=temperature)
    )
    expected = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * scale
    torch.testing.assert_close(forward, expected, rtol=1e-12, atol=1e-12)
    expected = F.kl_div(teacher, student, reduction="none", log_target=True).sum(-1) * scale
    torch.testing.assert_close(reverse, expected, rtol=1e-12, atol=1e-12)


def test_a_divergence_by_hand():
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    # 1/2 ln 2 + 1/4 ln 1/2 + 0 = 1/4 ln 2
    assert float(divergence(student, teacher, FORWARD)) == pytest.approx(math.log(2) / 4, abs=1e-15)


def test_what_was_kept_and_the_rest_are_the_softmax_summed_up():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]], dtype=torch.float64)
    whole = sum(math.exp(each / 2) for each in (1, 3, 2, 0))
    found = with_rest(logits, torch.tensor([[1, 2]]), temperature=2.0)
    expected = [math.exp(1.5) / whole, math.exp(1) / whole, (math.exp(0.5) + 1) / whole]
    assert found.exp()[0].tolist() == pytest.approx(expected, abs=1e-15)


def test_a_tiny_rest_keeps_its_digits():
    logits = torch.tensor([[60.0, 0.0, 1.0]])  # float32: 1 - p of the first token would be 0
    rest = with_rest(logits, torch.tensor([[0]]), temperature=1.0)[0, -1]
    assert float(rest) == pytest.approx(math.log(1 + math.e) - 60, rel=1e-6)


@pytest.mark.parametrize("config", [FORWARD, REVERSE])
def test_few_kept_tokens_never_show_more_divergence_than_there_is_and_all_of_them_show_all(config):
    student, teacher = draw_logits(3), draw_logits(4)
    whole = divergence(student.log_softmax(-1), teacher.log_softmax(-1), config)
    before = torch.zeros(len(student), dtype=torch.float64)
    for k in range(1, VOCAB + 1):
        ids = teacher.topk(k).indices
        found = divergence(
            with_rest(student, ids, temperature=1.0), with_rest(teacher, ids, temperature=1.0), config
        )
        assert bool((found >= before - 1e-12).all())
        before = found
    torch.testing.assert_close(before, whole, rtol=1e-12, atol=1e-12)


def test_the_same_kept_tokens_and_the_same_rest_diverge_by_nothing_however_the_rest_is_divided():
    teacher = torch.tensor([[0.6, 0.2, 0.15, 0.05]], dtype=torch.float64).log()
    student = torch.tensor([[0.6, 0.2, 0.05, 0.15]], dtype=torch.float64).log()
    ids = torch.tensor([[0, 1]])
    pair = (with_rest(each, ids, temperature=1.0) for each in (student, teacher))
    assert float(divergence(*pair, FORWARD)) == pytest.approx(0, abs=1e-15)
    assert float(kl(teacher, student)) > 0.05


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("k", [1, 4, VOCAB])
def test_a_gradient_is_that_of_finite_differences(direction, k):
    teacher = draw_logits(5, rows=3)
    ids = teacher.topk(k).indices
    config = DistillConfig(direction=direction, temperature=1.7)
    fixed = with_rest(teacher, ids, temperature=1.7)

    def loss(logits):
        return divergence(with_rest(logits, ids, temperature=1.7), fixed, config)

    assert torch.autograd.gradcheck(loss, draw_logits(6, rows=3).requires_grad_())


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("budget", [1, 17, 1000])
def test_stored_whole_distributions_teach_what_the_living_teacher_does(direction, budget):
    sequences, teacher = some_examples(0), TinyLm(seed=1)
    config = DistillConfig(direction=direction, temperature=2.0)
    stored, live = TinyLm(), TinyLm()
    stored_stats = distill_gradients(
        stored,
        updater_of(stored),
        taught(teacher, sequences, k=VOCAB, temperature=2.0),
        config,
        micro_batch_tokens=budget,
    )
    live_stats = live_gradients(live, teacher, updater_of(live), sequences, config, micro_batch_tokens=budget)
    assert stored_stats.loss == pytest.approx(live_stats.loss, rel=1e-12)
    for mine, other in zip(gradients_of(stored), gradients_of(live), strict=True):
        torch.testing.assert_close(mine, other)
    own, other = all_logits(TinyLm(), sequences) / 2, all_logits(teacher, sequences) / 2
    expected = divergence(own.log_softmax(-1), other.log_softmax(-1), config).mean()
    assert live_stats.loss == pytest.approx(float(expected.detach()), rel=1e-12)
    assert all(param.grad is None for param in teacher.parameters())


def test_the_kept_tokens_are_the_teachers_likeliest_in_order():
    sequences, teacher = some_examples(2), TinyLm(seed=1)
    tops = teacher_top_k(teacher, sequences, k=3, temperature=1.0, micro_batch_tokens=30)
    expected = all_logits(teacher, sequences).log_softmax(-1).topk(3)
    assert torch.equal(torch.cat([top.ids for top in tops]).long(), expected.indices)
    torch.testing.assert_close(torch.cat([top.logp[:, :-1] for top in tops]), expected.values)
    assert [len(top.ids) for top in tops] == [sum(each.trained) for each in sequences]


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("k", [2, VOCAB])
def test_a_student_comes_near_its_teacher(direction, k):
    sequences, teacher, student = some_examples(3, count=40), TinyLm(seed=1), TinyLm(seed=2)
    examples, config = taught(teacher, sequences, k=k), DistillConfig(direction=direction)
    updater = updater_of(student)
    before = live_loss(student, teacher, sequences, FORWARD, micro_batch_tokens=500)
    for _ in range(60):
        distill_gradients(student, updater, examples, config, micro_batch_tokens=500)
        updater.apply()
    after = live_loss(student, teacher, sequences, FORWARD, micro_batch_tokens=500)
    assert after < before / 2
    assert distill_loss(student, examples, config, micro_batch_tokens=500) <= after * 4


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"temperature = 0\.0 must be above 0"):
        DistillConfig(temperature=0.0)


def test_sequences_without_a_trained_token_are_refused():
    sequence = TrainedSequence(ids=(1, 2), trained=(False, False))
    with pytest.raises(DataError, match="none of 1 sequences has a token to train on"):
        live_loss(TinyLm(), TinyLm(), [sequence], FORWARD, micro_batch_tokens=9)
