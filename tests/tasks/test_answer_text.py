"""Where a text says its answer: tables of real endings, and what must not count."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.tasks.answer_text import (
    behind_thinking,
    last_number,
    marked_answer,
    mathematical_answer,
    stated_answers,
    word_answer,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So 3+4=7.\n\\boxed{7}", "7"),
        ("\\boxed{1} no, \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"),
        ("<answer>\n5\n</answer>", "5"),
        ("<answer>It is \\boxed{5}.</answer>", "5"),
        ("<answer>4</answer> <answer>5</answer>", "5"),
        ("5 * 3 = 15\n#### 1,234", "1,234"),
        ("The answer is 18.", "18"),
        ("The answer is $18 per day.", "18"),
        ("The answer is 3 + 4 = 7 apples.", "7"),
        ("The answer is $\\frac{3}{4}$.", "\\frac{3}{4}"),
        ("the final answer is: **42**", "42"),
        ("答案是 12 个", "12"),
        ("答案：12。", "12"),
        ("所以答案为3.5", "3.5"),
        ("It costs $1,234.50 in total", "1,234.50"),
        ("He sold 48/2 = 24 in May, altogether 72 clips.", "72"),
        ("so we get -5", "-5"),
        ("that makes 3/4", "3/4"),
        ("The answer is hard to find. I count 5", "5"),
        ("no number at all", None),
        ("", None),
    ],
)
def test_a_mathematical_answer_is_found_where_models_put_it(text, answer):
    assert mathematical_answer(text) == answer


def test_a_thought_that_never_ends_has_no_answer():
    assert behind_thinking("<think>it is 7") is None
    assert behind_thinking("<think>it is 7</think>8") == "8"
    assert behind_thinking("it is 7</think>8") == "8"  # the prompt had the opening tag
    assert behind_thinking("8") == "8"


def test_an_open_box_or_tag_marks_nothing():
    assert marked_answer("\\boxed{7") is None
    assert marked_answer("<answer>7") is None
    assert marked_answer("7</answer>") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("\\boxed{Yes}", "Yes"),
        ("So the answer is No.", "No"),
        ("\\boxed{\\text{No}}", "No"),
        ("We come back.\nYes", "Yes"),
        ("Yes or No", None),
        ("The answer is not Yes.", None),
        ("Yesterday", None),
        ("", None),
    ],
)
def test_one_of_two_words_is_read_and_both_are_refused(text, word):
    assert word_answer(text, ("Yes", "No")) == word


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["\\boxed{{{}}}", "The answer is {}.", "答案是{}", "#### {}"]),
)
def test_a_number_comes_out_as_it_was_put_in(number, form):
    assert mathematical_answer(f"Some 12 words, 3 steps.\n{form.format(number)}") == str(number)


@given(st.text(max_size=500))
def test_no_text_is_too_strange_to_be_read(text):
    for answer in (mathematical_answer(text), marked_answer(text), last_number(text)):
        assert answer is None or isinstance(answer, str)
    assert all(stated_answers(text))


@pytest.mark.parametrize(
    "flood", ["\\boxed{", "<answer>", "the answer is ", "1,", "1/", "-", "答案", " ", "answer to "]
)
def test_a_flood_takes_linear_time(flood):
    text = flood * (200_000 // len(flood))
    begin = time.process_time()
    mathematical_answer(text), word_answer(text, ("Yes", "No"))
    assert time.process_time() - begin < 10  # quadratic would be minutes
