"""A directory that is whole or not there: filled under another name, flushed to the disk, renamed last.

Why: a process may be killed, and a disk may fill, at any moment; a reader must find the old directory or the
new one. A single file has `base.files.write_whole`; a checkpoint is several files that belong together.
In:  a target path and a `with` block that fills the directory it is given.
Out: the target. What a kill leaves behind (`NAME.partial`, `NAME.replaced`) the next `recover` puts right.
Not here: what is in the directory (training_state.py, model_dir.py).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenth.base.errors import CheckpointError

PARTIAL = ".partial"  # being written, or being deleted
REPLACED = ".replaced"  # the old one, while the new one takes its name


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory to fill; when the block ends well, it has become `target`."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        recover(target)
        partial.mkdir(parents=True)
        yield partial
        _flush_to_disk(partial)
        _take_name(partial, target)
    except OSError as error:
        _tidy(target)
        raise CheckpointError(
            f"could not write {target}: {error.strerror or error}; what was there before is untouched; "
            "free some space or choose another directory, then continue."
        ) from error
    except BaseException:  # Ctrl-C too: leave nothing half-written behind
        _tidy(target)
        raise


def recover(target: Path) -> None:
    """Put right what a kill left beside `target`. Only for the process that writes there."""
    partial, replaced = target.with_name(target.name + PARTIAL), target.with_name(target.name + REPLACED)
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    for leftover in (replaced, partial):
        if leftover.exists():
            shutil.rmtree(leftover)


def readable(target: Path) -> Path:
    """Where a reader finds the directory, also in the instant in which it is being replaced."""
    if not target.name:  # `.` and `/`: no directory that this module replaces
        return target
    replaced = target.with_name(target.name + REPLACED)
    return replaced if replaced.exists() and not target.exists() else target


def remove_directory(target: Path) -> None:
    """Delete a directory so that a kill in the middle never leaves half of it under its own name."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        recover(target)
        target.rename(partial)
        shutil.rmtree(partial)
    except OSError as error:
        raise CheckpointError(
            f"could not delete {target}: {error.strerror or error}; delete it by hand."
        ) from error


def _take_name(partial: Path, target: Path) -> None:
    """A directory cannot be renamed over another one, so the old one steps aside first."""
    if target.exists():
        target.rename(target.with_name(target.name + REPLACED))
    partial.rename(target)
    _sync(target.parent)
    shutil.rmtree(target.with_name(target.name + REPLACED), ignore_errors=True)


def _tidy(target: Path) -> None:
    with suppress(OSError):  # what stopped the writing may stop the tidying too
        recover(target)


def _flush_to_disk(directory: Path) -> None:
    for path in sorted(directory.rglob("*")):
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
