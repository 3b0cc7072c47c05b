import copy
import math

import pytest
import torch

from tenth.base.errors import DataError
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.scalar_head import RewardModel
from tenth.model.transformer import Transformer, initialise
from tenth.training.optim import OptimConfig, WeightUpdater
from tenth.training.preference import (
    IdPair,
    LabelledIds,
    accuracy_of,
    margin_loss,
    reward_gradients,
    reward_margins,
    reward_scores,
)

CONFIG = ModelConfig(
    name="judge",
    vocab_size=20,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=8),
    max_position_embeddings=32,
    initializer_range=0.3,
)


def judge(*, has_head: bool = False) -> RewardModel:
    generator = torch.Generator().manual_seed(3)
    model = RewardModel(initialise(Transformer(CONFIG), generator=generator))
    if has_head:
        model.head.weight.data.normal_(generator=generator)
    return model


def pairs(count: int = 6) -> list[IdPair]:
    """A better answer ends with 7, a worse one with 8; lengths differ."""
    return [
        IdPair(chosen=(0, *range(2, 3 + i % 4), 7), rejected=(0, *range(2, 5 + i % 3), 8))
        for i in range(count)
    ]


def test_the_loss_of_a_margin_by_hand():
    # -log sigmoid(0) = ln 2; -log sigmoid(ln 3) = -log(3/4); -log sigmoid(-ln 3) = -log(1/4)
    found = margin_loss(torch.tensor([0.0, math.log(3), -math.log(3)])).tolist()
    assert found == pytest.approx([math.log(2), math.log(4 / 3), math.log(4)])


def test_a_new_model_has_the_loss_and_the_accuracy_of_a_coin():
    model = judge()
    stats = reward_gradients(model, WeightUpdater(model, OptimConfig()), pairs(), micro_batch_tokens=64)
    assert stats.loss == pytest.approx(math.log(2))
    assert stats.accuracy == 0.5
    assert stats.num_tokens == sum(len(each.chosen) + len(each.rejected) for each in pairs())


def test_a_pairs_margin_is_the_difference_of_its_scores_and_a_labels_is_signed():
    model, pair = judge(has_head=True), pairs(1)[0]
    better, worse = reward_scores(model, [pair.chosen, pair.rejected], micro_batch_tokens=64)
    assert reward_margins(model, [pair], micro_batch_tokens=64) == pytest.approx([better - worse], abs=1e-5)
    labels = [LabelledIds(ids=pair.chosen, is_safe=safe) for safe in (True, False)]
    assert reward_margins(model, labels, micro_batch_tokens=64) == pytest.approx([better, -better], abs=1e-5)


def test_the_score_of_a_sequence_does_not_depend_on_its_neighbours():
    model = judge(has_head=True)
    sequences = [pair.chosen for pair in pairs()] + [pair.rejected for pair in pairs()]
    alone = [reward_scores(model, [ids], micro_batch_tokens=8)[0] for ids in sequences]
    assert reward_scores(model, sequences, micro_batch_tokens=1000) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", ["pairs", "labels"])
def test_how_a_step_is_cut_does_not_change_its_gradient(kind):
    examples = pairs()
    if kind == "labels":
        examples = [
            LabelledIds(ids=pair.chosen, is_safe=place % 2 == 0) for place, pair in enumerate(pairs())
        ]
    whole = judge(has_head=True)
    pieces = copy.deepcopy(whole)
    for model, budget in ((whole, 10_000), (pieces, 12)):
        updater = WeightUpdater(model, OptimConfig(max_grad_norm=math.inf))
        reward_gradients(model, updater, examples, micro_batch_tokens=budget)
    for (name, one), (_, other) in zip(whole.named_parameters(), pieces.named_parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=name, atol=1e-6, rtol=1e-4)


def test_it_learns_which_answers_are_preferred():
    model = judge()
    updater = WeightUpdater(model, OptimConfig(lr=1e-2, weight_decay=0.0))
    for _ in range(30):
        reward_gradients(model, updater, pairs(), micro_batch_tokens=256)
        updater.apply()
    assert accuracy_of(reward_margins(model, pairs(), micro_batch_tokens=256)) == 1.0


def test_a_tie_counts_half():
    assert accuracy_of([1.0, -1.0, 0.0, 2.0]) == pytest.approx(0.625)


def test_pairs_and_labels_in_one_step_are_refused():
    model = judge()
    mixed = [pairs(1)[0], LabelledIds(ids=(0, 1), is_safe=True)]
    with pytest.raises(DataError, match="one by one"):
        reward_gradients(model, WeightUpdater(model, OptimConfig()), mixed, micro_batch_tokens=64)
