"""Watch a contained process from outside: read what it writes, and say when it has to be killed.

Why: a limit that the watched process could reach is none. Time and output are counted here, in the host.
In:  a process to wait for, pipes to read, limits.  Out: what was read, and whether it ended by itself.
Not here: limits that the kernel enforces (child.py).
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenth.sandbox.limits import Status

_SLICE_SECONDS = 0.05  # how often files on disk are counted, and how late a deadline may be noticed
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What was seen: OK here means only that the process ended by itself."""

    status: Status
    output: tuple[bytes, ...]  # one per pipe
    seconds: float


def watch(
    pid: int,
    pipes: Sequence[int],
    *,
    wall_seconds: float,
    output_bytes: int,
    is_too_much: Callable[[], bool],
) -> Watched:
    """Until the process ends, is late, or has written too much. The pipes are left open."""
    started = time.monotonic()
    output = {pipe: bytearray() for pipe in pipes}
    ended = os.pidfd_open(pid)
    poll = select.poll()
    for descriptor in (ended, *pipes):
        poll.register(descriptor, select.POLLIN)
    status = None
    try:
        while status is None:
            left = started + wall_seconds - time.monotonic()
            ready = {number for number, _ in poll.poll(max(0, min(_SLICE_SECONDS, left)) * 1000)}
            for pipe in ready & output.keys():
                if not _read(pipe, output[pipe]):
                    poll.unregister(pipe)
            if any(len(text) > output_bytes for text in output.values()) or is_too_much():
                status = Status.TOO_MUCH
            elif ended in ready:
                status = Status.OK
            elif left <= 0:
                status = Status.LATE
    finally:
        os.close(ended)
    for pipe in pipes:  # what was written just before the end
        while status is Status.OK and len(output[pipe]) <= output_bytes and _read(pipe, output[pipe]):
            pass
    cut = tuple(bytes(output[pipe][:output_bytes]) for pipe in pipes)
    is_over = any(len(text) > output_bytes for text in output.values())
    return Watched(
        status=Status.TOO_MUCH if is_over else status, output=cut, seconds=time.monotonic() - started
    )


def folder_is_over(path: str, *, num_bytes: int, num_files: int) -> bool:
    """Whether the files below `path` are too many or too large. Stops counting as soon as that is known."""
    left, files, folders = num_bytes, num_files, [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    files -= 1
                    left -= entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if left < 0 or files < 0:
                        return True
        except FileNotFoundError:  # removed while we count
            continue
        except OSError:  # a path too long to follow, or a folder made unreadable: neither is honest work
            return True
    return False


def _read(pipe: int, text: bytearray) -> bool:
    """Whether there may be more. The pipe does not block."""
    try:
        chunk = os.read(pipe, _CHUNK_BYTES)
    except BlockingIOError:
        return False
    text += chunk
    return bool(chunk)
