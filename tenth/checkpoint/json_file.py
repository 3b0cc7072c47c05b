"""JSON that somebody else wrote, read within bounds.

Why: the keys of a checkpoint come from strangers, and a small file can ask for much: nesting without end,
one name twice, numbers of a million digits.
In:  a file or its bytes, and how many bytes are too many.
Out: the object, or one sentence that names the file.
Not here: what the keys mean; our own files (base/files.py).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tenth.base.errors import CheckpointError
from tenth.base.files import open_ordinary

MAX_CONFIG_BYTES = 16 << 20


def read_object(path: Path, *, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in `path`."""
    try:
        with open_ordinary(path) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}; restore it.") from error
    if len(data) > max_bytes:
        raise CheckpointError(
            f"{path} is larger than {max_bytes:,} bytes, which no such file is; restore it."
        )
    return parse_object(data, source=str(path))


def parse_object(data: bytes, *, source: str) -> dict[str, Any]:
    """The JSON object in `data`; `source` is how an error calls it."""
    try:
        values = json.loads(data.decode(), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, too deep, a number too long
        reason = str(error)[:100]
        raise CheckpointError(f"{source} is damaged: it is not valid JSON ({reason}); restore it.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{source} is damaged: it holds no JSON object; restore it.")
    return values


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Two tools could read two things out of one file whose names come twice."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the name {name[:40]!r} comes twice")
        values[name] = value
    return values
