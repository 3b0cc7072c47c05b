"""The objects in a data file, with the place each one came from: .jsonl, .json, either of them gzipped.

Why: every reader of this room must name file and line when something is wrong, so the place travels with
the row.
Not here: what a row means (corpus.py, conversations.py).
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tenth.base.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object of a file; `place` is what an error message calls it."""

    place: str
    values: Mapping[str, Any]

    def error(self, problem: str) -> DataError:
        """A sentence about this row."""
        return DataError(f"{self.place}: {problem}")


def require_file(path: Path) -> Path:
    """The path, when it is a file."""
    if not path.is_file():
        raise DataError(f"{path} is not a file; correct the path or put the data there.")
    return path


def read_rows(path: Path) -> Iterator[Row]:
    """Every object of a .jsonl file (one a line) or a .json file (one array)."""
    if path.name.removesuffix(".gz").endswith(".json"):
        yield from _array_rows(path)
        return
    for number, line in read_text_lines(path):
        if line.strip():
            place = f"{path}, line {number}"
            yield Row(place=place, values=_mapping(_parsed(line, place=place), place=place))


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line with its newline) of a UTF-8 file, gzipped or not."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file.") from error
    except (zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{path}: unreadable behind line {number} ({error}); fetch or pack it again."
        ) from error


def _open(path: Path) -> IO[bytes]:
    require_file(path)
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _array_rows(path: Path) -> Iterator[Row]:
    items = _parsed("".join(line for _, line in read_text_lines(path)), place=str(path))
    if not isinstance(items, list):
        raise DataError(
            f"{path}: a .json file must hold an array of objects; for one object a line use .jsonl."
        )
    for number, item in enumerate(items, start=1):
        place = f"{path}, item {number}"
        yield Row(place=place, values=_mapping(item, place=place))


def _parsed(text: str, *, place: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{place}: not valid JSON ({error}); mend or remove it.") from error


def _mapping(value: Any, *, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: holds a {type(value).__name__}, not an object with named fields; mend it.")
    return value
