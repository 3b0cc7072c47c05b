"""What a suite is: a published file of test questions, how its answers look, how it asks for them.

Why: seventeen files in fifteen formats become one kind of thing, a list of `Problem`s, so that measuring a
model knows none of them.
In:  a file as its authors publish it.
Out: `Problem` records; a DataError names file and line of what cannot be read.
Not here: which suites there are (table.py), their rows (rows.py), judging (judging.py).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.files import read_json, read_lines
from tenth.base.records import Problem

Row = Mapping[str, Any]
MAX_TEXT_CHARS = 200_000  # of one field; no test question is a tenth as long
MAX_TEXTS = 10  # options have letters from A to J
_TOO_LARGE = 1e300


class AnswerKind(StrEnum):
    """How a suite's answers are read and compared."""

    NUMBER = "number"  # compared by value
    MATH = "math"  # any expression, by math-verify
    CHOICE = "choice"  # a letter
    WORD = "word"  # one of a few words
    CODE = "code"  # a program that has to pass tests
    INSTRUCTIONS = "instructions"  # IFEval's
    FAMILY = "family"  # a run's own problems, by their family's checker
    CONTINUATION = "continuation"  # the next word, by likelihood: only for a model in this process
    OPTIONS = "options"  # the likeliest option, by likelihood: only for a model in this process


BY_LIKELIHOOD = (AnswerKind.CONTINUATION, AnswerKind.OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One row of the table of suites."""

    name: str
    files: str  # a glob pattern under the data directory, so that whole and shortened copies are found
    kind: AnswerKind
    read: Callable[[Path, str], list[Problem]]  # a file and the suite's name -> its problems
    language: str = "en"
    examples: str | None = None  # a file of solved questions for few-shot prompts


class RowError(ValueError):
    """What is wrong with a row; whoever reads the file adds its name and line."""


def read_suite(suite: Suite, data_dir: Path) -> list[Problem]:
    """Every question of a suite, in the order of its files; one that is there twice is asked once."""
    by_id: dict[str, Problem] = {}
    for path in find_files(suite.files, data_dir, name=suite.name):
        for problem in suite.read(path, suite.name):
            by_id.setdefault(problem.problem_id, problem)
    if not by_id:
        raise DataError(f"suite '{suite.name}' has no questions in {data_dir / suite.files}; get it again.")
    return list(by_id.values())


def by_row(read_row: Callable[[Row, str], Problem]) -> Callable[[Path, str], list[Problem]]:
    """A reader of files from one of rows."""

    def read(path: Path, suite: str) -> list[Problem]:
        problems = []
        for where, row in _rows(path):
            try:
                problems.append(read_row(row, suite))
            except RowError as error:
                raise DataError(f"{where}: {error}; mend or remove it.") from error
        return problems

    return read


def find_files(pattern: str, data_dir: Path, *, name: str) -> list[Path]:
    """The files of a suite, sorted."""
    if not data_dir.is_dir():
        raise DataError(
            f"the data directory {data_dir} does not exist; name the one that holds {pattern} with --data."
        )
    found = sorted(path for path in data_dir.glob(pattern) if path.is_file())
    if not found:
        raise DataError(
            f"suite '{name}' needs {pattern} in {data_dir}, which has none; put it there or name --data."
        )
    return found


def text_of(row: Row, name: str) -> str:
    """A column that has to hold text."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"'{name}' is {_shown(value)}, where a text belongs")
    if len(value) > MAX_TEXT_CHARS:
        raise RowError(f"'{name}' has {len(value):,} characters, more than {MAX_TEXT_CHARS:,}")
    return value


def texts_of(row: Row, name: str) -> list[str]:
    """A column that has to hold several texts."""
    value = row.get(name)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(each, str) for each in value):
        raise RowError(f"'{name}' is {_shown(value)}, where a list of texts belongs")
    if len(value) > MAX_TEXTS or sum(map(len, value)) > MAX_TEXT_CHARS:
        raise RowError(f"'{name}' has more than {MAX_TEXTS} texts or {MAX_TEXT_CHARS:,} characters")
    return value


def number_of(row: Row, name: str) -> str:
    """A column that has to hold a number, as text."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _TOO_LARGE:
        raise RowError(f"'{name}' is {_shown(value)}, where a number belongs")
    return f"{value:.15g}"


def index_of(row: Row, name: str, *, among: Sequence[str]) -> int:
    """A column that has to hold the place of one of several options."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(among):
        raise RowError(f"'{name}' is {_shown(value)}, where a number from 0 to {len(among) - 1} belongs")
    return value


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(file and line, row); BIG-bench's files hold all rows in one JSON object."""
    if path.suffix == ".json":
        whole = read_json(path)
        rows = whole.get("examples") if isinstance(whole, Mapping) else None
        if not isinstance(rows, list):
            raise DataError(f"{path} has no list 'examples'; get the file again.")
        numbered: Iterator[tuple[int, Any]] = enumerate(rows, start=1)
        unit = "example"
    else:
        numbered, unit = read_lines(path), "line"
    for number, row in numbered:
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, {unit} {number}: expected an object, found {json.dumps(row)[:60]}.")
        yield f"{path}, {unit} {number}", row
