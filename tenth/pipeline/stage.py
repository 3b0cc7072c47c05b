"""A run is a directory, a stage is a sub-directory, and DONE.json is written last.

Why: whatever kills a run, what is on disk says exactly how far it came. A stage is redone from its last
checkpoint unless its DONE.json names the same fingerprint: recipe section, stages before it, format version.
In:  a list of `Stage`s.  Out: files. Not here: what the stages do (zero.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenth.base.errors import RunError
from tenth.base.files import read_json, text_hash, write_json
from tenth.base.runlog import MetricSink, RunLog

FORMAT_VERSION = 1
_WORK = ("checkpoint", "samples")  # what a stage continues from; without it, it begins anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished stage reports."""

    summary: dict[str, Any] = field(default_factory=dict)
    tokens: float | None = None  # processed, sampled ones included
    flops: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of the story. `settings` is everything of the recipe that can change its result."""

    name: str
    settings: Any
    run: Callable[[Path], Outcome]


def run_stages(run_dir: Path, stages: Sequence[Stage]) -> None:
    """Run what is not done yet, in order."""
    fingerprint = f"format {FORMAT_VERSION}"
    for number, stage in enumerate(stages, start=1):
        fingerprint = text_hash(fingerprint, stage.name, repr(stage.settings))
        directory = run_dir / f"{number:02d}-{stage.name}"
        if _is_done(directory, fingerprint):
            continue
        write_json(directory / "inputs.json", {"fingerprint": fingerprint, "settings": stage.settings})
        clock = StageClock(directory)
        outcome = stage.run(directory)
        write_json(
            directory / "DONE.json",
            {
                "fingerprint": fingerprint,
                "seconds": clock.seconds(),
                "summary": outcome.summary,
                "tokens": outcome.tokens,
                "flops": outcome.flops,
            },
        )


def _is_done(directory: Path, fingerprint: str) -> bool:
    marker = directory / "DONE.json"
    has_work = marker.exists() or any((directory / name).exists() for name in _WORK)
    if has_work and read_json(directory / "inputs.json").get("fingerprint") != fingerprint:
        raise RunError(
            f"{directory} was made by another recipe; give the run another name (name=...) or remove it "
            f"with `tenth runs clean {directory.parent.name}`."
        )
    return marker.exists()


class StageClock:
    """Seconds a stage has worked, sessions before an interruption included."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "clock.json"
        self.before = float(read_json(self.path)["seconds"]) if self.path.exists() else 0.0
        self.began = time.monotonic()

    def seconds(self) -> float:
        """So far."""
        return self.before + time.monotonic() - self.began

    def save(self) -> None:
        """Call beside each checkpoint: what comes after it is lost if the run dies, and so is its time."""
        write_json(self.path, {"seconds": self.seconds()})


def open_log(directory: Path, *, sinks: Sequence[MetricSink], from_step: int, total_steps: int) -> RunLog:
    """The stage's metrics file, rewound to where it continues."""
    log = RunLog(directory / "metrics.jsonl", stage=directory.name.partition("-")[2], sinks=sinks)
    log.start(from_step=from_step, total_steps=total_steps)
    return log
