"""A process that runs the smoke recipe, once per line of its input, each time in a child that may be killed.

In:  lines of JSON: {"runs_dir": ..., "point": a `Point` as JSON or null, "kill_after_seconds": ... or null,
    "overrides": [...]}.
Out: one line per run: the child's exit status, negative where a signal ended it.
Why: importing torch takes longer than the run. The parent imports and computes nothing, so a fork is safe.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # what the first optimizer of a process imports
from kill_points import Assassin, Point

import tenth.pipeline.machine
from tenth.pipeline.zero import run_zero

RECIPE = Path(__file__).parents[2] / "recipes/tiny/smoke.toml"


def run(runs_dir: str, point: str | None, overrides: list[str]) -> None:
    torch.set_num_threads(1)
    tenth.pipeline.machine.measure_peak = lambda _: 1e11  # seconds of matrix products that change no result
    sinks = [Assassin(Point(**json.loads(point)))] if point else []
    run_zero(RECIPE, overrides, runs_dir=Path(runs_dir), sinks=sinks)


def wait_for(child: int, *, kill_after_seconds: float | None) -> int:
    if kill_after_seconds is None:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    deadline = time.monotonic() + kill_after_seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_in_child(*, kill_after_seconds: float | None, **order: object) -> int:
    child = os.fork()
    if child:
        return wait_for(child, kill_after_seconds=kill_after_seconds)
    try:
        run(**order)
    except BaseException:  # noqa: BLE001  the child must end here, whatever happened
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        print(run_in_child(**json.loads(line)), flush=True)  # noqa: T201
