"""Schedules, each value worked out by hand."""

import pytest

from tenth.base.errors import ConfigError
from tenth.training.schedules import (
    V3_COSINE_UNTIL,
    V3_LAST_PHASE,
    BatchRamp,
    LrSchedule,
    bias_speed,
    lr_factor,
    mtp_weight,
    sequences_at,
    sequences_before,
    steps_for,
)

PLAIN = LrSchedule(warmup_steps=4, constant_until=0.5, floor=0.1)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0)])
def test_warm_up_is_linear_and_its_last_step_is_the_peak(step, expected):
    assert lr_factor(PLAIN, step=step, progress=0.0) == expected


@pytest.mark.parametrize(
    ("progress", "expected"),
    # cosine from 1 to 0.1 between 0.5 and 1: half way is the mean, a third of the way 0.1 + 0.9 × 3/4
    [(0.3, 1.0), (0.5, 1.0), (0.75, 0.55), (0.5 + 0.5 / 3, 0.775), (1.0, 0.1)],
)
def test_constant_then_cosine_to_the_floor(progress, expected):
    assert lr_factor(PLAIN, step=100, progress=progress) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("trillions", "rate"), [(9.9, 2.2e-4), (12.15, 1.21e-4), (14.4, 2.2e-5), (14.6, 2.2e-5), (14.7, 7.3e-6)]
)
def test_the_papers_own_schedule_has_its_two_step_tail(trillions, rate):
    # 12.15T is the middle of the cosine: (2.2e-4 + 2.2e-5) / 2
    v3 = LrSchedule(warmup_steps=2000, cosine_until=V3_COSINE_UNTIL, last_phase_from=V3_LAST_PHASE)
    assert 2.2e-4 * lr_factor(v3, step=10_000, progress=trillions / 14.8) == pytest.approx(rate)


def test_no_warm_up_starts_at_the_peak():
    assert lr_factor(LrSchedule(), step=0, progress=0.0) == 1.0


def test_a_schedule_that_turns_back_is_refused():
    with pytest.raises(ConfigError, match="constant_until"):
        LrSchedule(constant_until=0.9, cosine_until=0.5)


def test_the_batch_ramp_is_linear_in_steps():
    ramp = BatchRamp(start=8, final=16, ramp_steps=4)
    assert [sequences_at(ramp, step=step) for step in range(6)] == [8, 10, 12, 14, 16, 16]


def test_the_data_cursor_is_the_sum_of_all_earlier_batches():
    ramp = BatchRamp(start=8, final=16, ramp_steps=4)
    assert [sequences_before(ramp, step=step) for step in range(7)] == [0, 8, 18, 30, 44, 60, 76]


@pytest.mark.parametrize(
    ("sequences", "steps"), [(0, 0), (1, 1), (8, 1), (9, 2), (44, 4), (45, 5), (60, 5), (61, 6)]
)
def test_steps_for_is_the_first_step_whose_cursor_suffices(sequences, steps):
    assert steps_for(BatchRamp(start=8, final=16, ramp_steps=4), num_sequences=sequences) == steps


def test_without_a_ramp_the_batch_is_constant():
    assert sequences_at(BatchRamp(start=16, final=16), step=0) == 16


def test_the_mtp_weight_falls_after_ten_of_14_8_trillion_tokens():
    assert (mtp_weight(9.9 / 14.8), mtp_weight(10.1 / 14.8)) == (0.3, 0.1)


def test_the_router_bias_freezes_for_the_last_half_trillion():
    assert (bias_speed(14.2 / 14.8), bias_speed(14.4 / 14.8)) == (0.001, 0.0)
