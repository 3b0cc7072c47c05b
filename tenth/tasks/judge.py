"""Which checker judges which problem: our families', reasoning-gym's, multiple choice, instructions, code, or
math-verify for everything else; which part of a text it reads, and how R1 writes that part down.

Why: a batch may mix problems of all kinds, and whoever scores it should not need to know.
In:  problems and what a model wrote. Out: the text of an answer; Verdicts, programs judged side by side.
Not here: the checkers, the shapes (shape.py).
"""

from collections.abc import Callable, Sequence
from typing import Self

from tenth.base.records import Problem, Verdict
from tenth.tasks.answer_text import behind_thinking
from tenth.tasks.check_code import CodeChecker, extract_code, is_code, write_code
from tenth.tasks.check_math import MathChecker
from tenth.tasks.choice import check_choice, is_choice
from tenth.tasks.generated import FAMILIES
from tenth.tasks.ifeval.check import INSTRUCTIONS, check_instructions
from tenth.tasks.reasoning_gym import TASK_PREFIX, GymChecker
from tenth.tasks.shape import AnswerShape, extract_answer, write_summary


def is_whole(problem: Problem) -> bool:
    """Whether an answer is all that is said behind the thinking: a program, a reply under instructions."""
    return is_code(problem) or INSTRUCTIONS in problem.metadata


def answer_of(problem: Problem, text: str, *, shape: AnswerShape) -> str | None:
    """What the problem's checker reads: the one answer in its shape.

    A program or a reply under instructions fits into no box: of those it reads all behind the thinking, or
    what stands between answer tags.
    """
    if not is_whole(problem):
        return shape.extract(text)
    tagged = extract_answer(text)
    return behind_thinking(text) if tagged is None else tagged


def summary_of(problem: Problem, answer: str) -> str:
    """What stands behind R1's thinking: a sentence with the answer in its box, or what fits into none."""
    if is_code(problem):
        return write_code(extract_code(answer) or "")
    return answer if is_whole(problem) else write_summary(answer, language=problem.language)


class Judge:
    """One `check` for all problems. Worker processes start only when a problem needs them."""

    def __init__(self, *, code: CodeChecker | None = None) -> None:
        self._math = MathChecker()
        self._gym = GymChecker()
        self._code = code or CodeChecker()

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """One answer."""
        return self._checker_of(problem)(problem, answer_text)

    def check_many(self, problems: Sequence[Problem], answer_texts: Sequence[str]) -> list[Verdict]:
        """The i-th answer to the i-th problem. Programs that never end are late together, not in turn."""
        pairs = [
            (self._checker_of(problem), problem, text)
            for problem, text in zip(problems, answer_texts, strict=True)
        ]
        programs = [(problem, text) for check, problem, text in pairs if check == self._code.check]
        ran = iter(self._code.check_many(*zip(*programs, strict=True)) if programs else ())
        return [
            next(ran) if check == self._code.check else check(problem, text) for check, problem, text in pairs
        ]

    def _checker_of(self, problem: Problem) -> Callable[[Problem, str], Verdict]:
        """By the problem's task, or by the columns that make it multiple choice, instructions or code."""
        if problem.task in FAMILIES:
            return FAMILIES[problem.task].check
        if problem.task.startswith(TASK_PREFIX):
            return self._gym.check
        if INSTRUCTIONS in problem.metadata:
            return check_instructions
        if is_choice(problem):
            return check_choice
        return self._code.check if is_code(problem) else self._math.check

    def close(self) -> None:
        """End the workers."""
        self._math.close()
        self._gym.close()
        self._code.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
