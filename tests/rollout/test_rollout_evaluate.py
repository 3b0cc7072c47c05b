"""Scores with a pencil: pass@k, cons@k, intervals, families, levels."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedPool, check_equal, make_problem, make_tokenizer

from tenth.base.records import Finish
from tenth.engine.request import SamplingParams
from tenth.rollout.evaluate import (
    Answer,
    answer_problems,
    majority_is_correct,
    pass_at_k,
    score,
    scores_by_family,
    scores_by_level,
)
from tenth.tokenizer.chat import Template

Z95 = 1.959964


def answer(*, is_correct=False, extracted="x", **changes):
    values = {
        "problem_id": "p",
        "family": "sums",
        "level": 1,
        "prompt": "?",
        "answer": "2",
        "text": "<answer>x</answer>",
        "has_format": False,
        "thinks": False,
        "finish": Finish.STOP,
        "tokens": 10,
    }
    return Answer(is_correct=is_correct, extracted=extracted, **{**values, **changes})


def group(*flags, **changes):
    return [answer(is_correct=flag, extracted="2" if flag else "3", **changes) for flag in flags]


@pytest.mark.parametrize(
    ("samples", "correct", "k", "expected"),
    [
        (4, 2, 2, 5 / 6),  # of the 6 pairs of 4 samples one holds no right answer
        (4, 2, 1, 1 / 2),
        (4, 0, 4, 0.0),
        (4, 1, 4, 1.0),
        (16, 1, 4, 1 / 4),
        (3, 3, 2, 1.0),
    ],
)
def test_pass_at_k(samples, correct, k, expected):
    assert pass_at_k(samples, correct, k) == pytest.approx(expected)


@given(samples=st.integers(1, 12), data=st.data())
def test_pass_at_k_is_one_minus_the_share_of_draws_without_a_right_answer(samples, data):
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    expected = 1 - math.comb(samples - correct, k) / math.comb(samples, k)
    assert pass_at_k(samples, correct, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("2", True), ("2", True), ("3", False)], 1.0),
        ([("2", True), ("3", False), ("3", False)], 0.0),
        ([("2", True), ("3", False)], 0.5),  # a tie is shared
        ([("2", True), ("3", False), ("4", False)], 1 / 3),
        ([("2", True), (None, False), (None, False)], 1.0),  # no answer is no vote
        ([(None, False)], 0.0),
    ],
)
def test_the_majority_votes_on_extracted_answers(votes, expected):
    rows = [answer(is_correct=is_correct, extracted=text) for text, is_correct in votes]
    assert majority_is_correct(rows) == pytest.approx(expected)


def test_a_score_is_the_mean_over_problems_and_its_interval_is_over_problems_too():
    found = score([group(True, True, False, False), group(True, True, True, True), group(*[False] * 4)])
    assert found["accuracy"] == pytest.approx(0.5)  # rates 0.5, 1, 0
    half = Z95 * math.sqrt((0 + 0.25 + 0.25) / 3) / math.sqrt(3)
    assert (found["low"], found["high"]) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    assert found["pass_at"] == {"1": pytest.approx(0.5), "4": pytest.approx(2 / 3)}
    assert found["cons"] == pytest.approx(0.5)  # a tie, a yes, a no
    assert (found["problems"], found["samples"]) == (3, 4)


def test_one_sample_has_no_majority():
    assert score([group(True), group(False)])["cons"] is None


def test_shares_are_over_answers():
    rows = [
        answer(text="<think>wait, check", finish=Finish.LENGTH, thinks=True, tokens=30, extracted=None),
        answer(text="<think>1</think><answer>2</answer>", thinks=True, has_format=True, tokens=10),
        answer(error="crashed"),
        answer(),
    ]
    found = score([rows])
    assert (found["truncated"], found["think_share"], found["format"]) == (0.25, 0.5, 0.25)
    assert (found["verifier_errors"], found["mean_tokens"]) == (0.25, 15.0)
    assert found["reflection_per_1k"] == pytest.approx(1000 * 2 / 60)  # "wait" and "check" in 60 tokens


def test_overall_is_the_mean_of_families_whatever_their_sizes():
    large = [group(True, family="large") for _ in range(9)] + [group(False, family="large")]
    small = [group(False, family="small"), group(True, family="small")]
    found = scores_by_family([*large, *small])
    assert found["families"]["large"]["accuracy"] == pytest.approx(0.9)
    assert found["families"]["small"]["accuracy"] == pytest.approx(0.5)
    assert found["overall"]["accuracy"] == pytest.approx(0.7)
    # Variances of independent means add, each at its full width: 0.9 + 0.19 is cut at 1 only when shown.
    half = Z95 * math.sqrt(0.09 / 10 + 0.25 / 2) / 2
    assert found["overall"]["low"] == pytest.approx(0.7 - half)
    assert found["overall"]["high"] == pytest.approx(min(1.0, 0.7 + half))


def test_levels_count_their_problems():
    groups = [group(True, True, level=2), group(True, False, level=2), group(False, False, level=10)]
    assert scores_by_level(groups) == {
        "sums": {
            "2": {"accuracy": pytest.approx(0.75), "problems": 2},
            "10": {"accuracy": 0.0, "problems": 1},
        }
    }


def test_answers_are_judged_with_their_forced_beginning():
    tokenizer = make_tokenizer()
    pool = ScriptedPool([["1</think><answer>2</answer>", "1</think><answer>crash</answer>", "1"]], tokenizer)
    ((right, broken, endless),) = answer_problems(
        [make_problem(1)],
        pool,
        check_equal,
        tokenizer=tokenizer,
        template=Template.ZERO_SHORT,
        params=SamplingParams(max_new_tokens=8, n=3),
        prefill="<think>",
    )
    assert pool.prompts[0][-1] == tokenizer.id_of("<think>")
    assert right.text == "<think>1</think><answer>2</answer>"
    assert (right.is_correct, right.has_format, right.thinks, right.extracted) == (True, True, True, "2")
    assert (broken.is_correct, broken.error) == (False, "the verifier crashed")
    assert (endless.extracted, endless.is_correct) == (None, False)
    assert (
        right.tokens == len(tokenizer.encode("1</think><answer>2</answer>")) + 1
    )  # what the model wrote, eos too


def test_all_samples_of_all_problems_are_judged_in_one_go():
    tokenizer, asked = make_tokenizer(), []

    def check(problems, answers):
        asked.append(list(zip((each.problem_id for each in problems), answers, strict=True)))
        return check_equal(problems, answers)

    groups = answer_problems(
        [make_problem(1), make_problem(2)],
        ScriptedPool([["<answer>2</answer>", "1"], ["<answer>3</answer>", "<answer>2</answer>"]], tokenizer),
        check,
        tokenizer=tokenizer,
        template=Template.ZERO_SHORT,
        params=SamplingParams(max_new_tokens=8, n=2),
    )
    assert asked == [[("p1", "2"), ("p2", "3"), ("p2", "2")]]
    assert [[each.is_correct for each in group] for group in groups] == [[True, False], [False, True]]


def test_an_answer_comes_back_from_its_row():
    row = answer(is_correct=True, finish=Finish.LENGTH, extracted=None)
    assert Answer.from_dict(row.to_dict()) == row
