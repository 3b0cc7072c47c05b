"""R1's shape of an answer, by hand: one box behind the thinking, tags once and in order."""

import pytest

from tenth.tasks.shape import R1_SHAPE, write_r1, write_summary

GOOD = "<think>\n3+4=7\n</think>\nThe answer is \\boxed{7}."


def test_what_is_written_is_well_formed_and_holds_its_answer():
    for language in ("en", "zh"):
        for thinking in ("3+4=7", ""):
            text = write_r1(thinking, write_summary("7", language=language))
            assert R1_SHAPE.format_score(text) == 1.0
            assert R1_SHAPE.extract(text) == "7"
    assert write_r1("3+4=7", write_summary("7", language="en")) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("</think>", ""),  # never closed
        GOOD.replace("<think>\n", ""),  # never opened
        GOOD + "</think>",  # closed twice
        "Well. " + GOOD,  # something in front
        "<think>\n3+4=7\n</think>\n \n",  # no summary
        GOOD.replace("The answer", "<answer>The answer"),  # R1-Zero's tags
    ],
)
def test_everything_else_is_not(text):
    assert R1_SHAPE.format_score(text) == 0.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\n\\boxed{7}\n</think>\nThe answer is 7.", None),  # the box is in the thought
        ("<think>\nso it is \\boxed{7}", None),  # a thought that never ends
        (GOOD + " Or \\boxed{8}.", None),  # two answers hedge
        ("<think>\n\\boxed{6}\n</think>\nIt is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("It is \\boxed{7}.", "7"),
    ],
)
def test_the_answer_is_the_one_box_behind_the_thinking(text, answer):
    assert R1_SHAPE.extract(text) == answer
