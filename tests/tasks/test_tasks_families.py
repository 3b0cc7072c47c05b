"""Every generated family at every level: the promises that hold for all of them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.base.records import Problem
from tenth.tasks.generated import FAMILIES
from tenth.tasks.task import Family, Work

CASES = [
    (name, level)
    for name, family in FAMILIES.items()
    for level in range(family.levels[0], family.levels[1] + 1)
]
MAX_PROMPT_CHARS = 100

seeds = st.integers(0, 2**32)
few = settings(max_examples=8, deadline=None)


def made(name: str, level: int, seed: int) -> tuple[Family, Problem, random.Random]:
    rng = random.Random(seed)
    return FAMILIES[name], FAMILIES[name].make(rng, level=level), rng


def test_the_names_are_the_ones_that_recipes_use():
    assert list(FAMILIES) == [
        "chain_sum", "product", "equation", "countdown", "sort", "gcd", "lcm", "binary", "reverse",
        "letter_count", "word_shift", "boolean", "ordering", "swaps", "variables", "modular",
        "shopping_zh", "compare_zh",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "level"), CASES)
@few
@given(seed=seeds)
def test_the_answer_and_the_clean_working_check_as_right(name, level, seed):
    family, problem, rng = made(name, level, seed)
    solution = family.work(problem, rng, kind=Work.CLEAN)
    assert family.check(problem, problem.answer).is_correct
    assert family.check(problem, solution.answer).is_correct
    assert family.check(problem, f" {solution.answer} \n").is_correct
    assert solution.answer in solution.thinking.splitlines()[-1]


@pytest.mark.parametrize(("name", "level"), CASES)
@few
@given(seed=seeds)
def test_a_mistake_is_carried_on_to_a_wrong_answer(name, level, seed):
    family, problem, rng = made(name, level, seed)
    solution = family.work(problem, rng, kind=Work.MISTAKE)
    assert not family.check(problem, solution.answer).is_correct
    assert solution.answer in solution.thinking.splitlines()[-1]
    assert "wait" not in solution.thinking
    assert "等等" not in solution.thinking


@pytest.mark.parametrize(("name", "level"), CASES)
@few
@given(seed=seeds)
def test_a_corrected_mistake_says_wait_once_and_ends_right(name, level, seed):
    family, problem, rng = made(name, level, seed)
    solution = family.work(problem, rng, kind=Work.CORRECTED)
    wait = {"en": "wait, ", "zh": "等等，"}[family.language]
    corrections = [line for line in solution.thinking.splitlines() if line.startswith(wait)]
    assert len(corrections) == 1
    assert family.check(problem, solution.answer).is_correct
    assert solution.answer in solution.thinking.splitlines()[-1]


@pytest.mark.parametrize(("name", "level"), CASES)
def test_the_same_seed_makes_the_same_problem_and_the_prompt_is_short(name, level):
    for seed in range(20):
        _, problem, _ = made(name, level, seed)
        assert problem == made(name, level, seed)[1]
        assert (problem.task, problem.level) == (name, level)
        assert len(problem.prompt) <= MAX_PROMPT_CHARS


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(
    junk=st.text(max_size=60) | st.text("0123456789+-*/() .=TFx,abc", max_size=60), seed=st.integers(0, 20)
)
def test_junk_never_raises_and_what_is_accepted_reads_like_the_answer(name, junk, seed):
    family, problem, _ = made(name, FAMILIES[name].levels[0], seed)
    verdict = family.check(problem, junk)
    if verdict.is_correct:
        assert verdict.extracted is not None
        assert family.check(problem, verdict.extracted).is_correct
    assert not family.check(problem, f"#{junk}").is_correct
    assert verdict.error is None


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "junk",
    [
        "", " ", "no idea", "__import__('os').system('true')", "9**9**9", "(" * 5000, "1" * 5000,
        "-" * 200 + "1", "\x00", "٣", "１", "nan", "1e3", "<answer>", "True", "None", "x=", "2+",
    ],
)  # fmt: skip
def test_known_junk_is_never_right(name, junk):
    family = FAMILIES[name]
    for seed in range(5):
        assert not family.check(made(name, family.levels[0], seed)[1], junk).is_correct


@pytest.mark.parametrize("name", FAMILIES)
def test_the_right_answer_with_something_behind_it_is_wrong(name):
    family, problem, _ = made(name, FAMILIES[name].levels[1], 3)
    assert not family.check(problem, f"{problem.answer} or 7").is_correct
    assert not family.check(problem, problem.answer + " " * 300 + "x").is_correct


@pytest.mark.parametrize("name", FAMILIES)
def test_a_level_that_does_not_exist_is_named(name):
    family = FAMILIES[name]
    with pytest.raises(ConfigError, match=f"task '{name}' has no level {family.levels[1] + 1}"):
        family.make(random.Random(0), level=family.levels[1] + 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_problem_read_back_from_its_record_can_still_be_worked_and_checked(name):
    family, problem, rng = made(name, FAMILIES[name].levels[0], 1)
    again = Problem.from_dict(problem.to_dict())
    assert family.check(again, family.work(again, rng, kind=Work.CLEAN).answer).is_correct
