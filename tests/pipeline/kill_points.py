"""Places in a run where it is killed, and what must be the same when it has been continued.

A point names a function, the stage in which its calls are counted, and the call at which the signal falls.
"""

import hashlib
import importlib
import json
import os
import re
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CLOCK_FIELDS = {
    "step_time",
    "tokens_per_second",
    "flops_per_second",
    "peak_share",
    "time/rollout",
    "time/train",
    "seconds",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """The `call`-th call of `target` ("module:attribute") once `stage` has begun; None: from the start."""

    name: str
    target: str
    call: int
    stage: str | None = None
    is_after: bool = False  # the signal falls when the call has ended, not when it begins
    signal: int = signal.SIGKILL

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def _point(name: str, stage: str | None, target: str, call: int, *, is_after: bool = False) -> Point:
    return Point(name=name, stage=stage, target=target, call=call, is_after=is_after)


POINTS = (
    _point("mid-documents", None, "tenth.pipeline.base:write_tokens", 2),
    _point("mid-pretraining", "base", "tenth.training.optim:WeightUpdater.gather", 21),
    _point("metrics written, nothing saved", "base", "tenth.base.runlog:RunLog.log", 10, is_after=True),
    _point("mid-checkpoint-write", "base", "tenth.checkpoint.training_state:write_json", 5),
    _point("mid-checkpoint-rename", "base", "tenth.checkpoint.whole_dir:_take_name", 7),
    _point("mid-checkpoint-delete", "base", "tenth.checkpoint.whole_dir:shutil.rmtree", 2),
    _point("weights written, stage not done", "base", "tenth.pipeline.base:save_model", 1, is_after=True),
    _point("between stages", "base", "tenth.pipeline.stage:_is_done", 1),
    _point("mid-measuring", "measure-base", "tenth.pipeline.measure:write_lines", 2),
    _point("mid-rollout", "zero", "tenth.engine.engine:draw", 60),
    _point("between rollout and update", "zero", "tenth.pipeline.reinforce:weigh_rollouts", 3),
    _point("mid-update, between minibatches", "zero", "tenth.training.optim:WeightUpdater.apply", 6),
    _point("mid-update, masters changed", "zero", "tenth.training.master:MasterWeights.publish", 5),
    _point("rollouts not yet written", "zero", "tenth.pipeline.reinforce:write_lines", 4),
    _point("mid-checkpoint-write of RL", "zero", "tenth.checkpoint.training_state:write_json", 1),
)


class Assassin:
    """A metric sink that learns which stage runs, and a wrapper around the target that sends the signal."""

    def __init__(self, point: Point) -> None:
        self.point, self.num_calls = point, 0
        self.is_armed = point.stage is None
        module, _, path = point.target.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for each in owners:
            owner = getattr(owner, each)
        self.original = getattr(owner, name)
        setattr(owner, name, self._wrapper())

    def _wrapper(self) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.num_calls += self.is_armed
            is_due = self.is_armed and self.num_calls == self.point.call
            if is_due and not self.point.is_after:
                os.kill(os.getpid(), self.point.signal)
            result = self.original(*args, **kwargs)
            if is_due and self.point.is_after:
                os.kill(os.getpid(), self.point.signal)
            return result

        return wrapped

    def start_stage(self, stage: str, *, total_steps: int) -> None:
        self.is_armed = self.is_armed or stage == self.point.stage

    def log(self, stage: str, step: int, metrics: object) -> None:
        pass

    def end_stage(self, stage: str) -> None:
        pass


def contents(run_dir: Path) -> dict[str, str]:
    """Every result of a run by file name: hashes of weights and data, numbers without those of the clock."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        if path.is_dir() or "/checkpoint/" in name or path.name in ("run.json", "recipe.json", "clock.json"):
            continue
        if path.suffix == ".jsonl":
            rows = [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
            found[name] = json.dumps(rows)
        elif path.suffix == ".json":
            found[name] = json.dumps(_timeless(json.loads(path.read_text(encoding="utf-8"))))
        elif path.name == "README.md":
            text = path.read_text(encoding="utf-8")
            found[name] = re.sub(r"## Cost\n\n.*\n", "", text)  # a matter of the clock
        else:
            found[name] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found


def _timeless(row: Any) -> Any:
    return {key: value for key, value in row.items() if key not in CLOCK_FIELDS}
