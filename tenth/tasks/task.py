"""What a task is: problems, worked solutions, exact checkers, and splits that never share a question.

Why: pre-training, reinforcement and evaluation all draw from the same families, so the split must follow
from the question itself (its content hash), not from a seed that two callers could choose alike.
In:  a family (tasks/generated/), a split, levels, a seed.
Out: distinct `Problem` records, `WorkedSolution` records, the score that a constant guess would earn.
Not here: the families themselves (generated/), rewards over model text (rewards.py).
"""

import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from tenth.base.errors import ConfigError
from tenth.base.files import text_hash
from tenth.base.records import Problem, Record, Verdict
from tenth.base.seeds import stream_random

TRAIN_PERCENT, DEV_PERCENT = 80, 10  # the rest is test
BASELINE_DRAWS = 2000  # a share of 10 % is then known to +-1.3 points
PATIENCE_DRAWS = 5000  # draws without a new question before a family counts as exhausted


class Work(StrEnum):
    """How a worked solution goes: a web corpus holds all three kinds."""

    CLEAN = "clean"
    MISTAKE = "mistake"  # one step goes wrong, nobody notices, the answer is wrong
    CORRECTED = "corrected"  # one step goes wrong, is noticed and redone


class Split(StrEnum):
    """Who may see a question."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkedSolution(Record):
    """A solution as a document would show it, without any tags."""

    thinking: str  # one step per line; the last line contains the answer
    answer: str


class Family(Protocol):
    """A procedural source of problems with an exact checker."""

    name: str
    language: str
    levels: tuple[int, int]  # lowest and highest, both included

    def make(self, rng: random.Random, *, level: int) -> Problem:
        """A random problem of that level."""
        ...

    def work(self, problem: Problem, rng: random.Random, *, kind: Work) -> WorkedSolution:
        """A solution step by step, of the kind asked for."""
        ...

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """Judge the text of an answer. Never raises, never evaluates the text."""
        ...

    def chance(self, problem: Problem) -> float:
        """The share that blind guessing among the possible answers earns; 0 where they are too many."""
        ...


def problem(
    task: str,
    prompt: str,
    answer: str,
    *,
    level: int = 0,
    language: str = "en",
    metadata: Mapping[str, Any] | None = None,
) -> Problem:
    """A `Problem` named by its content, so the same question is the same problem everywhere."""
    return Problem(
        problem_id=text_hash(task, prompt),
        task=task,
        prompt=prompt,
        answer=answer,
        level=level,
        language=language,
        metadata=metadata or {},
    )


def split_of(problem_id: str) -> Split:
    """The one split a question belongs to, from its content alone: about 80 % train, 10 % dev, 10 % test."""
    bucket = int(text_hash("split", problem_id), 16) % 100
    if bucket < TRAIN_PERCENT:
        return Split.TRAIN
    return Split.DEV if bucket < TRAIN_PERCENT + DEV_PERCENT else Split.TEST


def sample_problems(
    family: Family, *, levels: Sequence[int], split: Split, count: int, seed: int
) -> list[Problem]:
    """`count` distinct problems of that split, the levels taken in turn, the same for the same seed."""
    if not levels:
        raise ConfigError(f"task '{family.name}': no levels given; name at least one of {_span(family)}.")
    rng = stream_random(seed, "problems", family.name, split)
    found: dict[str, Problem] = {}
    idle_draws = 0
    while len(found) < count:
        drawn = family.make(rng, level=levels[len(found) % len(levels)])
        if split_of(drawn.problem_id) is split and drawn.problem_id not in found:
            found[drawn.problem_id] = drawn
            idle_draws = 0
        elif (idle_draws := idle_draws + 1) >= PATIENCE_DRAWS:
            raise ConfigError(
                f"task '{family.name}' has no more than about {len(found)} distinct {split} problems at "
                f"levels {list(levels)}, but {count} were asked for; ask for fewer or add higher levels."
            )
    return list(found.values())


def guess_baseline(family: Family, *, levels: Sequence[int], split: Split, seed: int) -> float:
    """What an answerer earns who never reads the question: the best constant answer or blind chance.

    Estimated over a large sample in which questions may repeat, as they do for a small family.
    """
    rng = stream_random(seed, "guess", family.name, split)
    sample: list[Problem] = []
    for draw in range(BASELINE_DRAWS * 20):
        drawn = family.make(rng, level=levels[draw % len(levels)])
        if split_of(drawn.problem_id) is split:
            sample.append(drawn)
        if len(sample) == BASELINE_DRAWS:
            break
    if not sample:
        return 0.0
    favourites = [answer for answer, _ in Counter(item.answer for item in sample).most_common(3)]
    constant = max(
        sum(family.check(item, answer).is_correct for item in sample) / len(sample) for answer in favourites
    )
    return max(constant, statistics.fmean(family.chance(item) for item in sample))


def require_level(family: Family, level: int) -> None:
    """Refuse a level that the family does not have."""
    if not family.levels[0] <= level <= family.levels[1]:
        raise ConfigError(f"task '{family.name}' has no level {level}; choose one of {_span(family)}.")


def _span(family: Family) -> str:
    return f"{family.levels[0]}..{family.levels[1]}"
