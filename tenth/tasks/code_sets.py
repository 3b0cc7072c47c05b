"""HumanEval and MBPP as problems: a question for the model, tests for the judge.

In:  the files as published: HumanEval (arXiv:2107.03374, section 2.2), MBPP (arXiv:2108.07732, section 3.1).
Out: `Problem` records of the tasks code/humaneval and code/mbpp; `answer` is the reference solution.
Not here: running anything (check_code.py).
"""

import ast
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.files import read_lines
from tenth.base.records import Problem
from tenth.tasks.check_code import MAX_CODE_CHARS, TASK_PREFIX
from tenth.tasks.task import problem as make_problem

HUMANEVAL = TASK_PREFIX + "humaneval"
MBPP = TASK_PREFIX + "mbpp"


_HUMANEVAL_NAMES = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_MBPP_NAMES = ("task_id", "text", "code", "test_list", "test_setup_code")


def read_humaneval(path: Path) -> list[Problem]:
    """Complete a function from its signature and description; one `check` calls it many times."""
    return [_humaneval(row) for row in _rows(path, names=_HUMANEVAL_NAMES)]


def read_mbpp(path: Path) -> list[Problem]:
    """Write a function from one sentence and three asserts, which the paper's prompt shows, too."""
    return [_mbpp(row) for row in _rows(path, names=_MBPP_NAMES)]


def code_problem(row: Mapping[str, Any], *, where: str) -> Problem | None:
    """A row of either set, known by its columns; None: of something else."""
    for names, read in ((_HUMANEVAL_NAMES, _humaneval), (_MBPP_NAMES, _mbpp)):
        if all(name in row for name in names):
            return read(_checked(row, names=names, where=where))
    return None


def _humaneval(row: Mapping[str, Any]) -> Problem:
    prompt, name = row["prompt"], row["entry_point"]
    question = (
        "Complete this Python function. Answer with the whole function in one ```python block.\n\n"
        f"```python\n{prompt.strip()}\n```"
    )
    task = {
        "prelude": prompt,  # a body alone continues it, a whole function replaces what it defines
        "entry_point": name,
        "setup": f"{prompt}\n    pass\n{row['test']}",
        "tests": [f"check({name})"],
    }
    return _problem(HUMANEVAL, question, row["canonical_solution"], task, row)


def _mbpp(row: Mapping[str, Any]) -> Problem:
    tests = [test.strip() for test in row["test_list"]]
    question = (
        f"{row['text'].strip()} Answer with Python code in one ```python block. "
        "It has to pass these tests:\n\n```python\n" + "\n".join(tests) + "\n```"
    )
    name = _entry_point(row["code"], tests[0], where=f"MBPP task {str(row['task_id'])[:40]!r}")
    task = {"entry_point": name, "setup": row["test_setup_code"], "tests": tests}
    return _problem(MBPP, question, row["code"].replace("\r\n", "\n"), task, row)


def _problem(
    name: str, question: str, solution: str, task: Mapping[str, Any], row: Mapping[str, Any]
) -> Problem:
    return make_problem(name, question, solution, metadata={"code": dict(task), "task_id": row["task_id"]})


def _entry_point(code: str, test: str, *, where: str) -> str:
    """The function that the reference solution defines and the test calls."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes in strings that are not ours
            defined = {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
            called = [node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # too deep is any of the last two
        raise DataError(f"{where} holds a program or a test that is no Python ({error}).") from error
    name = next((name for name in called if name in defined), None)
    if name is None:
        raise DataError(f"{where}: its first test calls no function of its reference solution.")
    return name


def _rows(path: Path, *, names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    for number, row in read_lines(path):
        yield _checked(row, names=names, where=f"{path}, line {number}")


def _checked(row: Any, *, names: tuple[str, ...], where: str) -> Mapping[str, Any]:
    for name in names:
        if not isinstance(row, Mapping) or name not in row:
            raise DataError(f"{where}: no '{name}'; is this another data set?")
        value = row[name]
        texts = value if name == "test_list" and value else [value]
        if name != "task_id" and not (
            isinstance(texts, list) and all(isinstance(each, str) for each in texts)
        ):
            raise DataError(f"{where}: '{name}' is {str(value)[:40]!r}, where text belongs.")
        if name != "task_id" and sum(map(len, texts)) > MAX_CODE_CHARS:
            raise DataError(f"{where}: '{name}' is longer than {MAX_CODE_CHARS:,} characters; shorten it.")
    return row
