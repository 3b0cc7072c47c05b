"""Blocks of the prefix cache on disk: what memory has no room for is found again, also after a restart.

Why: reading a block is much cheaper than computing its 64 tokens anew.
In/out: names of blocks (prefix.py) and their bytes.
Not here: which block goes to disk and when (cold_blocks.py), what its bytes mean (runner.py).

A block is one file, `directory/model/name.block`: a digest, then the data. Files appear whole, under their
name only when complete, and nothing that is read is believed without its digest. So processes may share a
directory, anything in it may be damaged or vanish at any moment, and all that can happen is a miss.
"""

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from tenth.base.errors import ConfigError

_FORMAT = b"tenth, spilled blocks, 1"  # to be changed with the meaning of a block's bytes
_DIGEST_BYTES = 16
_QUEUE_BYTES = 1 << 26  # waiting to be written; more is dropped
_SLACK = 16  # this part of the limit is freed at once, so that the directory is seldom listed
_MODEL = re.compile(r"[0-9a-f]{32}")
_BLOCK = re.compile(r"([0-9a-f]{32})\.block(\.[0-9a-f]{16}\.partial)?")  # never touch what is not ours


class SpillStore:
    """Blocks of one model; `salt` names its weights and the layout of a block. The limit is the directory's,
    all models together. Writing is done by a thread that lives only while there is something to write."""

    def __init__(self, directory: Path, *, salt: bytes, block_bytes: int, limit_bytes: int) -> None:
        self.directory, self.block_bytes, self.limit_bytes = directory, block_bytes, limit_bytes
        self.file_bytes = _DIGEST_BYTES + block_bytes
        if limit_bytes < self.file_bytes:
            raise ConfigError(
                f"spill_bytes = {limit_bytes}, but one spilled block needs {self.file_bytes}; raise it."
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"spill_dir {directory} cannot be made ({error.strerror}); choose another directory."
            ) from error
        self.problem: str | None = None  # why nothing is written any more
        self.num_stored = self.num_loaded = self.num_dropped = 0
        self._changed = threading.Condition()  # guards the rest
        self._queue: dict[bytes, bytes] = {}  # what waits to be written, found meanwhile
        self._sound: set[bytes] = set()  # what this process has written or read; others may be damaged
        self._touched: dict[bytes, int] = {}  # times of use that the files do not have yet, the latest last
        self._worker: threading.Thread | None = None
        self._queue_blocks = max(1, _QUEUE_BYTES // block_bytes)
        self._room = 0  # bytes that may be written before the directory is listed again
        self._tick = 0
        self.use(salt)

    def use(self, salt: bytes) -> None:
        """From now on the blocks of these weights; what waited to be written is dropped."""
        self.salt = salt
        model = blake2b(_FORMAT + self.block_bytes.to_bytes(8, "big") + salt, digest_size=16).hexdigest()
        with self._changed:
            self._queue.clear()
            self._touched.clear()
            self._folder = self.directory / model
            self._index = set(_names(self._folder))
            self._sound.clear()

    def has(self, name: bytes) -> bool:
        """Whether `get` may find it. Asks no disk."""
        return name in self._queue or name in self._index  # in this order: it moves from one to the other

    def put(self, name: bytes, data: bytes) -> None:
        """Keep a block; one known to be there counts as used. Never waits, never fails: see `problem`."""
        if len(data) != self.block_bytes:
            raise ValueError(f"a block has {self.block_bytes} bytes, not {len(data)}")
        with self._changed:
            if name in self._queue or name in self._sound:
                self.touch(name)
            elif self.problem or len(self._queue) >= self._queue_blocks:
                self.num_dropped += 1
            else:
                self._queue[name] = data
                if self._worker is None:
                    self._start()

    def get(self, name: bytes) -> bytes | None:
        """A block, exactly as it was put. One that is damaged is deleted and forgotten."""
        with self._changed:
            waiting = self._queue.get(name)
            if waiting is not None:
                self.num_loaded += 1
                return waiting
            if name not in self._index:
                return None
        path = _path(self._folder, name)
        with contextlib.suppress(OSError):
            with path.open("rb") as file:
                found = file.read(self.file_bytes + 1)
            data = found[_DIGEST_BYTES:]
            if len(found) == self.file_bytes and found[:_DIGEST_BYTES] == _digest(self._folder, name, data):
                with self._changed:
                    self.touch(name)
                    self._sound.add(name)
                self.num_loaded += 1
                return data
            path.unlink()
        with self._changed:
            self._index.discard(name)
            self._sound.discard(name)
            self._touched.pop(name, None)
        return None

    def touch(self, name: bytes) -> None:
        """It was used just now. The file is told when somebody may want to know."""
        with self._changed:
            self._touched.pop(name, None)
            self._touched[name] = self._now()

    def flush(self) -> None:
        """Wait until everything is written, times of use included."""
        with self._changed:
            self._changed.wait_for(lambda: self._worker is None)
        self._write_touches()

    def close(self) -> None:
        """The same, and nothing is written any more."""
        self.flush()
        self.problem = self.problem or "the store was closed."

    def clear(self) -> None:
        """Delete all blocks of these weights."""
        with self._changed:
            self._queue.clear()
            self._changed.wait_for(lambda: self._worker is None)
            self._touched.clear()
            for name in _names(self._folder):
                with contextlib.suppress(OSError):
                    _path(self._folder, name).unlink()
            self._index.clear()
            self._sound.clear()

    def _start(self) -> None:
        # No daemon: a program that ends without `close` still writes what waits.
        self._worker = threading.Thread(target=self._run, name="tenth-spill")
        try:
            self._worker.start()
        except RuntimeError as error:  # no more threads, or the program is ending
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self.problem = f"spilling to {self.directory} has stopped ({error}); mend it and restart."
            self.num_dropped += len(self._queue)
            self._queue.clear()
            self._end()

    # in the thread

    def _run(self) -> None:
        try:
            while job := self._next_job():
                self._write(*job)
        except Exception as error:  # noqa: BLE001  disk or memory full: answers matter more than their cache
            self._fail(error)

    def _next_job(self) -> tuple[Path, bytes, bytes] | None:
        with self._changed:
            if not self._queue:
                self._end()
                return None
            name, data = next(iter(self._queue.items()))
            return self._folder, name, data

    def _end(self) -> None:
        self._worker = None
        self._changed.notify_all()

    def _write(self, folder: Path, name: bytes, data: bytes) -> None:
        if self._room < self.file_bytes:
            self._make_room()
        path = _path(folder, name)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:  # never synced: the digest tells what a power cut has left
                file.write(_digest(folder, name, data))
                file.write(data)
            with self._changed:
                now = self._now()
            os.utime(partial, ns=(now, now))
            partial.replace(path)
            self._room -= self.file_bytes
            is_there = True
        except FileNotFoundError:  # somebody removes the whole directory at this moment
            is_there = False
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        with self._changed:
            self.num_stored += is_there
            self.num_dropped += not is_there
            if is_there and folder == self._folder:
                self._index.add(name)
                self._sound.add(name)
            self._queue.pop(name, None)

    def _make_room(self) -> None:
        """Remove the files used longest ago, whoever's they are, until there is room for some new ones."""
        self._write_touches()
        spare = max(self.file_bytes, self.limit_bytes // _SLACK)
        files = sorted(_files(self.directory))
        total = sum(size for _, _, size in files)
        for _, path, size in files:
            if total + spare <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            with contextlib.suppress(OSError):  # not empty, mostly
                path.parent.rmdir()
        self._room = spare  # and no more, as others may be writing too
        folder = self._folder
        names = set(_names(folder))  # with what others have written meanwhile
        with self._changed:
            if folder == self._folder:
                self._index = names
                self._sound &= names

    def _write_touches(self) -> None:
        with self._changed:
            folder, touched, self._touched = self._folder, self._touched, {}
        for name, now in touched.items():
            with contextlib.suppress(OSError):  # it has vanished
                os.utime(_path(folder, name), ns=(now, now))

    def _now(self) -> int:
        """The time in nanoseconds, but never the same twice: it puts files into an order."""
        self._tick = max(self._tick + 1, time.time_ns())
        return self._tick


def _digest(folder: Path, name: bytes, data: bytes) -> bytes:
    """Covers model and name too, so that a file moved elsewhere is noticed."""
    digest = blake2b(folder.name.encode() + name, digest_size=_DIGEST_BYTES)
    digest.update(data)
    return digest.digest()


def _path(folder: Path, name: bytes) -> Path:
    return folder / f"{name.hex()}.block"


def _names(folder: Path) -> Iterator[bytes]:
    """All blocks of a model, by their files' names alone."""
    for entry in _listed(folder):
        match = _BLOCK.fullmatch(entry.name)
        if match and not match[2] and entry.is_file(follow_symlinks=False):
            yield bytes.fromhex(match[1])


def _files(directory: Path) -> Iterator[tuple[int, Path, int]]:
    """(time of last use, path, size) of every model's blocks, finished or not."""
    for folder in [Path(entry) for entry in _listed(directory) if _MODEL.fullmatch(entry.name)]:
        for entry in _listed(folder):
            if _BLOCK.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime_ns, Path(entry), facts.st_size


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # vanished, or none of ours
        return []
