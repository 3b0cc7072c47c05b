"""Many answers to each problem, and the first rule that each of them breaks.

Why: the cold start and rejection sampling ask alike and judge alike. What was sampled is written down part by
part, so that a run that is killed asks nobody twice.
In:  problems, a sampler, a checker, limits.
Out: parts/NNNN.jsonl; `Candidate`s; the name of a rule, or None.
Not here: what becomes of those that pass (cold_start.py, rejection.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from tenth.base.files import read_lines, write_lines
from tenth.base.records import Completion, Finish, Message, Problem, Role, Verdict
from tenth.base.seeds import stream_random, stream_seed
from tenth.engine.request import SamplingParams
from tenth.pipeline.r1_recipe import ColdStartSection, ReadableSection, RejectionSection
from tenth.pipeline.sample_card import Drops
from tenth.pipeline.stage import StageClock
from tenth.rollout.collect import prompt_ids
from tenth.rollout.pool import SamplerPool
from tenth.tasks.judge import answer_of
from tenth.tasks.readability import ReadableLimits, faults
from tenth.tasks.rewards import CheckMany, check_found
from tenth.tasks.shape import AnswerShape
from tenth.tokenizer.chat import ChatTemplate, render_training, split_thinking
from tenth.tokenizer.tokenizer import Tokenizer

PARTS = "parts"
_PROMPTS_PER_PART = 128
_VERIFIER, _BY_JUDGE = "verifier", "judge"  # in a problem's metadata: no rule can check its answer
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One sampled answer."""

    problem: Problem
    text: str
    tokens: int
    finish: Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a candidate must be to be kept."""

    check: CheckMany
    shape: AnswerShape
    readable: ReadableSection
    judge: CheckMany | None = None  # sees the reference answer and the summary

    def first_broken(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """The first rule that each candidate breaks: ended, right, well-formed, readable.

        Whether an answer without a rule is right remains open here.
        """
        ended = [each for each in candidates if each.finish is Finish.STOP]
        wrong = iter(self._not_right([each for each in ended if not is_for_judge(each)]))
        found = []
        for each in candidates:
            if each.finish is not Finish.STOP:
                broken: str | None = "cut_off"
            else:
                broken = self._no_judge() if is_for_judge(each) else next(wrong)
            found.append(broken or self._form(each))
        return found

    def _no_judge(self) -> str | None:
        return "no_judge" if self.judge is None else None

    def _not_right(self, candidates: Sequence[Candidate]) -> list[str | None]:
        problems = [each.problem for each in candidates]
        answers = [answer_of(each.problem, each.text, shape=self.shape) for each in candidates]
        verdicts = check_found(self.check, problems, answers)
        return [rule_of(verdict) for verdict in verdicts]

    def _form(self, candidate: Candidate) -> str | None:
        if self.shape.format_score(candidate.text) != 1.0:
            return "form"
        limits = ReadableLimits(**self.readable.model_dump())
        found = faults(candidate.text, candidate.problem.language, tokens=candidate.tokens, limits=limits)
        return found[0] if found else None


def is_for_judge(candidate: Candidate) -> bool:
    """Whether no rule can say if the answer is right."""
    return candidate.problem.metadata.get(_VERIFIER) == _BY_JUDGE


def kept_by(rules: Rules, candidates: Sequence[Candidate], drops: Drops) -> list[Candidate]:
    """Those that break no rule; the others are counted by the first that they break.

    The judge is asked last and once, about what is left for it.
    """
    kept = []
    for candidate, broken in zip(candidates, rules.first_broken(candidates), strict=True):
        if broken is None:
            kept.append(candidate)
        else:
            drops.add(broken, candidate.text)
    open_ones = [each for each in kept if is_for_judge(each)]
    if rules.judge is None or not open_ones:
        return kept
    summaries = [split_thinking(each.text).answer.strip() for each in open_ones]
    verdicts = iter(rules.judge([each.problem for each in open_ones], summaries))
    right = []
    for candidate in kept:
        broken = rule_of(next(verdicts)) if is_for_judge(candidate) else None
        if broken is None:
            right.append(candidate)
        else:
            drops.add(broken, candidate.text)
    return right


def at_most(count: int, candidates: Sequence[Candidate], drops: Drops, *, seed: int) -> list[Candidate]:
    """`count` of each problem's, drawn evenly: the shortest would favour answers that skip steps."""
    by_problem: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_problem.setdefault(candidate.problem.problem_id, []).append(candidate)
    kept = []
    for problem_id, group in by_problem.items():
        stream_random(seed, "one-of-many", problem_id).shuffle(group)
        kept += group[:count]
        for each in group[count:]:
            drops.add("surplus", each.text)
    return kept


def sample_candidates(
    directory: Path,
    problems: Sequence[Problem],
    pool: SamplerPool,
    *,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    section: ColdStartSection | RejectionSection,
    seed: int,
) -> list[Candidate]:
    """`section.samples` answers to each problem; parts that are there are read instead of asked again."""
    params = SamplingParams(
        max_new_tokens=section.max_completion_length,
        n=section.samples,
        temperature=section.temperature,
        stop_ids=(tokenizer.eos_id,),
    )
    candidates: list[Candidate] = []
    clock = StageClock(directory)
    for part, start in enumerate(range(0, len(problems), _PROMPTS_PER_PART)):
        asked = problems[start : start + _PROMPTS_PER_PART]
        answered = [problem for problem in asked for _ in range(params.n)]
        path = directory / PARTS / f"{part:04d}.jsonl"
        rows = [row for _, row in read_lines(path)] if path.exists() else []
        if [row["problem_id"] for row in rows] != [problem.problem_id for problem in answered]:
            prompts = [prompt_ids(problem, tokenizer, template=template) for problem in asked]
            groups = pool.sample(prompts, replace(params, seed=stream_seed(seed, "samples", part)))
            rows = list(map(_row, answered, chain.from_iterable(groups)))
            write_lines(path, rows)
            clock.save()
        candidates += map(_candidate, answered, rows)
    return candidates


def tokens_of_rows(tokenizer: Tokenizer, template: ChatTemplate) -> Callable[[Mapping[str, Any]], int]:
    """How long a row's conversation is for whoever learns from it."""

    def tokens_of(row: Mapping[str, Any]) -> int:
        turns = [Message(role=Role(each["role"]), content=each["content"]) for each in row["messages"]]
        return len(render_training(tokenizer, turns, template=template).ids)

    return tokens_of


def shuffled(items: Sequence[T], *, seed: int, stream: str) -> list[T]:
    """Another order, which follows from the seed."""
    mixed = list(items)
    stream_random(seed, stream).shuffle(mixed)
    return mixed


def rule_of(verdict: Verdict | None) -> str | None:
    """The rule that a judged answer breaks; no verdict: there was no answer."""
    if verdict is None:
        return "no_answer"
    if verdict.error is not None:
        return "verifier_error"
    return None if verdict.is_correct else "wrong"


def _row(problem: Problem, completion: Completion) -> dict[str, Any]:
    return {
        "problem_id": problem.problem_id,
        "text": completion.text,
        "tokens": len(completion.answer_ids),
        "finish": str(completion.finish),
    }


def _candidate(problem: Problem, row: Mapping[str, Any]) -> Candidate:
    return Candidate(problem=problem, text=row["text"], tokens=row["tokens"], finish=Finish(row["finish"]))
