"""A user's function with TRL's signature, run elsewhere, unchanged."""

import json

import pytest

from tenth.base.errors import ConfigError, VerifierError
from tenth.tasks.problem_files import read_problems
from tenth.tasks.task import problem
from tenth.tasks.user_reward import UserReward, column_names, text_of

FILE = """
import time
from tenth.tasks.user_reward import text_of

def same(prompts, completions, completion_ids, answer, source, **kwargs):
    kwargs["log_metric"]("mean", 1.0)
    return [None if s is None else float(text_of(c) == a) for c, a, s in zip(completions, answer, source)]

async def longer(completions, completion_ids, **kwargs):
    return [len(ids) for ids in completion_ids]

def roles(prompts, completions, **kwargs):
    return [float(p[-1]["role"] + c[0]["role"] == "userassistant") for p, c in zip(prompts, completions)]

def choosy(completions, colour, hue=None, *, log_extra, **kwargs):
    return [1.0] * len(completions)

def reads_question(completions, question, answer, level, **kwargs):
    return [float((q, a, l) == ("1+1?", "so #### 2", "Level 5")) for q, a, l in zip(question, answer, level)]

def crash(completions, **kwargs):
    raise RuntimeError("no network")

def slow(completions, **kwargs):
    time.sleep(60)

def short(completions, **kwargs):
    return [1.0]

def odd(completions, **kwargs):
    return ["good"] * len(completions)

def nan(completions, **kwargs):
    return [float("nan")] * len(completions)

def without_kwargs(completions):
    return [1.0]
"""

PROBLEMS = [
    problem("file", "1+1?", "2", metadata={"source": "a"}),
    problem("file", "2+2?", "4", metadata={"id": 1}),
]


@pytest.fixture
def reward(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    opened: list[UserReward] = []

    def start(name: str, **options) -> UserReward:
        opened.append(UserReward(f"{tmp_path / 'mine.py'}:{name}", **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_columns_arrive_by_name_and_none_means_no_opinion(reward):
    # the second problem has no column `source`
    assert reward("same").score(PROBLEMS, ["2", "4"], [(7,), (8,)]) == [1.0, None]


def test_every_column_has_its_own_name_and_its_own_value(reward, tmp_path):
    row = {"question": "1+1?", "answer": "so #### 2", "level": "Level 5"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (asked,) = read_problems(tmp_path / "rows.jsonl")
    assert reward("reads_question").score([asked, PROBLEMS[0]], ["2", "2"], [(7,), (8,)]) == [1.0, 0.0]


def test_a_column_that_no_problem_has_is_missed_at_once(reward):
    names = column_names(PROBLEMS)
    assert names == ["source", "id", "answer", "task", "level", "language", "problem_id"]
    expected = r"choosy' cannot be used: no column .* 'colour'; there are source, .*, problem_id\.$"
    with pytest.raises(ConfigError, match=expected):
        reward("choosy", columns=names)
    # only the first problem has a source, and it is not in this batch
    assert reward("same", columns=names).score(PROBLEMS[1:], ["4"], [(8,)]) == [None]
    assert "answer" not in column_names([problem("file", "Tell me of 1.", "")])


def test_an_async_function_is_awaited_and_integers_become_floats(reward):
    assert reward("longer").score(PROBLEMS, ["2", "4"], [(7,), (8, 9)]) == [1.0, 2.0]


def test_problems_that_came_as_messages_get_message_completions(reward):
    chat = problem("file", "hi", "x", metadata={"messages": [{"role": "user", "content": "hi"}]})
    assert reward("roles").score([chat], ["hello"], [(1,)]) == [1.0]


def test_text_of_reads_both_shapes():
    assert text_of("42") == "42"
    assert text_of([{"role": "assistant", "content": "42"}]) == "42"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", "^it raised RuntimeError: no network"),
        ("choosy", r"^no column of the problems is called 'colour'; there are .*source, .*completion_ids\.$"),
        ("short", "returned 1 values for 2 completions"),
        ("odd", "returned 'good'; only finite numbers and None"),
        ("nan", "returned nan"),
    ],
)
def test_what_goes_wrong_is_a_verifier_error(reward, name, message):
    with pytest.raises(VerifierError, match=message):
        reward(name).score(PROBLEMS, ["2", "4"], [(), ()])


def test_a_slow_function_is_stopped_at_its_deadline(reward):
    with pytest.raises(VerifierError, match="deadline of 1 s"):
        reward("slow", deadline_seconds=1.0).score(PROBLEMS, ["2", "4"], [(), ()])


def test_an_empty_batch_calls_nothing(reward):
    assert reward("crash").score([], [], []) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "has no function 'absent'"), ("without_kwargs", r"add \*\*kwargs")],
)
def test_a_function_that_cannot_be_used_is_refused_at_once(reward, name, message):
    with pytest.raises(ConfigError, match=message) as raised:
        reward(name)
    assert "user_reward.py" not in str(raised.value)  # the user's file is at fault, and no other is named


def test_a_spec_that_names_no_function_or_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not file\.py:function"):
        UserReward("rewards.py")
    with pytest.raises(ConfigError, match="does not exist"):
        UserReward(f"{tmp_path}/none.py:f")
