import math
from statistics import variance

import pytest

from tenth.base.errors import ConfigError
from tenth.pipeline.reward_folds import (
    CrossValidated,
    corrected_interval,
    cross_validate,
    draw_folds,
    student_t_quantile,
    wilson_interval,
)

PROMPTS = [f"q{place % 7}" for place in range(20)]  # some prompts have several pairs


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (24, 2.064), (1000, 1.962)]
)
def test_students_t_is_that_of_the_printed_tables(degrees, expected):
    assert student_t_quantile(0.975, degrees=degrees) == pytest.approx(expected, abs=6e-4)


def test_folds_share_no_prompt_and_test_everything_once_per_repeat():
    drawn = draw_folds(PROMPTS, folds=3, repeats=2, seed=1)
    assert len(drawn) == 6
    for trained, tested in drawn:
        assert not {PROMPTS[place] for place in trained} & {PROMPTS[place] for place in tested}
        assert sorted(trained + tested) == list(range(20))
    for repeat in (drawn[:3], drawn[3:]):
        assert sorted(place for _, tested in repeat for place in tested) == list(range(20))
    assert drawn[:3] != drawn[3:]
    assert drawn == draw_folds(PROMPTS, folds=3, repeats=2, seed=1)


@pytest.mark.parametrize(("folds", "repeats"), [(1, 5), (8, 1), (5, 0)])
def test_folds_that_cannot_be_are_a_sentence(folds, repeats):
    with pytest.raises(ConfigError, match=f"{folds} folds, {repeats} repeats and 7 distinct prompts"):
        draw_folds(PROMPTS, folds=folds, repeats=repeats, seed=1)


def test_the_corrected_interval_by_hand():
    # four runs and t(3) = 3.182: half the interval is t sqrt((1/4 + 1/4) s2)
    values = [0.6, 0.62, 0.58, 0.6]
    s2 = (0.0**2 + 0.02**2 + 0.02**2 + 0.0**2) / 3
    assert variance(values) == pytest.approx(s2)
    found = corrected_interval(values, tested_per_trained=0.25)
    assert found.mean == pytest.approx(0.6)
    assert found.high - found.mean == pytest.approx(3.182 * math.sqrt(0.5 * s2), abs=1e-4)


def test_wilsons_interval_is_that_of_the_printed_examples():
    # Newcombe (Statistics in Medicine 17, 1998, table I, method 3): 81 of 263 and 0 of 20
    found = wilson_interval(81 / 263, num_examples=263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    found = wilson_interval(0.0, num_examples=20)
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(0.1611, abs=5e-5))


def test_folds_that_agree_by_chance_are_no_more_certain_than_their_examples():
    found = CrossValidated(name="a", accuracies=(0.0,) * 5, tested_per_trained=0.25, num_examples=20)
    assert (found.interval.mean, found.interval.low) == (0.0, 0.0)
    assert found.interval.high == pytest.approx(0.1611, abs=5e-5)


def test_intervals_stay_where_accuracies_and_differences_can_lie_and_say_when_they_would_not():
    # two runs and t(1) = 12.71: half the interval is 12.71 sqrt((1/2 + 1/4) 0.02) = 1.56
    one = CrossValidated(name="a", accuracies=(0.6, 0.8), tested_per_trained=0.25, num_examples=20)
    other = CrossValidated(name="b", accuracies=(0.5, 0.5), tested_per_trained=0.25, num_examples=20)
    assert (one.interval.low, one.interval.high) == (0.0, 1.0)
    assert (one.beyond(other).low, one.beyond(other).high) == (-1.0, 1.0)
    assert not one.is_telling
    assert other.is_telling


def test_one_run_says_nothing_about_its_spread():
    found = corrected_interval([0.7], tested_per_trained=0.25)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_a_difference_is_judged_fold_by_fold():
    one = CrossValidated(name="a", accuracies=(0.6, 0.8, 0.7), tested_per_trained=0.25, num_examples=20)
    other = CrossValidated(name="b", accuracies=(0.5, 0.7, 0.6), tested_per_trained=0.25, num_examples=20)
    difference = one.beyond(other)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))
    assert one.interval.low < 0.6


def test_a_continued_cross_validation_asks_only_for_what_is_unknown():
    drawn, asked, kept = draw_folds(PROMPTS, folds=5, repeats=1, seed=1), [], []

    def candidate(trained, tested, seed):
        asked.append(seed)
        return [1.0, -1.0] + [0.0] * (len(tested) - 2)

    found = cross_validate(
        {"it": candidate},
        drawn,
        seed=10,
        known={"it": [1.0, 1.0]},
        keep=lambda name, found: kept.append(len(found)),
    )
    assert asked == [12, 13, 14]
    assert kept == [3, 4, 5]
    assert found["it"].accuracies == (1.0, 1.0, 0.5, 0.5, 0.5)
