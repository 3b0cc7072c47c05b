"""Strict and loose judging, and the benchmark's own rows with answers written for them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.tasks.ifeval.check import (
    MAX_CHARS,
    check_instructions,
    judge_instructions,
    problem_with_instructions,
)
from tenth.tasks.judge import Judge
from tenth.tasks.suites.table import load_suite
from tenth.tasks.task import problem

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "eval"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the optional ../shared/data is not here")


def instructed(*instructions):
    kinds, values = zip(*instructions, strict=True)
    metadata = {"instruction_id_list": list(kinds), "kwargs": [dict(each) for each in values]}
    return problem("ifeval", "Do it.", "", metadata=metadata)


COMMA = ("punctuation:no_comma", {})
QUOTED = ("startend:quotation", {})
LONG = ("length_constraints:number_words", {"relation": "at least", "num_words": 3})


def test_strict_takes_the_response_as_it_is_and_loose_forgives_a_first_line():
    followed = judge_instructions(instructed(COMMA, LONG), "Sure, here it is:\none two three")
    assert (followed.strict, followed.loose) == ((False, True), (True, True))


def test_loose_forgives_a_last_line_and_asterisks_together():
    followed = judge_instructions(instructed(QUOTED), '**"All of it"**\nHope this helps!')
    assert (followed.strict, followed.loose) == ((False,), (True,))


def test_a_verdict_is_right_only_where_every_instruction_is_followed_strictly():
    both = instructed(COMMA, LONG)
    assert check_instructions(both, "one two three").is_correct
    assert not check_instructions(both, "one two").is_correct


def test_nothing_and_far_too_much_follow_no_instruction():
    assert judge_instructions(instructed(COMMA), " \n").loose == (False,)
    assert judge_instructions(instructed(COMMA), "a" * (MAX_CHARS + 1)).loose == (False,)


def test_empty_columns_of_other_copies_of_the_file_do_no_harm():
    padded = instructed(("punctuation:no_comma", {"num_words": None, "keywords": None}))
    assert check_instructions(padded, "fine").is_correct


def test_the_judge_of_all_problems_knows_instructions_by_their_columns():
    with Judge() as judge:
        assert judge.check(instructed(COMMA), "fine").is_correct
        assert not judge.check(instructed(COMMA), "fine, no").is_correct


@given(st.text(max_size=300))
def test_whoever_follows_strictly_follows_loosely(text):
    followed = judge_instructions(instructed(COMMA, QUOTED, LONG), text)
    assert all(loose for strict, loose in zip(followed.strict, followed.loose, strict=True) if strict)


@pytest.mark.parametrize("metadata", [{}, {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [3]}])
def test_rows_without_instructions_are_refused(metadata):
    assert problem_with_instructions(metadata) is not None


# A value that only one row has -> an answer that follows all it asks for, and one thing too much.
REAL = [
    (
        "num_words",
        300,
        "*Early life* and *Reign* and *Death* of the count. " + "He ruled the land. " * 80,
        ",",
    ),
    (
        "first_word",
        "punched",
        "Punched out again [name]!\n\nThen he slept.\n\nHe woke in [city].",
        "\n\nMore.",
    ),
    ("language", "vi", "Hôm nay trời đẹp và tôi rất vui.\n******\nNgày mai trời sẽ mưa và tôi ở nhà.", ","),
    ("language", "it", "Nessun dorma canta il vento e non si ferma mai in questa notte", ","),
    ("num_words", 164, "THE CLEVER CAT CAN CATCH A COLD CUP OF COFFEE. " * 20, " no"),
    ("keyword", "robber", "* A robber came.\n* The robber left.", " They kill."),
    ("first_word", "bonding", "Gao smiles.\n\nTwo hearts.\n\nBonding at last.\nP.P.S. Bye.", "\n\nMore."),
    ("end_phrase", "So what is next?", "*One* thing and *another* one. So what is next?", " Nothing."),
]


@needs_data
def test_every_published_row_can_be_judged_and_fails_an_empty_answer():
    problems = load_suite("ifeval", DATA)
    assert len(problems) == 541
    assert sum(len(each.metadata["kwargs"]) for each in problems) == 834  # as the paper's code reports
    assert not any(check_instructions(each, "").is_correct for each in problems)


@needs_data
@pytest.mark.parametrize(("name", "value", "answer", "spoiler"), REAL)
def test_an_answer_written_for_a_row_of_several_instructions_passes_until_it_is_spoilt(
    name, value, answer, spoiler
):
    asked = next(
        each
        for each in load_suite("ifeval", DATA)
        if any(given.get(name) == value for given in each.metadata["kwargs"])
        and len(each.metadata["kwargs"]) == 3
    )
    assert judge_instructions(asked, answer).strict == (True, True, True)
    assert not check_instructions(asked, answer + spoiler).is_correct
