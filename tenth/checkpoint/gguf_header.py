"""The header of a GGUF file: its keys, and where which tensor lies; every size checked before it is believed.

Why: a GGUF file comes from anybody. Its counts, lengths, offsets and alignment are what somebody wrote, so
each is compared with the bytes that are left, and with a bound, before anything is allocated for it.
In:  a file. Out: `GgufHeader`: plain Python values by key, and a `GgufTensor` by name.
Layout (ggml's docs/gguf.md): magic, version, two counts, keys, tensor table, padding, data; little-endian;
shapes written from the innermost dimension outward, here turned round into the order of torch.
Not here: what the keys mean (gguf_config.py, gguf_vocabulary.py), the numbers (gguf_blocks.py).
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.errors import CheckpointError
from tenth.checkpoint.gguf_blocks import block_of, type_name

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT, _MAX_ALIGNMENT = 32, 1 << 16
_MAX_HEADER_BYTES = 1 << 28  # keys and table; a vocabulary of a million tokens takes a tenth
_MAX_ELEMENTS = 1 << 22  # of all arrays together
_MAX_TENSORS, _MAX_KEYS = 1 << 17, 1 << 16
_MAX_NAME_BYTES, _MAX_DIMS = 256, 4
_SMALLEST_KEY, _SMALLEST_TENSOR = 13, 33  # bytes
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """One row of the tensor table."""

    type_id: int  # ggml's number of the type
    shape: tuple[int, ...]  # as torch has it: rows first, the innermost dimension last
    offset: int  # from the start of the file
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Everything before the numbers."""

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_header(path: Path) -> GgufHeader:
    """Parse and check. A CheckpointError says what is wrong where."""
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise CheckpointError(f"{path} is no GGUF file: it does not begin so; check the path.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Parser(path, data).header()
    except OSError as error:
        raise CheckpointError(
            f"could not read {path} ({error.strerror or error}); check the path."
        ) from error


class _Parser:
    """A cursor over the file that never passes the end of what a header may be."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._at, self._end = len(_MAGIC), min(len(data), _MAX_HEADER_BYTES)
        self._elements = 0

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            hint = "it is big-endian" if version & 0xFFFF == 0 else f"version {version}"
            raise self._refusal(f"{hint}, and versions 2 and 3 in little-endian are read; convert it again")
        num_tensors, num_keys = self._count(_SMALLEST_TENSOR), self._count(_SMALLEST_KEY)
        if num_tensors > _MAX_TENSORS or num_keys > _MAX_KEYS:
            raise self._refusal(f"it announces {num_tensors:,} tensors and {num_keys:,} keys")
        values: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string("a key", limit=1 << 16)
            if key in values:
                raise self._refusal(f"the key '{key}' stands there twice")
            values[key] = self._value(self._number("I"), key=key)
        rows = [self._row() for _ in range(num_tensors)]
        start = _padded(self._at, self._alignment(values))
        tensors = {name: self._placed(name, row, start, self._alignment(values)) for name, row in rows}
        if len(tensors) != len(rows):
            raise self._refusal("two tensors have the same name")
        return GgufHeader(path=self._path, values=values, tensors=tensors)

    def _alignment(self, values: Mapping[str, Any]) -> int:
        alignment = values.get("general.alignment", _ALIGNMENT)
        is_power = isinstance(alignment, int) and alignment > 0 and alignment & (alignment - 1) == 0
        if not is_power or not 8 <= alignment <= _MAX_ALIGNMENT:
            raise self._refusal(f"its alignment is {alignment!r}, which should be a power of two from 8 up")
        return int(alignment)

    def _row(self) -> tuple[str, GgufTensor]:
        """A row as it stands; its offset still counts from the start of the numbers."""
        name = self._string("the name of a tensor", limit=_MAX_NAME_BYTES)
        num_dims = self._number("I")
        if not 1 <= num_dims <= _MAX_DIMS:
            raise self._refusal(f"tensor '{name}' has {num_dims} dimensions and not 1 to {_MAX_DIMS}")
        shape = tuple(reversed([self._number("Q") for _ in range(num_dims)]))
        type_id, offset = self._number("I"), self._number("Q")
        block = block_of(type_id)
        if 0 in shape:
            raise self._refusal(f"tensor '{name}' of shape {shape} holds nothing")
        if shape[-1] % block.length:
            raise self._refusal(
                f"tensor '{name}' of type {type_name(type_id)} has rows of {shape[-1]}, which is no "
                f"multiple of {block.length}"
            )
        num_bytes = math.prod(shape) // block.length * block.num_bytes
        return name, GgufTensor(type_id=type_id, shape=shape, offset=offset, num_bytes=num_bytes)

    def _placed(self, name: str, row: GgufTensor, start: int, alignment: int) -> GgufTensor:
        if row.offset % alignment:
            raise self._refusal(f"tensor '{name}' begins at {row.offset}, no multiple of {alignment}")
        offset = start + row.offset
        if offset + row.num_bytes > len(self._data):
            raise self._refusal(
                f"tensor '{name}' ends at byte {offset + row.num_bytes:,} and the file at {len(self._data):,}"
            )
        return GgufTensor(type_id=row.type_id, shape=row.shape, offset=offset, num_bytes=row.num_bytes)

    def _value(self, kind: int, *, key: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string(f"the value of '{key}'", limit=_MAX_HEADER_BYTES)
        if kind != _ARRAY:
            raise self._refusal(f"the key '{key}' is of a type {kind} that GGUF does not have")
        kind = self._number("I")
        if kind not in _SCALARS and kind != _STRING:
            raise self._refusal(f"the key '{key}' holds an array of type {kind}, which is not read")
        code = _SCALARS.get(kind)
        length = self._count(struct.calcsize(f"<{code}") if code else 8)
        self._elements += length
        if self._elements > _MAX_ELEMENTS:
            raise self._refusal(f"its arrays hold more than {_MAX_ELEMENTS:,} values")
        if code is None:
            return [self._string(f"an entry of '{key}'", limit=1 << 16) for _ in range(length)]
        return list(struct.unpack(f"<{length}{code}", self._take(length * struct.calcsize(f"<{code}"))))

    def _string(self, what: str, *, limit: int) -> str:
        length = self._number("Q")
        if length > limit:
            raise self._refusal(f"{what} is {length:,} bytes long")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._refusal(f"{what} is no UTF-8 ({error})") from error

    def _count(self, smallest: int) -> int:
        """A number of things of at least `smallest` bytes each."""
        count = self._number("Q")
        if count * smallest > self._end - self._at:
            raise self._refusal(f"it announces {count:,} entries, more than its bytes can hold")
        return count

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _take(self, num_bytes: int) -> bytes:
        if num_bytes > self._end - self._at:
            raise self._refusal(
                "its header is cut off" if self._end == len(self._data) else "its header is too long"
            )
        self._at += num_bytes
        return self._data[self._at - num_bytes : self._at]

    def _refusal(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is damaged: {what}; fetch or convert it again.")


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
