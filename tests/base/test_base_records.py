import dataclasses
import json

import pytest

from tenth.base.errors import DataError
from tenth.base.records import Completion, Finish, Message, Problem, Role, Rollout, Verdict

PROBLEM = Problem(problem_id="p", task="gcd", prompt="中 2?", answer="2", level=3, metadata={"a": [1]})
COMPLETION = Completion(
    prompt_ids=(0, 5), answer_ids=(7, 1), answer_logprobs=(-0.1, -1e-9), finish=Finish.STOP, text="2"
)
ROLLOUT = Rollout(
    problem_id="p",
    task="gcd",
    level=1,
    group_id=0,
    prompt_ids=(0,),
    answer_ids=(1,),
    answer_logprobs=(-0.25,),
    rewards={"accuracy": 1.0},
    reward=1.2,
    finish=Finish.LENGTH,
    policy_step=4,
    prompt="q",
    text="a",
)
RECORDS = [PROBLEM, COMPLETION, ROLLOUT, Message(role=Role.USER, content="hi"), Verdict(is_correct=True)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_json(record):
    back = type(record).from_dict(json.loads(json.dumps(record.to_dict())))
    assert back == record


def test_an_enumeration_comes_back_as_itself_and_not_as_text():
    # text compares equal, but `is Finish.STOP` would be false
    assert Completion.from_dict(json.loads(json.dumps(COMPLETION.to_dict()))).finish is Finish.STOP


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_cannot_be_changed(record):
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, "x")


@pytest.mark.parametrize(
    "row", [{"role": "user"}, {"role": "user", "content": "a", "more": 1}, {"role": "robot", "content": "a"}]
)
def test_a_row_of_another_shape_is_one_sentence(row):
    with pytest.raises(DataError, match=r"a row is no Message .*; was its file written by another version"):
        Message.from_dict(row)
