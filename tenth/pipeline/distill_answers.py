"""A teacher's answers to somebody's prompts, and the set that a student may learn from.

DeepSeek-R1 (arXiv:2501.12948v2), B.3.3 and F.1: samples enter the set when they are right and readable.
Why: answers cost time or money, so they are on disk part by part before anything else happens; what is right
is found out afterwards and can be found out again.
In:  problems, with an answer or without, a `Responder`.
Out: parts/NNNN.jsonl (every reply), samples.jsonl (those kept), dropped.json, card.json, card.md.
Where a problem has no answer, nobody can say what is right: then only unreadable replies and refusals go.
Not here: who the teacher is (cli/distill.py), what is learnt and how (distill.py).
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from tenth.base.errors import BudgetExceeded, DataError, RunError
from tenth.base.files import read_lines, write_lines
from tenth.base.records import AskParams, Finish, Message, Problem, Reply, Role
from tenth.base.runlog import RunLog
from tenth.pipeline.sample_card import Drops, sample_row, write_set
from tenth.pipeline.sample_filter import rule_of
from tenth.rollout.collect import prompt_messages
from tenth.rollout.responder import Responder
from tenth.tasks.judge import answer_of
from tenth.tasks.readability import ReadableLimits, faults, repetition
from tenth.tasks.rewards import CheckMany, check_found
from tenth.tasks.shape import ANY_SHAPE, write_r1
from tenth.tokenizer.chat import Answer, ChatTemplate, join_thinking, render_trainings, split_thinking
from tenth.tokenizer.special import THINK
from tenth.tokenizer.tokenizer import Tokenizer

PARTS = "parts"
_PROMPTS_PER_PART = 64
_FAILED = "failed"  # no usable reply
_ANY_LENGTH = 1 << 30  # a stranger's thinking may be one paragraph
_NO_FAULT = ("code_block",)  # or about programs
_REFUSAL = re.compile(
    r"\s*(?:(?:I am|I'm|I’m|we are|we're) (?:sorry|unable|not able)|(?:sorry|I apologi[sz]e)\b"
    r"|(?:I|we) (?:cannot|can't|can’t|won't|must decline)|抱歉|很抱歉|对不起|我无法|我不能)",
    flags=re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One reply of the teacher, and whose question it answers."""

    problem: Problem
    thinking: str | None
    answer: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    usd: float
    error: str | None

    @property
    def shown(self) -> str:
        """As an example of what was dropped; a thought that never ended has no tag that ends it."""
        if self.thinking is not None and not self.answer:
            return self.error or f"{THINK}{self.thinking}"
        return self.error or join_thinking(Answer(self.thinking, self.answer))


def num_parts(problems: Sequence[Problem]) -> int:
    """How many files of replies there will be."""
    return ceil(len(problems) / _PROMPTS_PER_PART)


def ask_teacher(
    directory: Path,
    problems: Sequence[Problem],
    responder: Responder,
    params: AskParams,
    *,
    log: RunLog,
    is_partial: bool,
) -> list[Said]:
    """Every reply; whole parts that are there stay. `is_partial`: a budget's end is no error."""
    said: list[Said] = []
    for part, start in enumerate(range(0, len(problems), _PROMPTS_PER_PART)):
        asked = problems[start : start + _PROMPTS_PER_PART]
        path = directory / PARTS / f"{part:04d}.jsonl"
        began = time.perf_counter()
        if not _is_answered(path):
            try:
                groups = responder.respond([prompt_messages(problem) for problem in asked], params)
            except BudgetExceeded as error:
                said += [_said(asked[row["place"]], row) for row in _paid_for(asked, responder, params)]
                if is_partial and said:
                    return said
                answered = len({each.problem.problem_id for each in said})
                raise RunError(
                    f"the budget is spent with {answered:,} of {len(problems):,} prompts answered; all of it "
                    "is kept: repeat the command with a larger --budget to go on, or with partial=true to "
                    "train on what there is."
                ) from error
            write_lines(path, (_row(place, each) for place, group in enumerate(groups) for each in group))
        said += [_said(asked[row["place"]], row) for _, row in read_lines(path)]
        log.log(part, _metrics(said, seconds=time.perf_counter() - began))
    return said


def _is_answered(path: Path) -> bool:
    """Whether a part is there and none of its answers failed: those are asked for again."""
    if not path.exists():
        return False
    return not any(isinstance(row, dict) and row.get("error") for _, row in read_lines(path))


def _paid_for(asked: Sequence[Problem], responder: Responder, params: AskParams) -> Iterator[dict[str, Any]]:
    """What was answered before the money ended: asked for one by one, it costs nothing again."""
    for place, problem in enumerate(asked):
        try:
            (group,) = responder.respond([prompt_messages(problem)], params)
        except BudgetExceeded:
            continue
        yield from (_row(place, each) for each in group)


def _metrics(said: Sequence[Said], *, seconds: float) -> dict[str, float]:
    return {
        "answers": float(len(said)),
        "completion_tokens": float(sum(each.completion_tokens for each in said)),
        "usd": sum(each.usd for each in said),
        "failed": float(sum(each.error is not None for each in said)),
        "step_time": seconds,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a reply must be to be learnt from."""

    check: CheckMany
    min_language: float
    max_repetition: float

    def first_broken(self, said: Sequence[Said]) -> list[str | None]:
        """The first rule that each reply breaks."""
        ended = [self._ended(each) for each in said]
        wrong = iter(self._not_right([each for each, cut in zip(said, ended, strict=True) if cut is None]))
        return [cut or next(wrong) or self._fault(each) for each, cut in zip(said, ended, strict=True)]

    def _ended(self, said: Said) -> str | None:
        if said.error is not None:
            return _FAILED
        if said.thinking is not None and not said.answer.strip():
            return "unclosed_thinking"
        if said.finish is not Finish.STOP:
            return "cut_off"
        return None if said.answer.strip() else "empty"

    def _not_right(self, said: Sequence[Said]) -> list[str | None]:
        known = [each for each in said if each.problem.answer]
        found = [answer_of(each.problem, each.answer, shape=ANY_SHAPE) for each in known]
        verdicts = iter(check_found(self.check, [each.problem for each in known], found))
        return [
            rule_of(next(verdicts))
            if each.problem.answer
            else ("refusal" if _REFUSAL.match(each.answer) else None)
            for each in said
        ]

    def _fault(self, said: Said) -> str | None:
        if said.thinking is None:
            return "repetition" if repetition(said.answer) > self.max_repetition else None
        limits = ReadableLimits(
            min_language=self.min_language,
            max_repetition=self.max_repetition,
            max_paragraph_chars=_ANY_LENGTH,
        )
        text = join_thinking(Answer(said.thinking, said.answer))
        found = faults(text, said.problem.language, tokens=said.completion_tokens, limits=limits)
        return next((name for name in found if name not in _NO_FAULT), None)


def choose_samples(
    directory: Path,
    said: Sequence[Said],
    rules: Filter,
    *,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    lineage: Mapping[str, Any],
    is_own_text: bool,
) -> dict[str, Any]:
    """Write the set and its card; returns how many of what. `is_own_text`: the teacher wrote thinking and
    answer as one text, which the student shall write, too; an API hands them out apart."""
    drops, rows = Drops(), []
    seen: set[tuple[str, str]] = set()
    for each, first_broken in zip(said, rules.first_broken(said), strict=True):
        text = _written(each, is_own_text=is_own_text)
        key = (each.problem.problem_id, text)
        broken = first_broken or ("duplicate" if key in seen else None)
        if broken is not None:
            drops.add(broken, each.shown)
            continue
        seen.add(key)
        verifier = "the file's answer" if each.problem.answer else "none"
        described = {**lineage, "verifier": verifier}
        rows.append(sample_row(prompt_messages(each.problem), text, each.problem, lineage=described))
    if drops.counts and set(drops.counts) == {_FAILED}:
        raise RunError(
            f"the teacher gave no usable answer to any of {len(said):,} questions: "
            f"{drops.examples[_FAILED][0].rstrip('.')}; repeat the command when that is mended."
        )
    if not rows:
        raise drops.nothing_left(
            "the set",
            advice="look at parts/ in the run's first stage, and raise max_completion_length where thoughts "
            "do not end, or choose another teacher.",
        )
    lengths = _lengths(rows, tokenizer, template=template)
    write_set(directory, rows, tokens_of=lambda row: lengths[id(row)], drops=drops)
    return {"asked": len(said), "kept": len(rows), "dropped": dict(drops.counts)}


def _written(said: Said, *, is_own_text: bool) -> str:
    if is_own_text or said.thinking is None:
        return join_thinking(Answer(said.thinking, said.answer))
    return write_r1(said.thinking.strip(), said.answer.strip())


def _lengths(
    rows: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, *, template: ChatTemplate
) -> dict[int, int]:
    """By the row's identity, tokens as the student sees them; 0 where its template cannot write it."""
    turns = [
        [Message(role=Role(each["role"]), content=each["content"]) for each in row["messages"]]
        for row in rows
    ]
    found = render_trainings(tokenizer, turns, template=template)
    return {
        id(row): 0 if isinstance(each, DataError) else len(each.ids)
        for row, each in zip(rows, found, strict=True)
    }


def _row(place: int, reply: Reply) -> dict[str, Any]:
    return {
        "place": place,  # of the problem in its part
        "reasoning": reply.reasoning,
        "text": reply.text,
        "finish": str(reply.finish),
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "usd": reply.usd,
        "error": reply.error,
    }


def _said(problem: Problem, row: Mapping[str, Any]) -> Said:
    """Some write their thinking into the answer."""
    parts = split_thinking(row["text"]) if row["reasoning"] is None else Answer(row["reasoning"], row["text"])
    return Said(
        problem=problem,
        thinking=parts.thinking,
        answer=parts.answer,
        finish=Finish(row["finish"]),
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        usd=row["usd"],
        error=row["error"],
    )
