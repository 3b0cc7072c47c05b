"""How a file is damaged: edits as plain data, so that a number, or hypothesis, can stand for each.

Why: damage at random rarely passes the first check of a format; so lengths become the numbers that break
arithmetic, JSON keeps its form and loses its sense, and files become what is no file.
In:  the bytes of a file and a few `Edit`s, or a path and a `Swap`.  Out: other bytes, another thing there.
Not here: which files (fuzz_readers.py), what must come of it (fuzz_child.py).
"""

import json
import os
import random
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

SPECIAL = (
    *(0, 1, 2, 3, 127, 128, 255, 2**16, 2**30, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
TEXTS = (
    *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"-1", b"1e999", b"NaN", b"-Infinity", b"null"),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\0", b"\\ud800", b"../", b"/etc/passwd", b'"', b"\\", b"{}", b"true"),
)
NODES: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2, 3, 2**31, 2**53 + 1, 2**63 - 1, 10**4000, -(2**63), 0.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), "", "../x.safetensors", "/etc/passwd", "a\0b", "\ud800", "\x1b[2J"),
    *("x" * 5000, "cos", "yarn", "llama3", "F32", "F64", "BOOL", [], {}, [[]], [0, -1], [2**62, 2**62]),
    *([0] * 5000, {"a": {}}),
)


class Kind(Enum):
    """What happens to the bytes at a place."""

    FLIP = "a bit turns round"
    BYTES = "others stand there"
    TEXT = "a text comes between"
    OVER = "a text stands in their place"
    NUMBER32 = "a length of four bytes becomes another"
    NUMBER64 = "a length of eight bytes becomes another"
    ZEROS = "zeros come between"
    CUT = "the file ends"
    LESS = "some are gone"
    TWICE = "some stand there twice"
    SWAP = "two stretches change places"
    NODE = "a value of a JSON object is another"
    KEY = "a name of a JSON object is another"


@dataclass(frozen=True, slots=True)
class Edit:
    """`place` is a part of the file's length, `value` is read as the kind needs it."""

    kind: Kind
    place: float  # [0, 1)
    value: int  # from 0


class Swap(Enum):
    """What stands where a file stood."""

    NOTHING = "nothing"
    EMPTY = "an empty file"
    DIRECTORY = "a directory"
    PIPE = "a pipe that nobody writes to"
    ENDLESS = "a link to a device without an end"
    CIRCLE = "a link to itself"
    OUTSIDE = "a link to a file elsewhere"
    OTHER = "another file of the directory"


def random_edits(rng: random.Random) -> list[Edit]:
    """One to three; half of them near the beginning, where the lengths are."""
    return [
        Edit(rng.choice(list(Kind)), rng.random() ** rng.choice((1, 4)), rng.randrange(1 << 30))
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes after all of the edits."""
    for edit in edits:
        data = _edited(data, edit)
    return data


def _edited(data: bytes, edit: Edit) -> bytes:
    at, value = int(edit.place * (len(data) + 1)), edit.value
    match edit.kind:
        case Kind.FLIP:
            at = min(at, max(0, len(data) - 1))
            return data[:at] + bytes(byte ^ 1 << value % 8 for byte in data[at : at + 1]) + data[at + 1 :]
        case Kind.BYTES:
            count = 1 + value % 9
            return data[:at] + random.Random(value).randbytes(count) + data[at + count :]
        case Kind.TEXT | Kind.OVER:
            text = TEXTS[value % len(TEXTS)]
            return data[:at] + text + data[at + (len(text) if edit.kind is Kind.OVER else 0) :]
        case Kind.NUMBER32 | Kind.NUMBER64:
            size = 4 if edit.kind is Kind.NUMBER32 else 8
            number = SPECIAL[value % len(SPECIAL)] % (1 << 8 * size)
            return data[:at] + number.to_bytes(size, "little") + data[at + size :]
        case Kind.NODE | Kind.KEY:
            return _with_another_node(data, edit)
    return _moved(data, edit.kind, at, length=1 + value % 200)


def _moved(data: bytes, kind: Kind, at: int, *, length: int) -> bytes:
    """Stretches come, go or change places."""
    end = at + length
    match kind:
        case Kind.ZEROS:
            return data[:at] + bytes(length if length % 2 else 8) + data[at:]
        case Kind.CUT:
            return data[:at]
        case Kind.LESS:
            return data[:at] + data[end:]
        case Kind.TWICE:
            return data[:at] + data[at:end] + data[at:]
        case Kind.SWAP:
            behind = end + length // 3
            second = data[behind : behind + length]
            return data[:at] + second + data[end:behind] + data[at:end] + data[behind + length :]
    raise AssertionError(kind)


def _with_another_node(data: bytes, edit: Edit) -> bytes:
    """Of a JSON file, or of the header of a safetensors file, whose length is set right again."""
    rest, text = b"", data
    length = int.from_bytes(data[:8], "little")
    is_header = data[8:9] == b"{" and length <= len(data) - 8
    if is_header:
        text, rest = data[8 : 8 + length], data[8 + length :]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _edited(data, Edit(Kind.FLIP, edit.place, edit.value))
    places = list(_places(value))
    if not places:
        return data
    holder, key = places[int(edit.place * len(places))]
    node = NODES[edit.value % len(NODES)]
    if edit.kind is Kind.KEY and isinstance(holder, dict):
        holder[str(node)[:100]] = holder.pop(key)
    else:
        holder[key] = deepcopy(node)
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + rest if is_header else text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value; the outer ones as often as the inner ones of a large object."""
    waiting: list[tuple[Any, Any]] = [(value, key) for key in _keys(value)]
    while waiting:
        holder, key = waiting.pop()
        yield holder, key
        inner = holder[key]
        waiting += [(inner, each) for each in _keys(inner)[:20]]


def _keys(value: Any) -> list[Any]:
    return (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )


def exchange(path: Path, swap: Swap, *, other: Path) -> None:
    """Put something else where a file is."""
    data = path.read_bytes()
    path.unlink()
    match swap:
        case Swap.NOTHING:
            pass
        case Swap.EMPTY:
            path.touch()
        case Swap.DIRECTORY:
            path.mkdir()
        case Swap.PIPE:
            os.mkfifo(path)
        case Swap.ENDLESS:
            path.symlink_to("/dev/zero")
        case Swap.CIRCLE:
            path.symlink_to(path)
        case Swap.OUTSIDE:
            elsewhere = path.parent.parent / "elsewhere"
            elsewhere.write_bytes(data)
            path.symlink_to(elsewhere)
        case Swap.OTHER:
            path.write_bytes(other.read_bytes())
