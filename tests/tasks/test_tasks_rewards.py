"""Rewards by rule: extraction, format, language, and their weighted sum, computed by hand."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError, VerifierError
from tenth.base.records import Verdict
from tenth.tasks.generated import FAMILIES
from tenth.tasks.rewards import RewardSet, language_consistency, one_by_one
from tenth.tasks.shape import ZERO_SHAPE, extract_answer, format_score
from tenth.tasks.task import problem

GOOD = "<think>3+5=8</think> <answer>8</answer>"


@one_by_one
def equals(item, text):
    return Verdict(is_correct=text == item.answer, extracted=text)


EIGHT = problem("sum", "What is 3+5?", "8")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (GOOD, "8"),
        ("<answer> 8 </answer>", "8"),
        ("<answer>8</answer> trailing", "8"),
        ("<answer></answer>", ""),
        ("8", None),
        ("<answer>8", None),
        ("8</answer>", None),
        ("</answer>8<answer>", None),
        ("<answer>7</answer> <answer>8</answer>", None),
        ("<answer>7<answer>8</answer>", None),
        ("<think><answer>7</answer></think> <answer>8</answer>", "8"),
        ("<think>it is <answer>8</answer>", None),
        ("<think>a</think> <think> <answer>8</answer>", None),
        ("<think><answer>8</answer></think>", None),
    ],
)
def test_the_answer_is_the_one_behind_the_thinking(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (GOOD, 1.0),
        ("\n" + GOOD + "\n", 1.0),
        ("<think>\n3+5\n</think><answer>8</answer>", 1.0),
        ("<answer>8</answer>", 0.0),
        ("So: " + GOOD, 0.0),
        (GOOD + " done", 0.0),
        ("<think>a</think> b <answer>8</answer>", 0.0),
        ("<answer>8</answer> <think>a</think>", 0.0),
        (GOOD + GOOD, 0.0),
        ("<think><think>a</think> <answer>8</answer>", 0.0),
        ("<think>a <answer>8</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_holds_only_when_every_tag_stands_once_in_order(text, score):
    assert format_score(text) == score


@given(st.text(), st.text())
def test_any_text_without_tags_fits_between_the_tags(thinking, answer):
    if "<" not in thinking + answer:
        text = f"<think>{thinking}</think> <answer>{answer}</answer>"
        assert format_score(text) == 1.0
        assert extract_answer(text) == answer.strip()


@given(st.text("<>/thinkaswer 8", max_size=80))
def test_reading_never_raises(text):
    assert format_score(text) in (0.0, 1.0)
    extract_answer(text)


def test_language_is_the_share_of_words():
    assert language_consistency("<think>so we add</think> 答", "en") == 1.0
    assert language_consistency("<think>so 我们 add</think>", "en") == 0.5  # two words, two characters
    assert language_consistency("<think>so 我们 add</think>", "zh") == 0.5
    assert language_consistency("3+5=8", "zh") == 1.0
    with pytest.raises(ConfigError, match="no language reward for 'fr'"):
        language_consistency("bonjour", "fr")


def test_rewards_are_named_and_their_weighted_sum_is_the_reward():
    rewards = RewardSet(equals, weights={"accuracy": 1.0, "format": 0.2})
    right, only_format, only_right, nothing = rewards.score(
        [EIGHT] * 4, [GOOD, GOOD.replace("r>8", "r>9"), "<answer>8</answer>", "8"]
    )
    assert (right.rewards, right.reward) == ({"accuracy": 1.0, "format": 1.0}, 1.2)
    assert (only_format.rewards, only_format.reward) == ({"accuracy": 0.0, "format": 1.0}, 0.2)
    assert (only_right.rewards, only_right.reward) == ({"accuracy": 1.0, "format": 0.0}, 1.0)
    assert (nothing.rewards, nothing.reward) == ({"accuracy": 0.0, "format": 0.0}, 0.0)
    assert (right.answer, nothing.answer, nothing.error) == ("8", None, None)


def test_all_answers_are_checked_in_one_go_and_texts_without_one_not_at_all():
    asked = []

    def check(problems, answers):
        asked.append(answers)
        return equals(problems, answers)

    texts = [GOOD, "8", GOOD.replace("r>8", "r>9")]
    scored = RewardSet(check, weights={"accuracy": 1.0}).score([EIGHT] * 3, texts)
    assert [each.reward for each in scored] == [1.0, 0.0, 0.0]
    assert asked == [["8", "9"]]


def test_a_verifier_error_is_not_a_wrong_answer():
    @one_by_one
    def broken(item, text):
        return Verdict(is_correct=False, error="ran past its deadline")

    scored = RewardSet(broken, weights={"accuracy": 1.0, "format": 0.2}).score([EIGHT], [GOOD])[0]
    assert scored.error == "ran past its deadline"
    assert scored.rewards == {"format": 1.0}
    assert scored.reward == 0.2


class Lengths:
    def score(self, problems, texts, completion_ids):
        return [None if not ids else float(len(ids)) for ids in completion_ids]


class Failing:
    def score(self, problems, texts, completion_ids):
        raise VerifierError("it crashed")


def test_a_function_adds_its_reward_and_none_is_left_out():
    rewards = RewardSet(equals, weights={"format": 1.0, "length": 0.1}, functions={"length": Lengths()})
    three, none = rewards.score([EIGHT, EIGHT], [GOOD, GOOD], completion_ids=[(1, 2, 3), ()])
    assert three.rewards == {"format": 1.0, "length": 3.0}
    assert three.reward == pytest.approx(1.3)
    assert none.rewards == {"format": 1.0}
    assert none.error is None


def test_a_function_that_fails_marks_every_sample_of_its_batch():
    rewards = RewardSet(equals, weights={"accuracy": 1.0, "mine": 1.0}, functions={"mine": Failing()})
    scored = rewards.score([EIGHT, EIGHT], [GOOD, "8"])
    assert [item.error for item in scored] == ["reward 'mine': it crashed"] * 2


def test_unknown_and_unweighted_rewards_are_named():
    with pytest.raises(
        ConfigError, match="reward 'acuracy' is not known; choose from accuracy, format, language"
    ):
        RewardSet(equals, weights={"acuracy": 1.0})
    with pytest.raises(ConfigError, match="reward function 'length' has no weight"):
        RewardSet(equals, weights={"accuracy": 1.0}, functions={"length": Lengths()})
    with pytest.raises(ConfigError, match="no rewards are given"):
        RewardSet(equals, weights={})


def test_a_generated_problem_is_scored_by_its_family():
    family = FAMILIES["sort"]
    made = family.make(random.Random(0), level=4)
    text = f"<think>by eye</think> <answer>{made.answer}</answer>"
    assert (
        RewardSet(one_by_one(family.check), weights={"accuracy": 1.0}).score([made], [text])[0].reward == 1.0
    )


def test_what_counts_as_the_answer_can_be_said():
    last_word = replace(ZERO_SHAPE, extract=lambda text: text.split()[-1])
    rewards = RewardSet(equals, weights={"accuracy": 1.0}, shape=last_word)
    assert [each.reward for each in rewards.score([EIGHT, EIGHT], ["it is 8", GOOD])] == [1.0, 0.0]
