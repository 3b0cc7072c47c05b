"""The safetensors files of a model directory, one or many shards, as one lazy source of tensors.

Why: a checkpoint may be many times larger than the memory, so files are mapped, and reading a tensor costs
what its own bytes cost. The header is a few names and offsets, but strangers write it: all that can be wrong
with it is found when the directory is opened, not in the middle of a load.
Format: 8 bytes with the header's length, little-endian; the header, JSON from names to {dtype, shape,
data_offsets}; the numbers (github.com/huggingface/safetensors). Shards: `model.safetensors.index.json` says
which file holds which name.
In:  a directory.  Out: a `TensorSource`; tensors are views of the mapped files.
Files that we wrote carry checksums of their tensors, which `is_checked` compares as tensors are read.
Not here: what the names mean (names.py), FP8 blocks (block_fp8.py), writing (sharded_writer.py).
"""

import math
import mmap
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.checkpoint.json_file import parse_object, read_object
from tenth.checkpoint.tensor_source import TensorInfo

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHECKSUMS = "crc32"  # our key in a header's metadata: 8 hexadecimal digits per tensor, in file order
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER_BYTES = 16 << 20  # DeepSeek-R1's largest header has a few hundred thousand
_MAX_INDEX_BYTES = 64 << 20  # DeepSeek-R1's index has nine million
_MAX_DIMENSIONS = 8
_READ_AHEAD_BYTES = 32 << 20  # asked for beyond a tensor's end: the next one is then under way
_ASK_BYTES = 128 << 10  # at a time: of more, Linux reads the device's window only, by default no larger
_LINUX_MAP_NORESERVE = 0x4000  # of <sys/mman.h>: no memory is set aside for pages that nobody will write


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a tensor's bytes are."""

    info: TensorInfo
    begin: int  # in the file
    end: int


@dataclass(slots=True)
class _Shard:
    """One file: what its header says, and its mapping once something was read."""

    path: Path
    places: Mapping[str, _Place]  # in file order
    checksums: Mapping[str, int]  # empty where another tool wrote the file
    mapping: mmap.mmap | None = None
    asked_for: range = field(default_factory=lambda: range(0))  # bytes that the system was told of

    def read(self, name: str, *, is_checked: bool) -> Tensor:
        place = self.places[name]
        if place.begin == place.end:
            return torch.empty(place.info.shape, dtype=place.info.dtype)
        mapping = self._mapped(place)
        data = torch.frombuffer(mapping, dtype=torch.uint8, count=place.end - place.begin, offset=place.begin)
        if is_checked and name in self.checksums:
            found = zlib.crc32(memoryview(mapping)[place.begin : place.end])
            if found != self.checksums[name]:
                raise CheckpointError(
                    f"{self.path} is damaged: the {len(data):,} bytes of {shown(name)} are not the ones that "
                    "were written; restore the file, or make it again."
                )
        # Numbers at odd addresses are copied: vector code may round them in another order.
        aligned = data if data.data_ptr() % place.info.dtype.itemsize == 0 else data.clone()
        return aligned.view(place.info.dtype).view(place.info.shape)

    def _mapped(self, place: _Place) -> mmap.mmap:
        if self.mapping is None:
            self.mapping = _map(self.path)
        self._ask_for(place, self.mapping)
        return self.mapping

    def _ask_for(self, place: _Place, mapping: mmap.mmap) -> None:
        """Have the system read a tensor and what follows it; page faults alone would wait for the disk."""
        asked, is_known = self.asked_for, place.begin in self.asked_for
        if is_known and asked.stop >= min(place.end + _READ_AHEAD_BYTES // 2, len(mapping)):
            return
        start = asked.stop if is_known else place.begin - place.begin % mmap.PAGESIZE
        stop = place.end + _READ_AHEAD_BYTES
        stop = min(stop - stop % mmap.PAGESIZE, len(mapping))
        for position in range(start, stop, _ASK_BYTES):
            mapping.madvise(mmap.MADV_WILLNEED, position, min(_ASK_BYTES, stop - position))
        self.asked_for = range(asked.start if is_known else start, stop)


class SafetensorsDir:
    """A `TensorSource` over the one file `single`, or over the shards that the index names."""

    def __init__(self, directory: Path, *, single: str = SINGLE, is_checked: bool = False) -> None:
        self._is_checked = is_checked
        self._shards: dict[str, _Shard] = {}  # by the name of a tensor
        for shard in _open_shards(directory, single):
            for name in shard.places:
                if name in self._shards:
                    raise CheckpointError(
                        f"{directory}: {shown(name)} is in {self._shards[name].path.name} and in "
                        f"{shard.path.name}; remove the file that does not belong."
                    )
                self._shards[name] = shard

    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in file order."""
        return {name: shard.places[name].info for name, shard in self._shards.items()}

    def read(self, name: str) -> Tensor:
        """A view of the mapped file."""
        return self._shards[name].read(name, is_checked=self._is_checked)


def shown(name: str) -> str:
    """A name out of a stranger's file, fit for a sentence."""
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}..."


def _open_shards(directory: Path, single: str) -> list[_Shard]:
    if (directory / single).exists():
        return [_open_shard(directory / single, directory)]
    if not (directory / INDEX).exists():
        raise CheckpointError(
            f"{directory} holds no weights: neither {single} nor {INDEX} is there; finish the download, or "
            "name another directory."
        )
    by_file = _read_index(directory / INDEX)
    shards = []
    for file_name in sorted(by_file):
        shard = _open_shard(directory / file_name, directory)
        missing = [name for name in by_file[file_name] if name not in shard.places]
        unknown = [name for name in shard.places if name not in by_file[file_name]]
        if missing or unknown:
            raise CheckpointError(
                f"{shard.path} and {INDEX} disagree: {len(missing)} tensors are missing from the file (first "
                f"{_first(missing)}), {len(unknown)} are missing from the index (first {_first(unknown)}); "
                "download both again."
            )
        shards.append(shard)
    return shards


def _first(names: list[str]) -> str:
    return ", ".join(shown(name) for name in names[:2]) or "none"


def _read_index(path: Path) -> dict[str, set[str]]:
    """Names by the file that holds them."""
    weight_map = read_object(path, max_bytes=_MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} is damaged: it has no weight_map; download it again.")
    by_file: dict[str, set[str]] = {}
    for name, file_name in weight_map.items():
        is_plain = isinstance(file_name, str) and file_name == Path(file_name).name
        if not is_plain or not file_name.endswith(".safetensors") or "\0" in file_name:
            raise CheckpointError(
                f"{path} says that {shown(name)} is in {shown(str(file_name))}, which is no safetensors file "
                "of this directory; download the index again from a source you trust."
            )
        by_file.setdefault(file_name, set()).add(name)
    return by_file


def _open_shard(path: Path, directory: Path) -> _Shard:
    """Read and check the header."""
    try:
        require_inside(path, directory)
        if not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path} is missing, or no file; finish the download, or restore it.")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} is no safetensors file, or a cut-off one: it has {size:,} bytes and announces a "
                    f"header of {length:,}; download it again."
                )
            header = file.read(length)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise CheckpointError(f"could not read {path}: {error}; restore it.") from error
    values = parse_object(header, source=f"the header of {path}")
    metadata = values.pop("__metadata__", None)
    places = {name: _place(name, value, path=path, start=8 + length) for name, value in values.items()}
    places = dict(sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)))
    _require_tiling(places, path=path, start=8 + length, size=size)
    return _Shard(path=path, places=places, checksums=_checksums(metadata, places))


def require_inside(path: Path, directory: Path) -> None:
    """Links may lead to a file beside them or, as in Hugging Face's cache, to `../../blobs`; nowhere else."""
    home = directory.resolve()
    if path.resolve().parent not in (home, home.parents[min(1, len(home.parents) - 1)] / "blobs"):
        raise CheckpointError(
            f"{path} is a link to {path.resolve()}, outside the directory; put the file itself there."
        )


def _place(name: str, value: Any, *, path: Path, start: int) -> _Place:
    """One entry of a header."""
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        is_sound = isinstance(dtype, str) and isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
        is_sound = is_sound and all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        is_sound = False
    if not is_sound:
        raise CheckpointError(
            f"{path} is damaged: its header's entry {shown(name)} is malformed; restore it."
        )
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{path}: {shown(name)} has the type {shown(dtype)}; known types are {', '.join(DTYPES)}."
        )
    info = TensorInfo(dtype=DTYPES[dtype], shape=tuple(shape))
    if end - begin != math.prod(shape) * info.dtype.itemsize:
        raise CheckpointError(
            f"{path} is damaged: {shown(name)}, {dtype} {shape}, is given {end - begin:,} bytes; restore it."
        )
    return _Place(info=info, begin=start + begin, end=start + end)


def _require_tiling(places: Mapping[str, _Place], *, path: Path, start: int, size: int) -> None:
    """See that tensors follow each other without overlap or gap, up to the file's end."""
    position = start
    for name, place in places.items():
        if place.begin != position:
            raise CheckpointError(
                f"{path} is damaged: {shown(name)} begins at byte {place.begin:,} where the tensor before it "
                f"ends at {position:,}; restore it."
            )
        position = place.end
    if position != size:
        raise CheckpointError(
            f"{path} is {'cut off' if size < position else 'damaged'}: its header tells of {position:,} "
            f"bytes and it has {size:,}; download it again."
        )


def _checksums(metadata: Any, places: Mapping[str, _Place]) -> dict[str, int]:
    text = metadata.get(CHECKSUMS) if isinstance(metadata, dict) else None
    if not isinstance(text, str) or len(text) != 8 * len(places):
        return {}
    try:
        return {name: int(text[8 * i : 8 * i + 8], 16) for i, name in enumerate(places)}
    except ValueError:
        return {}


def _map(path: Path) -> mmap.mmap:
    """Private and writable, though nobody writes: torch takes no other, and no page is ever copied."""
    flags = mmap.MAP_PRIVATE | (_LINUX_MAP_NORESERVE if sys.platform == "linux" else 0)
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"could not map {path} into memory ({error}); restore it.") from error
