"""SFT: every trained token counts the same, however the minibatch is cut."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import VOCAB, TinyLm
from torch.nn import functional as F

from tenth.base.errors import DataError
from tenth.training.batches import Layout, TrainedSequence
from tenth.training.optim import OptimConfig, WeightUpdater
from tenth.training.sft import sft_gradients, sft_loss, sft_update


def some_examples(seed, count=6):
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        length = rng.randint(2, 12)
        trained = (False, *(rng.random() < 0.6 for _ in range(length - 2)), True)
        found.append(TrainedSequence(ids=tuple(rng.randrange(VOCAB) for _ in range(length)), trained=trained))
    return found


def gradients(examples, *, micro_batch_tokens, layout=Layout.PAD_RIGHT):
    model = TinyLm()
    updater = WeightUpdater(model, OptimConfig(max_grad_norm=math.inf))
    stats = sft_gradients(model, updater, examples, micro_batch_tokens=micro_batch_tokens, layout=layout)
    return stats, [param.grad for param in model.parameters()]


@pytest.mark.parametrize("layout", list(Layout))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), micro_batch_tokens=st.integers(1, 100))
def test_loss_and_gradient_equal_cross_entropy_over_all_trained_tokens(layout, seed, micro_batch_tokens):
    examples, model = some_examples(seed), TinyLm()
    logits = torch.cat([model.logits(model(torch.tensor([example.ids[:-1]])))[0] for example in examples])
    targets = torch.tensor(
        [
            token if trained else -100
            for example in examples
            for token, trained in zip(example.ids[1:], example.trained[1:], strict=True)
        ]
    )
    expected = F.cross_entropy(logits, targets, ignore_index=-100)
    stats, found = gradients(examples, micro_batch_tokens=micro_batch_tokens, layout=layout)
    assert stats.loss == pytest.approx(expected.item())
    for mine, other in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_the_held_out_loss_is_the_training_loss_of_the_same_examples():
    examples = some_examples(7)
    stats, _ = gradients(examples, micro_batch_tokens=30)
    assert sft_loss(TinyLm(), examples, micro_batch_tokens=17) == pytest.approx(stats.loss)


def test_training_lowers_the_loss():
    model, examples = TinyLm(), some_examples(1)
    updater = WeightUpdater(model, OptimConfig(lr=0.02))
    losses = [sft_update(model, updater, examples, micro_batch_tokens=40).loss for _ in range(20)]
    assert losses[-1] < losses[0] / 2


def test_tokens_are_counted_without_padding():
    examples = [
        TrainedSequence(ids=(1, 2, 3), trained=(False, False, True)),
        TrainedSequence(ids=(1, 2), trained=(False, True)),
    ]
    stats, _ = gradients(examples, micro_batch_tokens=100)
    assert (stats.num_tokens, stats.num_trained) == (5, 2)


def test_examples_without_anything_to_train_are_refused():
    with pytest.raises(DataError, match="loss mask"):
        gradients([TrainedSequence(ids=(1, 2), trained=(False, False))], micro_batch_tokens=10)
