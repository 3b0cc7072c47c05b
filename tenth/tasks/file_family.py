"""A file of problems as a family, so that reinforcement and measuring take it like any other.

In:  a JSONL or Parquet file (problem_files.py).  Out: a `Family` of one level without worked solutions.
Answers are judged by math-verify. Not here: documents, which only generated families can fill.
"""

import random
from dataclasses import replace
from pathlib import Path

from tenth.base.errors import ConfigError
from tenth.base.records import Problem, Verdict
from tenth.tasks.check_math import MathChecker
from tenth.tasks.problem_files import read_problems
from tenth.tasks.task import Work, WorkedSolution


class FileFamily:
    """The problems of one file; `name` is the file's stem."""

    language = "en"
    levels = (0, 0)

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._problems = [replace(problem, task=self.name, level=0) for problem in read_problems(path)]
        self._checker = MathChecker()

    def make(self, rng: random.Random, *, level: int) -> Problem:
        """Any problem of the file; there is only level 0."""
        del level
        return rng.choice(self._problems)

    def work(self, problem: Problem, rng: random.Random, *, kind: Work) -> WorkedSolution:
        """Refused: a file has answers, not solutions in our form."""
        del rng, kind
        raise ConfigError(
            f"'{problem.task}' is a problem file and cannot fill documents; name a generated family."
        )

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """By mathematical equivalence."""
        return self._checker.check(problem, answer_text)

    def chance(self, problem: Problem) -> float:
        """Unknown, so nothing: the best constant answer is measured instead."""
        del problem
        return 0.0
