"""Dollars that may be spent: reserved before a request, settled after it, and never forgotten.

Why: many requests are on their way at once, in several processes, and any of them may be killed. Each must
have its worst case put aside before it leaves, or together they cost more than was allowed.
In:  the most that a request can cost; then what it did cost.
Out: BudgetExceeded, when even the worst case of those on their way leaves no room.
A journal beside the cache holds one line for each reservation and each settlement, under the kernel's lock.
What was never settled (a kill, a lost answer) counts in full: the provider may have written it.
Not here: prices (settings.py).
"""

import contextlib
import fcntl
import json
import math
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tenth.base.errors import BudgetExceeded, RunError

JOURNAL = "spent.jsonl"
_UNITS = 10**12  # of a dollar; a token costs some 100,000 of them


class Budget:
    """The money of one directory. Safe for threads, tasks and other processes."""

    def __init__(self, directory: Path, *, limit_usd: float | None) -> None:
        self.path = directory / JOURNAL
        self._limit_usd = limit_usd
        self._counted = 0  # units, settled or not
        self._open: dict[str, int] = {}  # of those, by reservation that is not settled
        self._ours: set[str] = set()  # reservations of this process on their way
        self._read_bytes = 0
        self._thread_lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        """Everything so far; what is on its way counts with its worst case."""
        with self._journal():
            return self._counted / _UNITS

    def reserve(self, most_usd: float) -> str | None:
        """Put the worst case aside; its name, or None: wait until another one of ours is settled."""
        with self._journal() as file:
            if self._limit_usd is not None and self._counted + _units(most_usd) > _units(self._limit_usd):
                if self._ours:
                    return None
                raise BudgetExceeded(
                    f"the budget of ${self._limit_usd:.6g} leaves no room: ${self._counted / _UNITS:.6g} is "
                    f"spent and the next answer may cost up to ${most_usd:.6g}; every reply that was paid "
                    f"for stays in {self.path.parent}, so raise the budget and ask again."
                )
            name = uuid.uuid4().hex
            self._append(file, name, most_usd)
            self._ours.add(name)
            return name

    def settle(self, name: str, usd: float) -> None:
        """What a reservation came to: 0 for a request that was refused."""
        with self._journal() as file:
            self._append(file, name, usd)
            self._ours.discard(name)

    def leave(self, name: str) -> None:
        """Nobody knows what became of it: it counts in full."""
        with self._thread_lock:
            self._ours.discard(name)

    @contextlib.contextmanager
    def _journal(self) -> Iterator[BinaryIO]:
        """The journal, locked and read to its end."""
        with self._thread_lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    self._catch_up(file)
                    yield file
            except OSError as error:
                raise RunError(
                    f"could not write {self.path}: {error.strerror or error}; free some space or choose "
                    "another directory for the replies."
                ) from error

    def _catch_up(self, file: BinaryIO) -> None:
        file.seek(0, os.SEEK_END)
        if file.tell() < self._read_bytes:  # somebody replaced it
            self._counted, self._open, self._read_bytes = 0, {}, 0
        file.seek(self._read_bytes)
        for line in file:
            if not line.endswith(b"\n"):  # torn by a kill, before its request left: it gets a line's end
                file.write(b"\n")
                self._read_bytes += 1
            self._read_bytes += len(line)
            self._count(line)

    def _count(self, line: bytes) -> None:
        """A name's first line is its reservation, the second what it came to."""
        try:
            row = json.loads(line)
            name, units = str(row["id"]), _units(float(row["usd"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return
        if units < 0:
            return
        if name in self._open:
            self._counted += units - self._open.pop(name)
        else:
            self._counted += units
            self._open[name] = units

    def _append(self, file: BinaryIO, name: str, usd: float) -> None:
        line = json.dumps({"id": name, "usd": usd}).encode() + b"\n"
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
        self._count(line)
        self._read_bytes += len(line)


def _units(usd: float) -> int:
    """Integers, so that a million small sums add up exactly; rounded up."""
    return math.ceil(usd * _UNITS)
