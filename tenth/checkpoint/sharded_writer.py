"""Tensors written one after another into the safetensors files of a Hugging Face directory.

Why: a model that is converted or saved may be larger than the memory, so what is handed over is on its way to
the disk at once, although a file's header, which comes first, is known last: a file of more than a few
megabytes begins with room for it, which the format allows to be blank.
In:  tensors by Hugging Face name, in any order, each name once.
Out: `model.safetensors`, or shards of at most `max_shard_bytes` and their index, once `finish` was called.
Each file keeps a checksum of every tensor in its metadata, which readers of other tools ignore.
Not here: leaving nothing behind when the disk is full (`whole_directory` around this), config.json.
"""

import json
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from tenth.base.files import write_json
from tenth.checkpoint.safetensors_dir import CHECKSUMS, DTYPES, INDEX, SINGLE

MAX_SHARD_BYTES = 5_000_000_000
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SLAB = 1 << 24  # numbers that are cast at once: an embedding of V3's, cast whole, would take gigabytes
_HELD_BYTES = 64 << 20  # up to here a shard waits in memory for its header, and gets one that fits
_HEADER_ROOM = 1 << 20  # set aside in a larger shard: some six thousand tensors


class _Shard:
    """One file under way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, object]] = {}
        self.num_bytes = 0
        self._checksums: list[str] = []
        self._header_bytes = 100  # of the entries so far, rather too many
        self._held: list[bytes] = []
        self._file: BinaryIO | None = None

    def has_room_for(self, name: str) -> bool:
        return self._header_bytes + 6 * len(name) + 200 < _HEADER_ROOM

    def add(self, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
        begin, checksum = self.num_bytes, 0
        for numbers in tensor.detach().reshape(-1).split(_SLAB):
            data = numbers.to("cpu", dtype).contiguous().view(torch.uint8).numpy().data
            checksum = zlib.crc32(data, checksum)
            self.num_bytes += len(data)
            if self._file is None and self.num_bytes <= _HELD_BYTES:
                self._held.append(bytes(data))
            else:
                self._opened(_HEADER_ROOM).write(data)
        self.entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, self.num_bytes],
        }
        self._header_bytes += len(json.dumps({name: self.entries[name]})) + 10
        self._checksums.append(f"{checksum:08x}")

    def close(self) -> None:
        """Write what was held, and the header."""
        metadata = {"format": "pt", CHECKSUMS: "".join(self._checksums)}
        header = json.dumps({"__metadata__": metadata, **self.entries}, separators=(",", ":")).encode()
        room = _HEADER_ROOM if self._file else len(header) + -len(header) % 8
        file = self._opened(room)
        file.seek(0)
        file.write(room.to_bytes(8, "little") + header.ljust(room))
        file.close()

    def _opened(self, room: int) -> BinaryIO:
        if self._file is None:
            self._file = self.path.open("wb")
            self._file.seek(8 + room)
            self._file.writelines(self._held)
            self._held.clear()
        return self._file


class HfWriter:
    """Writes into a directory that is there; a `finish` ends it."""

    def __init__(self, directory: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._directory, self._max_shard_bytes = directory, max_shard_bytes
        self._shards = [self._new_shard(0)]

    def add(self, name: str, tensor: Tensor, *, dtype: torch.dtype | None = None) -> None:
        """Write a tensor, as `dtype` if that is given; it may change afterwards."""
        dtype, shard = dtype or tensor.dtype, self._shards[-1]
        num_bytes = tensor.numel() * dtype.itemsize
        is_full = shard.num_bytes + num_bytes > self._max_shard_bytes or not shard.has_room_for(name)
        if shard.entries and is_full:
            shard.close()
            shard = self._new_shard(len(self._shards))
            self._shards.append(shard)
        shard.add(name, tensor, dtype)

    def finish(self) -> None:
        """Give the shards their names, and write the index where there are several."""
        self._shards[-1].close()
        if len(self._shards) == 1:
            self._shards[0].path.rename(self._directory / SINGLE)
            return
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(self._shards, start=1):
            final = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            shard.path.rename(self._directory / final)
            weight_map |= dict.fromkeys(shard.entries, final)
        total = sum(shard.num_bytes for shard in self._shards)
        write_json(self._directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})

    def _new_shard(self, number: int) -> _Shard:
        return _Shard(self._directory / f"shard-{number:05d}.unfinished")
