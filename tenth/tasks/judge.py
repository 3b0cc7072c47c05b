"""Which checker judges which problem: our families', reasoning-gym's, multiple choice, instructions, or
math-verify for everything else.

Why: a batch may mix problems of all kinds, and whoever scores it should not need to know.
In:  a problem and an answer's text. Out: a Verdict.
Not here: the checkers.
"""

from typing import Self

from tenth.base.records import Problem, Verdict
from tenth.tasks.check_code import TASK_PREFIX as CODE_PREFIX
from tenth.tasks.check_code import CodeChecker
from tenth.tasks.check_math import MathChecker
from tenth.tasks.choice import check_choice, is_choice
from tenth.tasks.generated import FAMILIES
from tenth.tasks.ifeval.check import INSTRUCTIONS, check_instructions
from tenth.tasks.reasoning_gym import TASK_PREFIX, GymChecker


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
        if problem.task.startswith(CODE_PREFIX):
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
