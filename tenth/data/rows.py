"""The objects in a data file, with the place each one came from: .jsonl, .json (also .gz), .parquet.

Why: every reader of this room must name file and line when something is wrong, so the place travels with
the row. The files are strangers': a line, an array and what a gzipped file unfolds to have limits.
Not here: what a row means (corpus.py, conversations.py).
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tenth.base.errors import DataError
from tenth.base.files import parse_json

MAX_LINE_BYTES = 16 << 20  # of one line; the longest novel has 3 MB
MAX_ARRAY_BYTES = 64 << 20  # of a .json file, which has to be read at once
MAX_EXPANSION = 100  # gzip makes text 3 to 30 times smaller; a small file may unfold to MAX_LINE_BYTES
_PARQUET_ROWS = 1000  # read at a time


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
    """Every object of a .jsonl file (one a line), a .json file (one array) or a .parquet file."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    if path.name.removesuffix(".gz").endswith(".json"):
        yield from _array_rows(path)
        return
    for number, line in read_text_lines(path):
        if line.strip():
            place = f"{path}, line {number}"
            yield row_of(line, place=place)


def row_of(text: str | bytes, *, place: str) -> Row:
    """The object that a line holds."""
    return Row(place=place, values=_mapping(_parsed(text, place=place), place=place))


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line with its newline) of a UTF-8 file, gzipped or not."""
    for number, line in read_byte_lines(path):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file."
            ) from error


def read_byte_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The same before it is text."""
    number, num_bytes = 0, 0
    try:
        with require_file(path).open("rb") as packed, _unfolded(path, packed) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number, num_bytes = number + 1, num_bytes + len(line)
                _require_bounded(path, number, len(line), num_bytes=num_bytes, packed_bytes=packed.tell())
                yield number, line
    except (zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{path}: unreadable behind line {number} ({error}); fetch or pack it again."
        ) from error


def _require_bounded(path: Path, number: int, line_bytes: int, *, num_bytes: int, packed_bytes: int) -> None:
    if line_bytes > MAX_LINE_BYTES:
        raise DataError(
            f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB; "
            "put one object or paragraph on a line."
        )
    if num_bytes > max(MAX_LINE_BYTES, packed_bytes * MAX_EXPANSION):
        raise DataError(
            f"{path}: unfolds to more than {MAX_EXPANSION} times its size, which no text does; "
            "unpack and look at it, then name the unpacked file."
        )


def _unfolded(path: Path, packed: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if path.name.endswith(".gz") else packed


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"reading {path} needs pyarrow; run pip install tenth[parquet].") from error
    try:
        batches = parquet.ParquetFile(require_file(path)).iter_batches(batch_size=_PARQUET_ROWS)
        items = (item for batch in batches for item in batch.to_pylist())
        for number, item in enumerate(items, start=1):
            yield Row(place=f"{path}, row {number}", values=item)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({error}); write it again or use JSONL."
        ) from error


def _array_rows(path: Path) -> Iterator[Row]:
    items = read_json_file(path)
    if not isinstance(items, list):
        raise DataError(
            f"{path}: a .json file must hold an array of objects; for one object a line use .jsonl."
        )
    for number, item in enumerate(items, start=1):
        place = f"{path}, item {number}"
        yield Row(place=place, values=_mapping(item, place=place))


def read_json_file(path: Path) -> Any:
    """The value in a .json file."""
    return _parsed(_whole_text(path), place=str(path))


def _whole_text(path: Path) -> str:
    """Of a .json file, one line of which may be as long as the file."""
    try:
        with require_file(path).open("rb") as packed, _unfolded(path, packed) as file:
            data = file.read(MAX_ARRAY_BYTES + 1)
        if len(data) > MAX_ARRAY_BYTES:
            raise DataError(
                f"{path}: larger than {MAX_ARRAY_BYTES >> 20} MiB, and an array must be read at once; "
                "write one object a line as .jsonl."
            )
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); convert the file.") from error
    except (zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path}: unreadable ({error}); fetch or pack it again.") from error


def _parsed(text: str | bytes, *, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}); mend or remove it.") from error


def _mapping(value: Any, *, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: holds a {type(value).__name__}, not an object with named fields; mend it.")
    return value
