"""Judge what a model answered to a suite's question: read the answer, compare it.

Why: reading and comparing are counted apart. A model that is wrong and one whose answer nobody could read
need different remedies.
In:  problems, their kind of answer, texts.
Out: a `Ruling` on each; what needs a checker is checked at once, so that programs run side by side.
Not here: where answers stand in a text (answer_text.py, choice.py), the checkers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenth.base.records import Problem, Record, Verdict
from tenth.tasks.answer_text import behind_thinking, marked_answer, mathematical_answer, word_answer
from tenth.tasks.choice import CHOICES, read_choice
from tenth.tasks.ifeval.check import judge_instructions
from tenth.tasks.rewards import CheckMany, check_found
from tenth.tasks.suites.rows import WORDS
from tenth.tasks.suites.suite import AnswerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling(Record):
    """What became of one answer."""

    is_correct: bool
    extracted: str | None  # None: no answer could be read
    error: str | None = None  # the verifier failed: nobody knows
    details: Mapping[str, Any] = field(default_factory=dict)


def rule(
    problems: Sequence[Problem], texts: Sequence[str], kind: AnswerKind, *, check: CheckMany
) -> list[Ruling]:
    """On the i-th text as an answer to the i-th problem; `check` is a Judge's."""
    read = [_read(problem, text, kind) for problem, text in zip(problems, texts, strict=True)]
    verdicts = check_found(check, problems, [each if isinstance(each, str) else None for each in read])
    is_whole = kind is AnswerKind.CODE  # only the checker knows whether there is code in it
    return [
        _ruled(verdict, read=None if is_whole else each) if isinstance(each, str) else each
        for each, verdict in zip(read, verdicts, strict=True)
    ]


def _read(problem: Problem, text: str, kind: AnswerKind) -> Ruling | str:
    """The answer that a checker has to judge, or the ruling where none has to."""
    answer = behind_thinking(text) or ""
    if kind is AnswerKind.INSTRUCTIONS:
        return _by_instructions(problem, answer)
    if not answer.strip():
        return Ruling(is_correct=False, extracted=None)
    if kind is AnswerKind.CHOICE:
        letter = read_choice(answer, problem.metadata[CHOICES])
        return Ruling(is_correct=letter == problem.answer, extracted=letter)
    if kind is AnswerKind.WORD:
        word = word_answer(answer, tuple(problem.metadata[WORDS]))
        return Ruling(is_correct=word == problem.answer, extracted=word)
    if kind is AnswerKind.CODE:
        return answer
    extracted = _family_answer(answer) if kind is AnswerKind.FAMILY else mathematical_answer(answer)
    return Ruling(is_correct=False, extracted=None) if extracted is None else extracted


def rule_on(problems: Sequence[Problem], answers: Sequence[str | None], *, check: CheckMany) -> list[Ruling]:
    """On answers that have been taken out of their texts; None: there was none."""
    verdicts = check_found(check, problems, answers)
    return [_ruled(verdict, read=read) for verdict, read in zip(verdicts, answers, strict=True)]


def _ruled(verdict: Verdict | None, *, read: str | None) -> Ruling:
    if verdict is None:
        return Ruling(is_correct=False, extracted=None)
    extracted = verdict.extracted if verdict.extracted is not None else read
    return Ruling(is_correct=verdict.is_correct, extracted=extracted, error=verdict.error)


def _family_answer(answer: str) -> str | None:
    """Marked, or else a whole answer of one line."""
    marked = marked_answer(answer)
    if marked is not None:
        return marked
    lines = answer.strip().splitlines()
    return lines[0] if len(lines) == 1 else mathematical_answer(answer)


def _by_instructions(problem: Problem, answer: str) -> Ruling:
    followed = judge_instructions(problem, answer)
    return Ruling(
        is_correct=all(followed.strict),
        extracted=f"{sum(followed.strict)} of {len(followed.strict)} followed" if answer.strip() else None,
        details=followed.to_dict(),
    )
