"""The reasoning-gym library's hundred tasks, as an optional extra (`pip install tenth[gym]`).

Why: more procedural problems, ready made. Two things have to be kept from it. Several of its scorers run
what the model wrote (`eval`), and one hangs on 9**9**9: so scoring happens only in a process that is killed
when late. And item i of seed s is item i-1 of seed s+1: so a split follows from the question's hash.
In:  a task name and its configuration. Out: `Problem` records and Verdicts; partial credit counts as wrong.
Not here: our own families (generated/).
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from tenth.base.deadline import Worker
from tenth.base.errors import ConfigError, VerifierError
from tenth.base.records import Problem, Verdict
from tenth.base.seeds import stream_seed
from tenth.tasks.answers import tidy
from tenth.tasks.task import Split, problem, split_of

TASK_PREFIX = "reasoning_gym/"
DEADLINE_SECONDS = 10.0
DRAWS_PER_PROBLEM = 100  # a tenth of the questions is in a test split; the rest is patience


def gym_problems(
    name: str, *, split: Split, count: int, seed: int, config: Mapping[str, Any] | None = None
) -> list[Problem]:
    """`count` distinct problems of a split; ConfigError when the configuration cannot give that many."""
    settings = dict(config or {})
    base_seed = stream_seed(seed, "reasoning_gym", name, split) % 2**30  # far from the other splits' seeds
    size = count * DRAWS_PER_PROBLEM
    dataset = _dataset(name, base_seed, size, json.dumps(settings, sort_keys=True))
    found: dict[str, Problem] = {}
    for index in range(size):
        entry = dataset[index]
        origin = {"name": name, "seed": base_seed, "size": size, "index": index, "config": settings}
        answer = entry["answer"] or entry["metadata"].get("example_answer") or ""
        made = problem(TASK_PREFIX + name, entry["question"], str(answer), metadata={"reasoning_gym": origin})
        if split_of(made.problem_id) is split:
            found.setdefault(made.problem_id, made)
        if len(found) == count:
            return list(found.values())
    raise ConfigError(
        f"reasoning-gym task '{name}' gave {len(found)} distinct {split} problems in {size} draws, but "
        f"{count} were asked for; ask for fewer or configure a larger range."
    )


class GymChecker:
    """Judges answers with the library's own scorers; owns one worker process."""

    def __init__(self, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._worker = Worker(
            "tenth.tasks.reasoning_gym:score",
            prepare="tenth.tasks.reasoning_gym:warm_up",
            deadline_seconds=deadline_seconds,
        )

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """Correct means a full score."""
        origin = problem.metadata.get("reasoning_gym")
        if origin is None:
            raise ConfigError(f"problem {problem.problem_id} of '{problem.task}' is not from reasoning-gym.")
        answer = answer_text.strip() if tidy(answer_text) is None else tidy(answer_text)
        try:
            score = self._worker.call(dict(origin), problem.prompt, answer)
        except VerifierError as error:
            return Verdict(is_correct=False, extracted=answer, error=str(error))
        return Verdict(is_correct=score >= 1.0, extracted=answer)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def score(origin: dict[str, Any], question: str, answer: str) -> float:
    """Runs in the worker: the library's score. This may execute `answer`."""
    config = json.dumps(origin["config"], sort_keys=True)
    dataset = _dataset(origin["name"], origin["seed"], origin["size"], config)
    entry = dataset[origin["index"]]
    if entry["question"] != question:  # another version of the library, or a generator that is not seeded
        raise ValueError("the library no longer makes this question from its seed")
    return float(dataset.score_answer(answer, entry))


def warm_up() -> None:
    """Runs in the worker before its first call: the import takes seconds."""
    _library()


def _library() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError("this task needs reasoning-gym; run pip install tenth[gym].") from error
    return reasoning_gym


@functools.cache
def _dataset(name: str, seed: int, size: int, config: str) -> Any:
    try:
        return _library().create_dataset(name, seed=seed, size=size, **json.loads(config))
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"reasoning-gym cannot make '{name}' with {config}: {error}; see its docs."
        ) from error
