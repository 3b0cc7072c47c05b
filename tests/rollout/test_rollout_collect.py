"""Problems and samples become rollouts: whole groups, in order, each with its own rewards."""

import dataclasses

import pytest
from scripted import ScriptedPool, check_equal, make_problem, make_tokenizer

from tenth.base.errors import DataError
from tenth.base.records import Finish, Rollout
from tenth.engine.request import SamplingParams
from tenth.rollout.collect import collect, groups_of, has_signal, prompt_ids
from tenth.tasks.rewards import RewardSet
from tenth.tokenizer.chat import Template

TOKENIZER = make_tokenizer()
RIGHT, WRONG = "<think>1</think><answer>2</answer>", "<think>1</think><answer>3</answer>"
BARE = "<answer>2</answer>"  # right, without thinking


def collected(texts, *, finish=Finish.STOP):
    pool = ScriptedPool(texts, TOKENIZER, finish=finish)
    rollouts = collect(
        [make_problem(i, level=i) for i in range(len(texts))],
        pool,
        RewardSet(check_equal, weights={"accuracy": 1.0, "format": 0.2}),
        tokenizer=TOKENIZER,
        template=Template.ZERO_SHORT,
        params=SamplingParams(max_new_tokens=8, n=len(texts[0])),
        policy_step=5,
    )
    return rollouts, pool


def test_each_answer_is_scored_against_its_own_problem():
    rollouts, _ = collected([[RIGHT, WRONG], [BARE, "2"]])
    assert [(r.group_id, r.problem_id, r.rewards["accuracy"], r.rewards["format"]) for r in rollouts] == [
        (0, "p0", 1.0, 1.0),
        (0, "p0", 0.0, 1.0),
        (1, "p1", 1.0, 0.0),
        (1, "p1", 0.0, 0.0),  # no tags, no answer
    ]
    assert [r.reward for r in rollouts] == pytest.approx([1.2, 0.2, 1.0, 0.0])


def test_a_rollout_keeps_what_was_asked_and_what_the_sampler_said():
    (rollout, _), pool = collected([[RIGHT, WRONG]], finish=Finish.LENGTH)
    assert list(rollout.prompt_ids) == pool.prompts[0]
    assert TOKENIZER.decode(rollout.prompt_ids) == "User: What is 0?\nAssistant:"
    assert rollout.text == RIGHT
    assert TOKENIZER.decode(rollout.answer_ids) == RIGHT
    assert len(rollout.answer_logprobs) == len(rollout.answer_ids)
    assert (rollout.finish, rollout.policy_step, rollout.error) == (Finish.LENGTH, 5, None)


def test_a_verifier_error_is_told_and_not_taken_for_a_wrong_answer():
    (broken, fine), _ = collected([["<answer>crash</answer>", WRONG]])
    assert "crashed" in broken.error
    assert "accuracy" not in broken.rewards
    assert fine.error is None


def test_a_prompt_can_force_how_the_answer_begins():
    plain = prompt_ids(make_problem(1), TOKENIZER, template=Template.ZERO_SHORT)
    forced = prompt_ids(make_problem(1), TOKENIZER, template=Template.ZERO_SHORT, prefill="<think>")
    assert forced == [*plain, TOKENIZER.id_of("<think>")]


def group(*rewards, error=None):
    (first, _), _ = collected([[RIGHT, RIGHT]])
    rows = [Rollout.from_dict({**first.to_dict(), "reward": reward}) for reward in rewards]
    return rows if error is None else [*rows, Rollout.from_dict({**first.to_dict(), "error": error})]


@pytest.mark.parametrize(
    ("rewards", "error", "teaches"),
    [
        ((1.0, 0.0), None, True),
        ((1.0, 1.0, 1.0), None, False),
        ((0.0, 0.0), None, False),
        ((0.5,), None, False),  # nobody to compare with
        ((0.0, 0.0), "crashed", False),  # its reward of 1.2 is not known to be true
    ],
)
def test_a_group_teaches_when_its_known_rewards_differ(rewards, error, teaches):
    assert has_signal(group(*rewards, error=error)) is teaches


def test_groups_keep_their_order():
    rollouts, _ = collected([[RIGHT, WRONG], [WRONG, RIGHT]])
    groups = groups_of(rollouts)
    assert list(groups) == [0, 1]
    assert [r.reward for r in groups[1]] == pytest.approx([0.2, 1.2])


def test_a_problem_that_came_as_a_conversation_is_asked_as_one():
    rows = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "And 2?"},
    ]
    asked = dataclasses.replace(make_problem(2), metadata={"messages": rows})
    text = TOKENIZER.decode(prompt_ids(asked, TOKENIZER, template=Template.ZERO_SHORT))
    assert text == "Be brief.\nUser: What is 1?\nAssistant:One.User: And 2?\nAssistant:"


def test_a_role_that_nobody_knows_is_named():
    odd = dataclasses.replace(make_problem(2), metadata={"messages": [{"role": "tool", "content": "4"}]})
    with pytest.raises(DataError, match="a message of role 'tool'; the roles are system, user, assistant"):
        prompt_ids(odd, TOKENIZER, template=Template.ZERO_SHORT)
