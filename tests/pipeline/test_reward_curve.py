import math

import pytest

from tenth.pipeline.reward_curve import LearningCurve, extrapolate, fit_curve


def test_a_curve_through_its_own_points_is_found_again():
    truth = LearningCurve(intercept=-1.0, slope=0.3)
    found = fit_curve({size: [truth.accuracy(size)] for size in (50, 100, 200, 400)})
    assert (found.intercept, found.slope) == pytest.approx((-1.0, 0.3))


def test_accuracy_by_hand():
    # log-odds 0.5 ln 100 - 1.2 = 1.1026
    assert LearningCurve(intercept=-1.2, slope=0.5).accuracy(100) == pytest.approx(
        1 / (1 + math.exp(-1.10259)), abs=1e-5
    )


def test_pairs_needed_are_those_where_the_lower_end_passes_the_mark():
    curve = LearningCurve(intercept=-1.0, slope=0.25)
    need = curve.pairs_needed(mark=0.7, half_width=0.03, at_pairs=480)
    assert curve.accuracy(need) - 0.03 * math.sqrt(480 / need) > 0.7
    before = need / 1.05
    assert curve.accuracy(before) - 0.03 * math.sqrt(480 / before) <= 0.7


def test_a_flat_or_falling_curve_never_gets_there():
    for slope in (0.0, -0.1):
        assert (
            LearningCurve(intercept=0.3, slope=slope).pairs_needed(mark=0.7, half_width=0.02, at_pairs=100)
            is None
        )


def test_an_extrapolation_says_how_sure_it_is():
    rising = {50: [0.55, 0.56, 0.54], 100: [0.58, 0.59, 0.57], 200: [0.61, 0.62, 0.6]}
    found = extrapolate(rising, mark=0.65, half_width=0.03, seed=1)
    low, high = found["range_80"]
    assert low <= found["pairs_needed"] <= high
    assert found["share_without_end"] == 0
    flat = extrapolate(
        {50: [0.6, 0.5], 100: [0.55, 0.56], 200: [0.5, 0.59]}, mark=0.65, half_width=0.03, seed=1
    )
    assert flat["pairs_needed"] is None
    assert flat["share_without_end"] > 0.3
