"""Splits follow from the question itself; samples are distinct; guessing is measured."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.base.files import text_hash
from tenth.tasks.generated import FAMILIES
from tenth.tasks.task import Split, guess_baseline, problem, sample_problems, split_of


def test_a_problem_is_named_by_its_task_and_question():
    made = problem("chain_sum", "What is 1+1?", "2", level=2)
    assert made.problem_id == text_hash("chain_sum", "What is 1+1?")
    assert made.problem_id == problem("chain_sum", "What is 1+1?", "other", level=9).problem_id
    assert made.problem_id != problem("product", "What is 1+1?", "2").problem_id


def test_about_eight_in_ten_questions_are_for_training():
    counts = Counter(split_of(text_hash("q", str(index))) for index in range(10_000))
    # binomial, n = 10,000: standard deviations 40, 30, 30
    assert counts[Split.TRAIN] == pytest.approx(8000, abs=160)
    assert counts[Split.DEV] == pytest.approx(1000, abs=120)
    assert counts[Split.TEST] == pytest.approx(1000, abs=120)


@given(st.text())
def test_a_split_depends_on_nothing_but_the_id(problem_id):
    assert split_of(problem_id) is split_of(str(problem_id))


def test_two_seeds_and_two_splits_never_share_a_question():
    family = FAMILIES["gcd"]
    drawn = {
        split: {
            item.prompt
            for seed in (0, 1)
            for item in sample_problems(family, levels=[2, 3, 4], split=split, count=60, seed=seed)
        }
        for split in Split
    }
    assert not drawn[Split.TRAIN] & drawn[Split.TEST]
    assert not drawn[Split.TRAIN] & drawn[Split.DEV]
    assert not drawn[Split.DEV] & drawn[Split.TEST]


def test_a_sample_is_distinct_takes_the_levels_in_turn_and_repeats_for_its_seed():
    family = FAMILIES["chain_sum"]
    sample = sample_problems(family, levels=[4, 6], split=Split.TEST, count=50, seed=3)
    assert len({item.problem_id for item in sample}) == 50
    assert Counter(item.level for item in sample) == {4: 25, 6: 25}
    assert all(split_of(item.problem_id) is Split.TEST for item in sample)
    assert sample == sample_problems(family, levels=[4, 6], split=Split.TEST, count=50, seed=3)
    assert sample != sample_problems(family, levels=[4, 6], split=Split.TEST, count=50, seed=4)


def test_a_family_that_runs_out_says_so():
    # one digit times 2..9 has 9 * 8 = 72 questions in all
    with pytest.raises(
        ConfigError, match=r"task 'product' has no more than about \d+ distinct test problems"
    ):
        sample_problems(FAMILIES["product"], levels=[1], split=Split.TEST, count=73, seed=0)


def test_no_levels_is_refused():
    with pytest.raises(ConfigError, match="no levels given"):
        sample_problems(FAMILIES["gcd"], levels=[], split=Split.TEST, count=1, seed=0)


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [("boolean", 6, 0.5), ("swaps", 8, 0.2), ("modular", 8, 0.1), ("ordering", 5, 0.2), ("reverse", 8, 0.0)],
)
def test_guessing_earns_what_counting_the_answers_says(name, level, expected):
    baseline = guess_baseline(FAMILIES[name], levels=[level], split=Split.TRAIN, seed=0)
    assert expected <= baseline <= expected + 0.04


def test_a_skewed_family_is_measured_by_its_favourite_answer():
    family = FAMILIES["gcd"]
    rng = random.Random(0)
    answers = Counter(family.make(rng, level=4).answer for _ in range(3000))
    baseline = guess_baseline(family, levels=[4], split=Split.TRAIN, seed=0)
    assert baseline == pytest.approx(answers.most_common(1)[0][1] / 3000, abs=0.04)
