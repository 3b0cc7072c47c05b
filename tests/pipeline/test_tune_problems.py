"""What of somebody's file is held out, what a step draws from the rest, and what rewards are called."""

import pytest
from tune_models import sums, without_answers, write_rows

from tenth.base.errors import ConfigError, DataError
from tenth.pipeline.tune_problems import (
    parse_rewards,
    read_tasks,
    reward_names,
    shuffled_problems,
    split_problems,
)
from tenth.tasks.task import problem


def asked(num):
    return [problem("sums", f"What is {i}?", str(i)) for i in range(num)]


def test_a_prompt_is_held_out_or_trained_on_and_never_both(tmp_path):
    twice = asked(40) + asked(40)
    split = split_problems(twice, most=100, source=tmp_path)
    held_out, training = ({each.prompt for each in side} for side in (split.held_out, split.training))
    assert held_out.isdisjoint(training)
    assert (len(held_out), len(split.held_out)) == (4, 4)  # a tenth, each once
    assert (len(training), len(split.training)) == (36, 72)


def test_no_more_is_held_out_than_asked_for_and_the_order_of_the_file_does_not_matter(tmp_path):
    split = split_problems(asked(100), most=3, source=tmp_path)
    again = split_problems(asked(100)[::-1], most=3, source=tmp_path)
    assert [each.prompt for each in split.held_out] == [each.prompt for each in again.held_out]
    assert len(split.held_out) == 3


def test_a_file_with_one_prompt_leaves_nothing_to_measure_with(tmp_path):
    with pytest.raises(DataError, match="has 1 distinct prompt, but one is held out"):
        split_problems(asked(1) * 5, most=3, source=tmp_path / "one.jsonl")


def test_every_problem_comes_once_before_any_comes_again():
    draw = shuffled_problems(asked(10), seed=1)
    prompts = [each.prompt for step in range(5) for each in draw(step, 4, draw=0)]
    assert sorted(prompts[:10]) == sorted(prompts[10:]) == sorted({each.prompt for each in asked(10)})
    assert prompts[:10] != prompts[10:]  # another order
    assert [each.prompt for each in draw(2, 4, draw=0)] == prompts[8:12]  # whoever continues draws the same


def test_a_step_may_be_larger_than_the_file():
    assert len(shuffled_problems(asked(3), seed=1)(0, 8, draw=0)) == 8


def test_extra_draws_take_nothing_from_the_next_step():
    draw = shuffled_problems(asked(10), seed=1)
    assert draw(1, 4, draw=1) == draw(1, 4, draw=1)
    assert len(draw(1, 4, draw=1)) == 4


def test_rewards_have_weights_behind_an_equals_sign():
    assert parse_rewards(["a.py:f", "b=c.py:g", "a.py:h=0.5", "a.py:i=-1"]) == {
        "a.py:f": 1.0,
        "b=c.py:g": 1.0,
        "a.py:h": 0.5,
        "a.py:i": -1.0,
    }


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [(["a.py:f=x"], "the weight 'x' is not a number"), (["a.py:f", "a.py:f=2"], "is given twice")],
)
def test_rewards_that_cannot_be_meant_are_refused(specs, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_rewards(specs)


def test_a_reward_is_called_by_its_function_where_that_is_unambiguous():
    names = reward_names(["x/a.py:f", "x/b.py:f", "x/a.py:g", "x/a.py:format"])
    assert list(names.values()) == ["a.py:f", "b.py:f", "g", "a.py:format"]


def test_answers_are_for_all_rows_or_for_none(tmp_path):
    assert read_tasks(write_rows(tmp_path / "a.jsonl", sums()), has_rewards=True)[0].answer == "1"
    assert read_tasks(write_rows(tmp_path / "b.jsonl", without_answers()), has_rewards=True)[0].answer == ""
    mixed = write_rows(tmp_path / "c.jsonl", [*sums(num=5), *without_answers(num=1)])
    with pytest.raises(DataError, match=r"c.jsonl: 5 of 6 rows have an answer; give one to the others"):
        read_tasks(mixed, has_rewards=True)
    with pytest.raises(DataError, match=r"line 1: no answer; .* \(the columns are: prompt, wish\)"):
        read_tasks(tmp_path / "b.jsonl", has_rewards=False)
