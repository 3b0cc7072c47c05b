"""What a stage says while it runs: one object per step to metrics.jsonl, the same to any sink passed in.

Why: curves are data. The live view, TensorBoard and the plain step line are sinks (`MetricSink`) handed in
by the command line; this file only knows how to append and how to read back.
A continued run rewinds the file to the checkpoint it continues from, so a step is never listed twice.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tenth.base.errors import DataError, RunError
from tenth.base.files import open_ordinary, parse_lines, write_lines

Metrics = Mapping[str, float]


class MetricSink(Protocol):
    """Somebody who wants every step's numbers."""

    def start_stage(self, stage: str, *, total_steps: int) -> None:
        """A stage begins; `total_steps` is what it plans to do."""

    def log(self, stage: str, step: int, metrics: Metrics) -> None:
        """The numbers of one step, by documented name."""

    def end_stage(self, stage: str) -> None:
        """The stage is over."""


class RunLog:
    """metrics.jsonl of one stage, plus the sinks."""

    def __init__(self, path: Path, *, stage: str, sinks: Sequence[MetricSink] = ()) -> None:
        self.path, self.stage, self.sinks = path, stage, sinks

    def start(self, *, from_step: int, total_steps: int) -> None:
        """Drop every line at or after `from_step` (a cut-off run wrote them), then announce the stage."""
        kept = [row for row in read_metrics(self.path) if row["step"] < from_step]
        write_lines(self.path, kept)
        for sink in self.sinks:
            sink.start_stage(self.stage, total_steps=total_steps)

    def log(self, step: int, metrics: Metrics) -> None:
        """Append one step."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        except OSError as error:
            raise RunError(
                f"could not write {self.path}: {error.strerror or error}; "
                "free some space, then continue the run."
            ) from error
        for sink in self.sinks:
            sink.log(self.stage, step, metrics)

    def end(self) -> None:
        """Tell the sinks that the stage is over."""
        for sink in self.sinks:
            sink.end_stage(self.stage)


def read_metrics(path: Path) -> Iterable[dict[str, float]]:
    """Every whole line of a metrics file; a last line cut by a kill is left out."""
    if not path.exists():
        return []
    try:
        with open_ordinary(path) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check the path.") from error
    whole = data[: data.rfind(b"\n") + 1]
    return [row for _, row in parse_lines(whole.splitlines(), source=path)]
