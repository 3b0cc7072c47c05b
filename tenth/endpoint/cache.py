"""Replies on disk, one file each, so that nothing is paid for twice.

Why: a run of a day is killed and continued, and is asked for again with one filter changed.
In:  what identifies an answer: place, model, messages, parameters, number of the sample.
Out: the `Reply` that was paid for, or None. A damaged entry is None, too: it is asked for again.
A key is held by one process or task at a time (the kernel's lock, which dies with its holder), so that two
who want the same answer pay once. Not here: the money (budget.py).
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenth.base.errors import RunError
from tenth.base.files import write_whole
from tenth.base.records import AskParams, Finish, Message, Reply, Usage


def reply_key(place: str, model: str, messages: Sequence[Message], params: AskParams, *, sample: int) -> str:
    """32 hex digits. `n` is no part of it: who asks for more samples keeps the first ones."""
    drawn = params.to_dict() | {"n": None}
    said = [[str(each.role), each.content] for each in messages]
    text = json.dumps([place, model, said, drawn, sample], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class ReplyCache:
    """A directory of replies. Safe for any number of processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, key: str) -> Path:
        """The file of a reply, there or not."""
        return self.directory / key[:2] / f"{key}.json"

    def get(self, key: str) -> Reply | None:
        """The reply, if it is there and whole."""
        try:
            entry = json.loads(self.path(key).read_bytes())
            is_whole = entry["key"] == key and entry["sum"] == _sum(entry["reply"])
            return _to_reply(entry["reply"]) if is_whole else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: str, reply: Reply, *, request: Mapping[str, Any]) -> None:
        """Keep it, and beside it what was asked, for a person who looks."""
        row = dataclasses.asdict(reply)
        entry = {"key": key, "sum": _sum(row), "reply": row, "request": request}
        write_whole(self.path(key), (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="replace"))

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """Whether this key is ours for as long as the block lasts; False where somebody else has it."""
        path = self.path(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("wb")
        except OSError as error:
            raise RunError(
                f"could not write in {path.parent}: {error.strerror or error}; choose another directory for "
                "the replies."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if not _is_at(file.fileno(), path):  # its last holder removed it while we opened it
                yield False
                return
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sum(row: Any) -> str:
    return hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).hexdigest()


def _to_reply(row: Mapping[str, Any]) -> Reply:
    return Reply(**{**row, "finish": Finish(row["finish"]), "usage": Usage(**row["usage"])})
