"""Mathematical answers: one case per line of check_math_cases.jsonl, then the deadline."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.tasks.answer_text import final_answer, last_boxed
from tenth.tasks.check_math import (
    MathChecker,
    decide_simply,
    plain_number,
    tidy_expression,
)
from tenth.tasks.task import problem

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "check_math_cases.jsonl").read_text().splitlines()
]


@pytest.fixture(scope="module")
def checker() -> Iterator[MathChecker]:
    checker = MathChecker()
    yield checker
    checker.close()


@pytest.mark.parametrize("case", CASES, ids=[f"{case['gold']} ~ {case['answer']}"[:60] for case in CASES])
def test_case(checker, case):
    verdict = checker.check(problem("file", "?", case["gold"]), case["answer"])
    assert verdict.error is None
    assert verdict.is_correct is case["correct"], case["why"]


def test_an_answer_that_hangs_the_library_is_a_verifier_error_and_the_next_one_is_judged():
    checker = MathChecker(deadline_seconds=1.0)
    try:
        verdict = checker.check(problem("file", "?", "x+1"), "9^{9^{9^{9}}}")
        assert not verdict.is_correct
        assert verdict.error is not None
        assert "deadline of 1 s" in verdict.error
        again = checker.check(problem("file", "?", "x+1"), "1+x")
        assert again.is_correct
        assert again.error is None
    finally:
        checker.close()


def test_plain_numbers_start_no_process():
    checker = MathChecker()
    assert checker.check(problem("file", "?", "42"), "42").is_correct
    assert checker._worker._child is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", Fraction(2469, 2)),
        ("-3/4", Fraction(-3, 4)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (".5", Fraction(1, 2)),
        ("1/0", None),
        ("1,23", None),
        ("1e9", None),
        ("", None),
    ],
)
def test_a_plain_number_reads_as(text, value):
    assert plain_number(text) == value


@given(st.fractions())
def test_a_written_fraction_reads_back(value):
    assert plain_number(str(value)) == value
    assert decide_simply(str(value), str(value)) is True
    assert decide_simply(str(value), str(value + 1)) is False


@given(st.text(), st.text())
def test_reading_never_raises(gold, answer):
    final = final_answer(answer)
    decide_simply(tidy_expression(gold), tidy_expression(final or ""))


def test_an_unclosed_box_is_no_box():
    assert last_boxed(r"\boxed{1+{2}") is None
    assert last_boxed(r"\boxed{1+{2}} and more") == "1+{2}"
