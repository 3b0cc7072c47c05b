"""Which option a text puts forward: every way that models write a letter, and every way to hedge."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tenth.tasks.choice import LETTERS, check_choice, is_choice, read_choice, show_options
from tenth.tasks.judge import Judge
from tenth.tasks.task import problem

OPTIONS = ["5", "a dog", "12 apples", "None of these"]

READ = {
    "B": ["B", "b", "(B)", "B.", "**B**", "B) a dog", "B: a dog", "[B]", "$B$", "Option B", "\\boxed{B}"],
    "C": [
        "<answer>C</answer>",
        "The answer is C.",
        "The correct answer is **C) 12 apples**.",
        "Answer: C",
        "**Answer:** C",
        "**Answer: C**",
        "Answer:\n\n**C**",
        "The answer is (c).",
        "the answer is C, not B.",
        "Final Answer: The final answer is $\\boxed{C}$",
        "\\boxed{\\text{C}}",
        "\\boxed{C. 12 apples}",
        "答案：C",
        "答案是C。",
        "正确选项为 C",
        "故选C。",
        "Therefore, option C is correct.",
        "A is too small and B is absurd.\n\nC",
        "First I thought the answer is A. But the answer is C because of the apples.",
    ],
    "A": ["5", "The answer is 5.", "The answer is A because 5 is odd.", "\\boxed{5}"],
    "D": ["none of these", "So the answer is none of these."],
}
REFUSED = [
    *("A or B", "A/B", "A and B", "The answer is A or B.", "答案是A或B", "\\boxed{A, B}", "\\boxed{AB}"),
    *("Answer: A and C", "(A) or (C)", "the answer is either A or C", "A、B"),
    *("", "E", "\\boxed{E}", "The answer is not B.", "I think so", "A good idea is to walk.", "a cat"),
    *(
        "It could be many things.",
        "The answer is a banana.",
        "\\boxed{}",
        "Option A is correct. Option B is correct.",
    ),
]


@pytest.mark.parametrize(
    ("letter", "text"), [(letter, text) for letter, texts in READ.items() for text in texts]
)
def test_a_choice_is_read_however_it_is_written(letter, text):
    assert read_choice(text, OPTIONS) == letter


@pytest.mark.parametrize("text", REFUSED)
def test_hedges_and_texts_without_a_choice_are_refused(text):
    assert read_choice(text, OPTIONS) is None


@given(
    st.sampled_from("ABCD"),
    st.sampled_from(["({})", "{}.", "**{}**", "\\boxed{{{}}}", "Answer: {}", "答案：{}"]),
)
def test_every_letter_reads_alike_in_every_form(letter, form):
    assert read_choice(form.format(letter), OPTIONS) == letter


@given(st.text(max_size=400))
def test_any_text_gives_a_letter_of_the_options_or_none(text):
    assert read_choice(text, OPTIONS) in (None, "A", "B", "C", "D")


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from([" or ", "/", " and ", "或", ", "]))
def test_two_letters_are_never_one_answer(first, second, between):
    assume(first != second)
    assert read_choice(f"The answer is {first}{between}{second}", OPTIONS) is None


def test_an_option_that_two_letters_share_is_no_answer_by_its_words():
    assert read_choice("7", ["7", "7"]) is None


def test_the_judge_of_all_problems_knows_choices_by_their_columns():
    asked = problem("q", "Which?\n" + show_options(OPTIONS), "C", metadata={"choices": OPTIONS})
    assert is_choice(asked)
    assert check_choice(asked, "(C)").is_correct
    assert not check_choice(asked, "(B)").is_correct
    with Judge() as judge:
        assert judge.check(asked, "The answer is C.").is_correct


def test_a_column_called_choices_alone_makes_no_multiple_choice():
    assert not is_choice(problem("q", "Which?", "12", metadata={"choices": OPTIONS}))
    assert not is_choice(problem("q", "Which?", "E", metadata={"choices": OPTIONS}))
    assert show_options(["x", "y"]) == "A. x\nB. y"
    assert len(LETTERS) == 10
