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
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    # Beside the directory, not in it: an empty or foreign directory must stay recognisable as such.
    with (run_dir.parent / f".{run_dir.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"{run_dir} is being written by another process; wait until it ends, or give this run "
                "another name."
            ) from error
        yield
