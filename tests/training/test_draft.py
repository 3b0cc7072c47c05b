"""Fitting the MTP module: what it learns from, what it leaves alone, when it refuses."""

import copy
import dataclasses
import math

import pytest
import torch

from tenth.base.errors import ConfigError, DataError
from tenth.base.seeds import stream_random
from tenth.model.presets import preset
from tenth.model.transformer import Transformer, initialise
from tenth.training.batches import TrainedSequence
from tenth.training.draft import DraftPlan, draft_stats, fit_mtp
from tenth.training.optim import OptimConfig
from tenth.training.schedules import LrSchedule

PROMPT, ANSWER = 4, 8


def tiny(**changes):
    config = dataclasses.replace(preset("nano-zero"), vocab_size=16, initializer_range=0.3, **changes)
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(3))


def answers(count=24, *, seed=0):
    rng = stream_random(seed, "draft-test")
    mask = (False,) * PROMPT + (True,) * ANSWER
    return [
        TrainedSequence(ids=tuple(rng.randrange(16) for _ in range(PROMPT + ANSWER)), trained=mask)
        for _ in range(count)
    ]


def plan(**changes):
    values = {
        "steps": 8,
        "sequences_per_step": 8,
        "optim": OptimConfig(lr=1e-2, weight_decay=0.0),
        "schedule": LrSchedule(),
    }
    return DraftPlan(**{**values, **changes})


def gradients(model, examples, **changes):
    """What one step moves, as changed weights."""
    fitted = copy.deepcopy(model)
    list(fit_mtp(fitted, examples, plan(steps=1, sequences_per_step=len(examples), **changes), seed=0))
    return {name: tensor for name, tensor in fitted.state_dict().items() if name.startswith("mtp.")}


def test_no_bit_of_the_network_itself_changes():
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    list(fit_mtp(model, answers(), plan(), seed=0))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("mtp.0.") for name in changed)


def test_what_could_be_trained_before_can_be_trained_after():
    model = tiny()
    list(fit_mtp(model, answers(), plan(steps=1), seed=0))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_guesses_come_nearer_to_the_network_on_answers_never_trained_on():
    model, held_out = tiny(), answers(16, seed=1)
    before = draft_stats(model, held_out)
    list(fit_mtp(model, answers(256), plan(steps=60, sequences_per_step=32), seed=0))
    after = draft_stats(model, held_out)
    assert after.loss < 0.7 * before.loss
    assert after.agreement > before.agreement


def test_a_module_that_repeats_the_network_has_no_loss():
    # With every layer and the module silenced, the network says norm(token t + 1) at t + 1; so does a module
    # whose projection hands on the embedding half of (embedding of t + 1, hidden of t).
    model = tiny()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attention.o.weight", "down", "down.weight")):
                parameter.zero_()
        width = model.config.hidden_size
        model.mtp[0].eh_proj.weight.copy_(torch.cat((torch.eye(width), torch.zeros(width, width)), 1))
    stats = draft_stats(model, answers())
    assert stats.loss == pytest.approx(0, abs=1e-6)
    assert stats.agreement == 1


def test_the_loss_is_the_divergence_at_the_token_after_the_next():
    # By hand for one sequence: the module's row t and the network's row t + 1 both speak of token t + 2.
    model, example = tiny(), answers(1)[0]
    output = model.forward_training(torch.tensor([example.ids]), depth=1)
    expected = 0.0
    for target in range(PROMPT, PROMPT + ANSWER):
        p = model.logits(output.hidden[0, target - 1]).softmax(-1).tolist()
        q = model.logits(output.mtp_hidden[0][0, target - 2]).softmax(-1).tolist()
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / ANSWER
    stats = draft_stats(model, [example])
    assert stats.loss == pytest.approx(expected, rel=1e-4)
    assert stats.num_positions == ANSWER


def test_a_token_that_is_not_trained_on_teaches_nothing():
    # Nothing is guessed from the last token, so once it is no answer itself it can be anything.
    model, example = tiny(), answers(1)[0]
    masked = dataclasses.replace(example, trained=(*example.trained[:-1], False))
    other = dataclasses.replace(masked, ids=(*example.ids[:-1], (example.ids[-1] + 1) % 16))
    one, two = gradients(model, [masked]), gradients(model, [other])
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert draft_stats(model, [masked]).num_positions == ANSWER - 1


def test_padding_changes_no_gradient():
    model = tiny()
    long, short = answers(1)[0], TrainedSequence(ids=(1, 2, 3, 4), trained=(False, False, True, True))
    together, apart = (gradients(model, [long, short], micro_batch_tokens=size) for size in (64, 12))
    for name, weight in together.items():
        torch.testing.assert_close(weight, apart[name], rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_module_bit_for_bit():
    one, two, other = tiny(), tiny(), tiny()
    losses = [list(fit_mtp(m, answers(), plan(), seed=s)) for m, s in ((one, 5), (two, 5), (other, 6))]
    assert losses[0] == losses[1] != losses[2]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_model_without_the_module_is_refused_by_name():
    model = tiny(num_nextn_predict_layers=0)
    with pytest.raises(ConfigError, match=r"nano-zero.*no MTP module"):
        next(fit_mtp(model, answers(), plan(), seed=0))


def test_answers_without_anything_to_guess_are_refused():
    example = TrainedSequence(ids=(1, 2, 3), trained=(False, True, False))
    with pytest.raises(DataError, match="none of the 1 answers"):
        next(fit_mtp(tiny(), [example], plan(), seed=0))
