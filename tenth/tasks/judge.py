"""Which checker judges which problem: our families', reasoning-gym's, multiple choice, instructions, code, or
math-verify for everything else; and which part of a text it reads.

Why: a batch may mix problems of all kinds, and whoever scores it should not need to know.
In:  a problem and what a model wrote. Out: the text of its answer; a Verdict.
Not here: the checkers, the shapes (shape.py).
"""

from typing import Self

from tenth.base.records import Problem, Verdict
from tenth.tasks.answer_text import behind_thinking
from tenth.tasks.check_code import CodeChecker, is_code
from tenth.tasks.check_math import MathChecker
from tenth.tasks.choice import check_choice, is_choice
from tenth.tasks.generated import FAMILIES
from tenth.tasks.ifeval.check import INSTRUCTIONS, check_instructions
from tenth.tasks.reasoning_gym import TASK_PREFIX, GymChecker
from tenth.tasks.shape import AnswerShape, extract_answer


def answer_of(problem: Problem, text: str, *, shape: AnswerShape) -> str | None:
    """What the problem's checker reads: the one answer in its shape.

    A program or a reply under instructions fits into no box: of those it reads all behind the thinking, or
    what stands between answer tags.
    """
    if not is_code(problem) and INSTRUCTIONS not in problem.metadata:
        return shape.extract(text)
    tagged = extract_answer(text)
    return behind_thinking(text) if tagged is None else tagged


class Judge:
    """One `check` for all problems. Worker processes start only when a problem needs them."""

    def __init__(self) -> None:
        self._math = MathChecker()
        self._gym = GymChecker()
        self._code = CodeChecker()

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """Judge by the problem's task, or by the columns that make it multiple choice or instructions."""
        if problem.task in FAMILIES:
            return FAMILIES[problem.task].check(problem, answer_text)
        if problem.task.startswith(TASK_PREFIX):
            return self._gym.check(problem, answer_text)
        if INSTRUCTIONS in problem.metadata:
            return check_instructions(problem, answer_text)
        if is_choice(problem):
            return check_choice(problem, answer_text)
        if is_code(problem):
            return self._code.check(problem, answer_text)
        return self._math.check(problem, answer_text)

    def close(self) -> None:
        """End the workers."""
        self._math.close()
        self._gym.close()
        self._code.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
