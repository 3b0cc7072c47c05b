"""Judged answers on disk, one line each, kept as they come.

Why: answers cost time and money; whoever stops and comes back is asked nothing twice.
In:  `Sample` rows.  Out: a JSONL file that only grows; a last line that a kill has cut is taken away.
Not here: what is asked (evaluate_model.py).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tenth.base.errors import RunError
from tenth.base.files import read_lines
from tenth.rollout.suite_scores import Sample


class SampleLog:
    """The answers of one model to one suite."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Sample]:
        """What is there, whole lines only."""
        if not self.path.exists():
            return []
        try:
            self._cut()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return [Sample.from_dict(row) for _, row in read_lines(self.path)]

    def append(self, samples: Sequence[Sample]) -> None:
        """Add lines; they are on the disk when this returns."""
        data = "".join(json.dumps(sample.to_dict(), ensure_ascii=False) + "\n" for sample in samples)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(data.encode(errors="replace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _cut(self) -> None:
        with self.path.open("r+b") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"could not write {path}: {error.strerror or error}; free some space or choose another --out."
    )
