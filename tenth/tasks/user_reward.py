"""A user's own reward: a Python function with TRL's signature, named `file.py:function`.

Why: people have such functions already. TRL calls them with keywords `prompts`, `completions`,
`completion_ids`, one list per dataset column, `trainer_state`, `log_extra` and `log_metric`, and takes back
one float or None per completion; `async def` is allowed. The same function works here unchanged: a column
has the name and the value that it has in the file.
In:  the spec; then problems and sampled texts. Out: one float or None (no opinion) each.
Not here: weights (rewards.py), the process that may be killed (base/deadline.py).
"""

import asyncio
import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenth.base.deadline import Worker
from tenth.base.errors import ConfigError, VerifierError
from tenth.base.records import Problem

DEADLINE_SECONDS = 60.0  # per batch, not per completion
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_OWN = ("task", "level", "language", "problem_id")  # of a Problem, where the file has no such column
_CALL = "tenth.tasks.user_reward:call"


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    """Stands for TRL's log_extra and log_metric."""


_SILENT = {"trainer_state": None, "log_extra": _ignore, "log_metric": _ignore}
_GIVEN = (*_SILENT, "prompts", "completions", "completion_ids")


class _Unusable(Exception):  # noqa: N818  a complaint about the user's file
    """Nothing that can be called as a reward."""


def text_of(completion: "str | Sequence[Mapping[str, str]]") -> str:
    """The text of a completion, whether it came as a string or as a list of messages.

    >>> text_of([{"role": "assistant", "content": "42"}])
    '42'
    """
    if isinstance(completion, str):
        return completion
    return "".join(message["content"] for message in completion if message["role"] == "assistant")


class UserReward:
    """A `BatchReward` that calls the user's function in a process of its own, with a deadline per batch.

    `columns` are those of the whole file, where they are known: what the function wants beyond them is
    refused at once, and where no row of a batch has one of them, its values are None.
    """

    def __init__(
        self, spec: str, *, deadline_seconds: float = DEADLINE_SECONDS, columns: Collection[str] = ()
    ) -> None:
        path, separator, function = spec.rpartition(":")
        if not separator or not function.isidentifier():
            raise ConfigError(f"reward '{spec}' is not file.py:function; write it like rewards.py:my_reward.")
        if not Path(path).is_file():
            raise ConfigError(f"reward '{spec}': the file {path} does not exist; check the path.")
        self.name = function
        self._spec = f"{Path(path).resolve()}:{function}"
        self._columns, self._wanted = columns, frozenset[str]()
        self._worker = Worker(_CALL, deadline_seconds=deadline_seconds, is_trusted=True)
        try:
            loaded = self._call(None)
            if "complaint" in loaded:
                raise VerifierError(f"{loaded['complaint']}.")
            self._wanted = frozenset(loaded["wanted"])
            if columns:
                self._require(columns)
        except VerifierError as error:
            self._worker.close()
            raise ConfigError(f"reward '{spec}' cannot be used: {error}") from error

    def score(
        self, problems: Sequence[Problem], texts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """One reward per completion."""
        if not texts:
            return []
        absent: dict[str, list[Any]] = {name: [None] * len(texts) for name in self._columns}
        arguments = absent | reward_arguments(problems, texts, completion_ids)
        self._require(arguments)
        return _floats(self._call(arguments), count=len(texts))

    def _require(self, columns: Collection[str]) -> None:
        missing = sorted(self._wanted - {*columns, *_GIVEN})
        if missing:
            raise VerifierError(
                f"no column of the problems is called '{missing[0]}'; there are {', '.join(columns)}."
            )

    def _call(self, arguments: dict[str, list[Any]] | None) -> Any:
        try:
            return self._worker.call(self._spec, arguments)
        except VerifierError as error:  # whose function it was is known; that it ran in `call` helps nobody
            raise VerifierError(str(error).replace(_CALL, "it", 1)) from error

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def reward_arguments(
    problems: Sequence[Problem], texts: Sequence[str], completion_ids: Sequence[Sequence[int]]
) -> dict[str, list[Any]]:
    """TRL's keywords: problems that came as messages get message completions, the others strings."""
    is_chat = any("messages" in problem.metadata for problem in problems)
    columns = {name: [_value(problem, name) for problem in problems] for name in column_names(problems)}
    prompts: list[Any] = [problem.prompt for problem in problems]
    completions: list[Any] = list(texts)
    if is_chat:
        prompts = [
            problem.metadata.get("messages", [{"role": "user", "content": problem.prompt}])
            for problem in problems
        ]
        completions = [[{"role": "assistant", "content": text}] for text in texts]
    return columns | {
        "prompts": prompts,
        "completions": completions,
        "completion_ids": [list(ids) for ids in completion_ids],
    }


def column_names(problems: Sequence[Problem]) -> list[str]:
    """What a reward may name: the columns of the file, then what every problem has."""
    columns = dict.fromkeys(name for problem in problems for name in problem.metadata if name != "messages")
    has_answers = any(problem.answer for problem in problems)
    return list(columns | dict.fromkeys((*(("answer",) if has_answers else ()), *_OWN)))


def _value(problem: Problem, name: str) -> Any:
    """As the row has it; a problem of ours, or a row without it, has what the record says."""
    value = problem.metadata.get(name)
    return getattr(problem, name) if value is None and name in ("answer", *_OWN) else value


def call(spec: str, arguments: dict[str, list[Any]] | None) -> Any:
    """Runs in the worker. Without arguments it only loads the function, and says what it wants or lacks."""
    if arguments is None:
        try:
            parameters = inspect.signature(_load(spec)).parameters
        except _Unusable as error:
            return {"complaint": str(error)}
        return {
            "wanted": [
                name
                for name, parameter in parameters.items()
                if parameter.default is parameter.empty and parameter.kind not in _REST
            ]
        }
    result = _load(spec)(**(arguments | _SILENT))
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    return list(result)


@functools.cache
def _load(spec: str) -> Callable[..., Any]:
    path, _, name = spec.rpartition(":")
    module_spec = importlib.util.spec_from_file_location("user_reward_file", path)
    if module_spec is None or module_spec.loader is None:
        raise _Unusable(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise _Unusable(f"{path} has no function '{name}'")
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        raise _Unusable(
            f"'{name}' is called with more keywords than it names: add **kwargs to its parameters"
        )
    return function


def _floats(values: list[Any], *, count: int) -> list[float | None]:
    if len(values) != count:
        raise VerifierError(f"it returned {len(values)} values for {count} completions.")
    for value in values:
        if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
            raise VerifierError(f"it returned {value!r}; only finite numbers and None are rewards.")
    return [None if value is None else float(value) for value in values]
