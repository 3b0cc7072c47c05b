"""A run is a directory, a stage is a sub-directory, and DONE.json is written last.

Why: whatever kills a run, what is on disk says exactly how far it came. A stage depends on its settings and
on the stages that it names in `needs`, and on nothing else: its inputs.json holds the fingerprint of both, so
a changed setting makes again what hangs on it and leaves the rest alone.
In:  a list of `Stage`s.  Out: files. Not here: what the stages do (zero.py, r1.py), whether work that other
settings made may be removed (flow.py asks).
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError, RunError
from tenth.base.files import read_json, text_hash, write_json
from tenth.base.runlog import MetricSink, RunLog
from tenth.checkpoint.whole_dir import PARTIAL, remove_directory

FORMAT_VERSION = 1  # of a run directory
_RECORD_VERSION = 2  # of inputs.json; the first chained every stage to all before it
_INPUTS, _DONE = "inputs.json", "DONE.json"
_MOST_SECONDS = 1e10  # three centuries
_NO_WORK = {_INPUTS, "clock.json", "metrics.jsonl"}  # what nobody would miss


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
    needs: tuple[str, ...] = ()  # the stages whose results it reads
    require: Callable[[], None] = lambda: None  # raises where it could not end well


def stage_dirs(run_dir: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the stages of a story are, by name."""
    return {name: run_dir / f"{number:02d}-{name}" for number, name in enumerate(names, start=1)}


def run_stages(
    run_dir: Path,
    stages: Sequence[Stage],
    *,
    only: str | None = None,
    tell: Callable[[str, Outcome], None] = lambda *_: None,
) -> None:
    """Run what is not done yet, in order; or of all that the stage called `only`. `tell` hears what ended."""
    records = _records(run_dir, stages)
    for stage, directory in _placed(run_dir, stages):
        if only not in (None, stage.name):
            continue
        record = records[stage.name]
        if _is_done(directory, record):
            continue
        _begin(directory, record)
        clock = StageClock(directory)
        outcome = stage.run(directory)
        write_json(
            directory / _DONE,
            {
                "fingerprint": record["fingerprint"],
                "seconds": clock.seconds(),
                "summary": outcome.summary,
                "tokens": outcome.tokens,
                "flops": outcome.flops,
            },
        )
        tell(stage.name, outcome)


def done_number(directory: Path, name: str) -> float:
    """`seconds`, `tokens` or `flops` of a stage that has ended."""
    path = directory / _DONE
    found = read_json(path)
    value = found.get(name) if isinstance(found, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DataError(
            f"{path}: {name} is not what a stage writes; restore the file, or remove it and run the stage "
            "again."
        )
    return value


def require_ready(run_dir: Path, stages: Sequence[Stage], *, only: str | None = None) -> None:
    """Ask every stage that is to run whether it has what it takes, before the first of them begins."""
    records = _records(run_dir, stages)
    for stage, directory in _placed(run_dir, stages):
        is_done = _is_made_by(directory, records[stage.name]) and (directory / _DONE).exists()
        if stage.name == only or (only is None and not is_done):
            stage.require()


def stale_stages(run_dir: Path, stages: Sequence[Stage]) -> list[str]:
    """Names of the stages with work that other settings made, or other results of what they need."""
    records = _records(run_dir, stages)
    return [
        stage.name
        for stage, directory in _placed(run_dir, stages)
        if _has_work(directory) and not _is_made_by(directory, records[stage.name])
    ]


def done_stages(run_dir: Path, stages: Sequence[Stage]) -> list[str]:
    """Names of the stages that have ended, stale ones among them."""
    return [stage.name for stage, directory in _placed(run_dir, stages) if (directory / _DONE).exists()]


def remove_stages(run_dir: Path, stages: Sequence[Stage], names: Iterable[str]) -> None:
    """Remove the directories of these stages, the last one first."""
    directories = stage_dirs(run_dir, (stage.name for stage in stages))
    for name in reversed(list(names)):
        remove_directory(directories[name])


def renew_stage(run_dir: Path, stages: Sequence[Stage], name: str) -> None:
    """Empty the directory of a stage that is done, and mark it: what needs it will be made again, too."""
    directory = stage_dirs(run_dir, (stage.name for stage in stages))[name]
    if not (directory / _DONE).exists():
        return  # it goes on where it was stopped
    # First of all the mark: a kill from here on must not leave what needs the stage looking up to date.
    write_json(directory / _INPUTS, {"again": int(_read_record(directory).get("again", 0)) + 1})
    (directory / _DONE).unlink()
    for path in directory.iterdir():
        if path.is_dir():
            remove_directory(path)
        elif path.name != _INPUTS:
            path.unlink()


def adopt_records(run_dir: Path, stages: Sequence[Stage]) -> None:
    """Bring the records of an earlier version up to date.

    `stages` are those of the recipe that made the run, read by this version. Keys that the recorded settings
    do not have did not exist then, so they stand at their defaults.
    """
    now, before = _records(run_dir, stages), {}
    current: set[str] = set()  # stages that stand as `now` says, adopted ones among them
    for stage, directory in _placed(run_dir, stages):
        record = before[stage.name] = _read_record(directory)
        if record.get("fingerprint") == now[stage.name]["fingerprint"]:
            current.add(stage.name)
            continue
        needs = record.get("needs", {})
        is_whole = all(before.get(name, {}).get("fingerprint") == made for name, made in needs.items())
        is_whole = is_whole and current.issuperset(stage.needs)
        if record.get("fingerprint") and is_whole and _is_part(record.get("settings"), stage.settings):
            write_json(directory / _INPUTS, now[stage.name])
            current.add(stage.name)


def _placed(run_dir: Path, stages: Sequence[Stage]) -> list[tuple[Stage, Path]]:
    return list(zip(stages, stage_dirs(run_dir, (stage.name for stage in stages)).values(), strict=True))


def _records(run_dir: Path, stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """What inputs.json of each stage says when its settings and what it needs made it."""
    records: dict[str, dict[str, Any]] = {}
    for stage, directory in _placed(run_dir, stages):
        needs = {name: records[name]["fingerprint"] for name in stage.needs}
        again = int(_read_record(directory).get("again", 0))
        parts = [f"record {_RECORD_VERSION}", stage.name, json.dumps(stage.settings, sort_keys=True)]
        parts += [*needs.values(), *([f"again {again}"] if again else [])]
        records[stage.name] = {
            "version": _RECORD_VERSION,
            "fingerprint": text_hash(*parts),
            "settings": stage.settings,
            "needs": needs,
            **({"again": again} if again else {}),
        }
    return records


def _read_record(directory: Path) -> dict[str, Any]:
    path = directory / _INPUTS
    record = read_json(path) if path.exists() else {}
    is_record = isinstance(record, dict) and isinstance(record.get("needs", {}), dict)
    if not is_record or not all(type(record.get(name, 0)) is int for name in ("version", "again")):
        raise RunError(
            f"{path} is damaged; restore it, or remove {directory} to make that stage again, with all that "
            "follows from it."
        )
    if record.get("version", 0) > _RECORD_VERSION:
        raise RunError(
            f"{path} has version {str(record['version'])[:20]}, this tenth reads up to {_RECORD_VERSION}; "
            "use a newer tenth."
        )
    return dict(record)


def _is_made_by(directory: Path, record: Mapping[str, Any]) -> bool:
    return bool(_read_record(directory).get("fingerprint") == record["fingerprint"])


def _has_work(directory: Path) -> bool:
    """Whether the directory holds more than the notes of a stage that came to nothing."""
    if not directory.is_dir():
        return False
    names = (path.name for path in directory.iterdir())
    return any(name not in _NO_WORK and not name.endswith(PARTIAL) for name in names)


def _is_done(directory: Path, record: Mapping[str, Any]) -> bool:
    if _has_work(directory) and not _is_made_by(directory, record):
        raise RunError(
            f"{directory} was made by another recipe; give the run another name (name=...) or remove it "
            f"with `tenth runs clean {directory.parent.name}`."
        )
    return (directory / _DONE).exists()


def _begin(directory: Path, record: Mapping[str, Any]) -> None:
    """Write down what the stage is made from; the time and notes of other settings go."""
    if directory.exists() and not _is_made_by(directory, record):
        remove_directory(directory)
    write_json(directory / _INPUTS, record)


def _is_part(one: Any, other: Any) -> bool:
    """Whether all that `one` says stands in `other`, too."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(key in other and _is_part(value, other[key]) for key, value in one.items())
    return bool(one == other)


class StageClock:
    """Seconds a stage has worked, sessions before an interruption included."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "clock.json"
        self.before = _seconds_before(self.path)
        self.began = time.monotonic()

    def seconds(self) -> float:
        """So far."""
        return self.before + time.monotonic() - self.began

    def save(self) -> None:
        """Call beside each checkpoint: what comes after it is lost if the run dies, and so is its time."""
        write_json(self.path, {"seconds": self.seconds()})


def _seconds_before(path: Path) -> float:
    """What clock.json says; a RunError where it says nothing of the kind."""
    if not path.exists():
        return 0.0
    found = read_json(path)
    seconds = found.get("seconds") if isinstance(found, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _MOST_SECONDS:
        raise RunError(f"{path} is damaged; remove it, and the time before it counts as none.")
    return float(seconds)


def open_log(directory: Path, *, sinks: Sequence[MetricSink], from_step: int, total_steps: int) -> RunLog:
    """The stage's metrics file, rewound to where it continues."""
    log = RunLog(directory / "metrics.jsonl", stage=directory.name.partition("-")[2], sinks=sinks)
    log.start(from_step=from_step, total_steps=total_steps)
    return log
