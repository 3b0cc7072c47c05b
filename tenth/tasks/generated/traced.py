"""The frame of every generated family: draw a prompt, solve it step by step, check an answer.

Why: a family should say only three things: what its questions look like (`draw`), how one works them
out (`solve`), and how an answer reads (`read`). Slips and corrections are then the same for all: `solve`
passes every step through a `Steps` recorder, which writes the line down and, at one chosen step, takes
the wrong value instead.
In:  a prompt. Out: lines of working and an answer.
Not here: any particular family.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from tenth.base.records import Problem, Verdict
from tenth.tasks.task import Work, WorkedSolution, problem, require_level

WAIT = {"en": "wait, ", "zh": "等等，"}
SLIP_ATTEMPTS = 500  # some slips cancel out; one in a few never does, so this is ample

T = TypeVar("T")


class Steps:
    """Records working, one line per step, and slips at one step when told to."""

    def __init__(
        self,
        rng: random.Random,
        *,
        slip_at: int | None = None,
        is_noticed: bool = False,
        wait: str = "wait, ",
    ) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self.taken = 0  # steps that could have gone wrong
        self._slip_at = slip_at
        self._is_noticed = is_noticed
        self._wait = wait

    @property
    def has_slipped(self) -> bool:
        """True when the chosen step has been passed."""
        return self._slip_at is not None and self.taken > self._slip_at

    def note(self, line: str) -> None:
        """A line that only copies and cannot go wrong."""
        self.lines.append(line)

    def take(self, right: T, wrong: T, line: Callable[[T], str]) -> T:
        """One step: write its line and return the value to go on with."""
        self.taken += 1
        if self.taken - 1 != self._slip_at:
            self.lines.append(line(right))
            return right
        self.lines.append(line(wrong))
        if not self._is_noticed:
            return wrong
        self.lines.append(self._wait + line(right))
        return right


class TracedFamily(ABC):
    """A `Family` whose solutions are traces; see `tenth.tasks.task.Family` for the promises."""

    name: str
    language: str = "en"
    levels: tuple[int, int]

    @abstractmethod
    def draw(self, rng: random.Random, level: int) -> str:
        """A random prompt."""

    @abstractmethod
    def solve(self, prompt: str, steps: Steps) -> str:
        """Work the prompt out, passing every step through `steps`; the answer as it is written."""

    @abstractmethod
    def read(self, text: str) -> str | None:
        """The canonical form of an answer's text, None when it is not an answer."""

    def chance(self, problem: Problem) -> float:  # noqa: ARG002  most families have too many answers to guess
        """Blind guessing earns nothing, unless a family says otherwise."""
        return 0.0

    def make(self, rng: random.Random, *, level: int) -> Problem:
        """A random problem of that level; the same for the same state of `rng`."""
        require_level(self, level)
        prompt = self.draw(rng, level)
        answer = self.solve(prompt, Steps(rng))
        return problem(self.name, prompt, answer, level=level, language=self.language)

    def work(self, problem: Problem, rng: random.Random, *, kind: Work) -> WorkedSolution:
        """A solution of that kind. A mistake that would cancel out is drawn again."""
        steps = Steps(rng)
        answer = self.solve(problem.prompt, steps)
        if kind is Work.CLEAN:
            return WorkedSolution(thinking="\n".join(steps.lines), answer=answer)
        num_steps = steps.taken
        for _ in range(SLIP_ATTEMPTS):
            steps = Steps(
                rng,
                slip_at=rng.randrange(num_steps),
                is_noticed=kind is Work.CORRECTED,
                wait=WAIT[self.language],
            )
            answer = self.solve(problem.prompt, steps)
            is_correct = self.check(problem, answer).is_correct
            if steps.has_slipped and is_correct == (kind is Work.CORRECTED):
                return WorkedSolution(thinking="\n".join(steps.lines), answer=answer)
        raise AssertionError(f"{self.name}: no slip changes the answer of {problem.prompt!r}")

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """Compare canonical forms."""
        given = self.read(answer_text)
        return Verdict(is_correct=given is not None and given == self.read(problem.answer), extracted=given)


def near(rng: random.Random, value: int, *, low: int = 0, high: int | None = None) -> int:
    """A number someone could mistake for `value`: off by one, two or ten, inside the bounds."""
    candidates = [
        value + offset
        for offset in (-10, -2, -1, 1, 2, 10)
        if value + offset >= low and (high is None or value + offset <= high)
    ]
    return rng.choice(candidates)


def other(rng: random.Random, value: T, choices: "list[T] | tuple[T, ...]") -> T:
    """One of the choices that is not `value`."""
    return rng.choice([choice for choice in choices if choice != value])
