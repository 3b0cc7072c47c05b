"""One process per run directory.

Why: two processes that write the same stages would each destroy what the other continues from.
The lock is the kernel's and dies with its holder, so a killed run never blocks its own continuation.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenth.base.errors import RunError


@contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for as long as the block lasts; a RunError if somebody else holds it."""
    # Beside the directory, not in it: an empty or foreign directory must stay recognisable as such.
    lock = run_dir.parent / f".{run_dir.name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise RunError(
            f"could not write in {lock.parent}: {error.strerror or error}; choose another directory for the "
            "run."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"{run_dir} is being written by another process; wait until it ends, or give this run "
                "another name."
            ) from error
        yield
