"""Files that are whole or not there: atomic writes, content hashes, JSON lines.

Why: a run may be killed at any moment; readers must see the old file or the new one, never half of one.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tenth.base.errors import DataError, RunError

MAX_LINE_BYTES = 64 << 20  # of a JSON line; the longest, a step's rollouts of a large model, has a hundredth


def open_ordinary(path: Path) -> BinaryIO:
    """Open somebody's file to read its bytes; an OSError for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, no file", str(path))
    return path.open("rb")


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never half of either."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what stopped the writing may stop the tidying too
            partial.unlink(missing_ok=True)
        raise RunError(
            f"could not write {path}: {error.strerror or error}; free some space or choose another directory."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """`value` as indented UTF-8 JSON, written whole."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode())


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """JSON lines, written whole."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def parse_json(data: str | bytes) -> Any:
    """The value of a JSON text; a ValueError for whatever is none, too deep, or holds half a character."""
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # a lone surrogate passes for text until somebody has to encode it
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("too many brackets inside each other") from error
    return value


def read_json(path: Path) -> Any:
    """The JSON value in `path`; a DataError that names the file when it is not JSON."""
    try:
        with open_ordinary(path) as file:
            return parse_json(file.read())
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path.") from error
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check the path.") from error
    except ValueError as error:  # a number of 5000 digits is a plain one
        raise DataError(f"{path} is not valid JSON ({error}); delete it or restore it.") from error


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each non-blank JSON line; a DataError names file and line."""
    try:
        with open_ordinary(path) as file:
            yield from parse_lines(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), source=path)
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check the path.") from error


def parse_lines(lines: Iterable[bytes], *, source: Path) -> Iterator[tuple[int, Any]]:
    """`read_lines` for lines that are already in memory."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{source}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB; shorten it.")
        try:
            value = parse_json(line)
        except ValueError as error:
            raise DataError(
                f"{source}, line {number}: not valid JSON ({error}); mend or remove the line."
            ) from error
        yield number, value


def text_hash(*parts: str) -> str:
    """Sixteen hex digits that name a piece of text by its content."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()


def file_hash(path: Path) -> str:
    """Sixteen hex digits that name a file by its bytes."""
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sample_hash(path: Path) -> str:
    """Sixteen hex digits from a file's size and 64 pieces of it, evenly spread: quick for any size.

    Weights that were trained on differ nearly everywhere; a change of a few bytes can go unseen.
    """
    num_bytes = path.stat().st_size
    digest = hashlib.blake2b(str(num_bytes).encode(), digest_size=8)
    with path.open("rb") as file:
        for piece in range(64):
            file.seek(num_bytes * piece // 64)
            digest.update(file.read(1 << 12))
    return digest.hexdigest()
