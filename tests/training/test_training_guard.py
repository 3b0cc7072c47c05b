"""What the guard decides, and in which order it loses patience."""

import math

import pytest

from tenth.training.guard import Action, GuardConfig, GuardMemory, judge, spike_score

CONFIG = GuardConfig(window=4, warm_steps=4, max_skips=2, max_rollbacks=1)
CALM = GuardMemory(losses=(2.0, 2.1, 1.9, 2.0))


def test_an_ordinary_step_goes_on_and_is_remembered():
    result = judge(CALM, CONFIG, loss=2.05, grad_norm=1.0)
    assert (result.action, result.reason) == (Action.CONTINUE, "")
    assert result.memory.losses == (2.1, 1.9, 2.0, 2.05)


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)]
)
def test_what_is_not_a_number_is_skipped_even_on_the_first_step(loss, norm):
    result = judge(GuardMemory(), CONFIG, loss=loss, grad_norm=norm)
    assert result.action is Action.SKIP
    assert "the step is skipped (1 of 2 in a row)" in result.reason
    assert result.memory.losses == ()


def test_the_score_is_in_robust_standard_deviations():
    # median 2; deviations 0, 0.1, 0.1, 0 have median 0.05: (3 - 2) / (1.4826 × 0.05)
    assert spike_score(CALM.losses, 3.0, smallest_spread=0.0) == pytest.approx(1 / (1.4826 * 0.05))


def test_a_spike_is_skipped_and_not_remembered():
    result = judge(CALM, CONFIG, loss=9.0, grad_norm=1.0)
    assert result.action is Action.SKIP
    assert "above its median 2" in result.reason
    assert result.memory.losses == CALM.losses


def test_a_fall_is_never_a_spike():
    assert judge(CALM, CONFIG, loss=0.1, grad_norm=1.0).action is Action.CONTINUE


def test_losses_that_hardly_moved_do_not_make_a_small_rise_a_spike():
    # without a floor under the spread, 2.01 would be infinitely far from four equal losses
    assert judge(GuardMemory(losses=(2.0,) * 4), CONFIG, loss=2.01, grad_norm=1.0).action is Action.CONTINUE


def test_no_spike_is_called_before_enough_losses_are_known():
    assert judge(GuardMemory(losses=(2.0,) * 3), CONFIG, loss=99.0, grad_norm=1.0).action is Action.CONTINUE


def test_patience_ends_with_skips_then_a_rollback_then_a_stop():
    memory, actions = CALM, []
    for _ in range(6):
        result = judge(memory, CONFIG, loss=math.nan, grad_norm=1.0)
        memory = result.memory
        actions.append(result.action)
    assert actions == [Action.SKIP, Action.SKIP, Action.ROLLBACK, Action.SKIP, Action.SKIP, Action.STOP]
    assert "Lower the learning rate" in result.reason


def test_a_good_step_restores_patience():
    once = judge(CALM, CONFIG, loss=math.nan, grad_norm=1.0).memory
    assert judge(once, CONFIG, loss=2.0, grad_norm=1.0).memory.skips_in_row == 0


def test_the_memory_survives_a_checkpoint():
    assert GuardMemory.from_dict(CALM.to_dict()) == CALM
