"""Where a stage is, saved whole: `step-000120/` with tensors and facts, enough to go on bit for bit.

Why: a run may be killed at any moment and must lose no more than the steps since its last save.
In:  tensors by name (masters, optimizer slots, buffers) and facts that JSON can say (cursors, counters).
Out: one directory per save: `tensors.safetensors`, and `state.json` with the hashes of both.
Which step is worth keeping, and when to save, is the stage's business.
Not here: models for use (model_dir.py), random streams, which are derived from step numbers (base/seeds.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError, DataError
from tenth.base.files import read_json, text_hash, write_json
from tenth.checkpoint.tensor_file import read_tensors, write_tensors
from tenth.checkpoint.whole_dir import PARTIAL, REPLACED, recover, remove_directory, whole_directory

FORMAT_VERSION = 1
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_STEP_DIR = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What `save_state` was given."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save_state(
    directory: Path, *, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Write `directory/step-NNNNNN`; a kill at any moment leaves what was there, or this save."""
    target = step_directory(directory, step)
    with whole_directory(target) as partial:
        body = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "facts": dict(facts),
            "tensors_hash": write_tensors(partial / _TENSORS, tensors),
        }
        write_json(partial / _STATE, {**body, "hash": _body_hash(body)})
    return target


def load_latest(directory: Path) -> State | None:
    """The newest save, checked; None when there is none. Sweeps what a kill left behind.

    A damaged newest save is an error and not skipped: whether to go back further is for a person to decide.
    """
    _sweep(directory)
    steps = saved_steps(directory)
    return load_state(directory, step=steps[-1]) if steps else None


def load_state(directory: Path, *, step: int) -> State:
    """One save, checked."""
    path = step_directory(directory, step)
    earlier = [other for other in saved_steps(directory) if other < step]
    goes_on = f"continue from step {earlier[-1]}" if earlier else "begin the stage again"
    remedy = f"delete {path} to {goes_on}."
    body = _read_body(path / _STATE, remedy=remedy)
    tensors = read_tensors(path / _TENSORS, content_hash=body["tensors_hash"], remedy=remedy)
    return State(step=body["step"], tensors=tensors, facts=body["facts"])


def saved_steps(directory: Path) -> list[int]:
    """The steps of all whole saves, in order."""
    if not directory.is_dir():
        return []
    matches = (_STEP_DIR.fullmatch(path.name) for path in directory.iterdir() if (path / _STATE).exists())
    return sorted(int(match[1]) for match in matches if match)


def step_directory(directory: Path, step: int) -> Path:
    """Where the save of a step lies."""
    return directory / f"step-{step:06d}"


def prune(directory: Path, *, keep_last: int, keep: int | None = None) -> None:
    """Delete all saves but the last `keep_last` and, if given, the step `keep` (the best one)."""
    if keep_last < 1:
        raise ConfigError(f"keep_last = {keep_last} would delete every checkpoint; keep at least 1.")
    for step in saved_steps(directory)[:-keep_last]:
        if step != keep:
            remove_directory(step_directory(directory, step))


def _sweep(directory: Path) -> None:
    if not directory.is_dir():
        return
    for path in list(directory.iterdir()):
        if path.suffix in (PARTIAL, REPLACED) and _STEP_DIR.fullmatch(path.stem):
            recover(path.with_suffix(""))


def _read_body(path: Path, *, remedy: str) -> dict[str, Any]:
    try:
        values = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{path} is damaged: it is not valid JSON; {remedy}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object; {remedy}")
    if isinstance(values.get("format_version"), int) and values["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {values['format_version']}, this tenth reads up to {FORMAT_VERSION}; "
            "update tenth to continue."
        )
    content_hash = values.pop("hash", None)
    if _body_hash(values) != content_hash:
        raise CheckpointError(f"{path} is damaged: its content is not what was written; {remedy}")
    return values


def _body_hash(body: Mapping[str, Any]) -> str:
    """Of the body as JSON reads it back, where every key is text."""
    as_read = json.loads(json.dumps(body))
    return text_hash(json.dumps(as_read, sort_keys=True))
