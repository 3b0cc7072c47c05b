"""Problems times samples -> scored rollouts: the half of an RL step that makes the data.

In:  problems, a sampler, rewards.  Out: `Rollout`s, whole groups, in order.
Not here: advantages and the update (training/), choosing problems (pipeline/).
"""

from collections.abc import Sequence
from statistics import pstdev
from typing import Protocol

from tenth.base.errors import DataError
from tenth.base.records import Message, Problem, Role, Rollout
from tenth.engine.request import SamplingParams
from tenth.rollout.pool import SamplerPool
from tenth.tasks.rewards import Scored
from tenth.tokenizer.chat import ChatTemplate, render_prompt
from tenth.tokenizer.tokenizer import Tokenizer


class Rewards(Protocol):
    """What scores answers: a `RewardSet`, or something like it."""

    def score(
        self, problems: Sequence[Problem], texts: Sequence[str], *, completion_ids: Sequence[Sequence[int]]
    ) -> list[Scored]:
        """One `Scored` per text; the i-th text answers the i-th problem."""
        ...


def prompt_ids(
    problem: Problem, tokenizer: Tokenizer, *, template: ChatTemplate, prefill: str = ""
) -> list[int]:
    """The ids a sampler continues for this problem: its question, or the conversation that it came with."""
    return render_prompt(tokenizer, prompt_messages(problem), template=template, prefill=prefill)


def prompt_messages(problem: Problem) -> list[Message]:
    """What is asked, as a conversation."""
    rows = problem.metadata.get("messages")
    if rows is None:
        return [Message(role=Role.USER, content=problem.prompt)]
    unknown = [row["role"] for row in rows if row["role"] not in tuple(Role)]
    if unknown:
        raise DataError(
            f"the prompt '{problem.prompt[:40]}' has a message of role '{unknown[0]}'; the roles are "
            f"{', '.join(Role)}."
        )
    return [Message(role=Role(row["role"]), content=row["content"]) for row in rows]


def collect(
    problems: Sequence[Problem],
    pool: SamplerPool,
    rewards: Rewards,
    *,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    params: SamplingParams,
    policy_step: int,
) -> list[Rollout]:
    """`params.n` scored answers for each problem; `group_id` is the problem's place in the list."""
    prompts = [prompt_ids(problem, tokenizer, template=template) for problem in problems]
    groups = pool.sample(prompts, params)
    pairs = [(group_id, completion) for group_id, group in enumerate(groups) for completion in group]
    scored = rewards.score(
        [problems[group_id] for group_id, _ in pairs],
        [completion.text for _, completion in pairs],
        completion_ids=[completion.answer_ids for _, completion in pairs],
    )
    return [
        Rollout(
            problem_id=problems[group_id].problem_id,
            task=problems[group_id].task,
            level=problems[group_id].level,
            group_id=group_id,
            prompt_ids=completion.prompt_ids,
            answer_ids=completion.answer_ids,
            answer_logprobs=completion.answer_logprobs,
            rewards=score.rewards,
            reward=score.reward,
            finish=completion.finish,
            policy_step=policy_step,
            prompt=problems[group_id].prompt,
            text=completion.text,
            error=score.error,
        )
        for (group_id, completion), score in zip(pairs, scored, strict=True)
    ]


def has_signal(group: Sequence[Rollout]) -> bool:
    """Whether a group's rewards differ, so that it teaches something (DAPO, arXiv:2503.14476, section
    3.2)."""
    known = [rollout.reward for rollout in group if rollout.error is None]
    return len(known) > 1 and pstdev(known) > 0


def groups_of(rollouts: Sequence[Rollout]) -> dict[int, list[Rollout]]:
    """Rollouts by group id, in order."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    return groups
