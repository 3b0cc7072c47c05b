"""A process that runs a smoke recipe or a tuning per line of its input, each in a child that may be killed.

In:  lines of JSON: {"runs_dir": ..., "point": a `Point` as JSON or null, "kill_after_cpu_seconds": null or n,
    "overrides": [...], "recipe": a file under recipes/tiny,
    "tune": null or {"kind": "rl" or "sft", "values": ...}}.
Out: a line of JSON per run: the child's exit status, negative where a signal ended it, and its CPU seconds.
Why: importing torch takes longer than the run. The parent imports and computes nothing, so a fork is safe.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what the first optimizer of a process imports
from kill_points import Assassin, Point

import tenth.pipeline.machine
from tenth.pipeline.r1 import run_r1
from tenth.pipeline.recipe import FlowName
from tenth.pipeline.recipes import flow_name
from tenth.pipeline.tune_rl import run_rl
from tenth.pipeline.tune_sft import run_sft
from tenth.pipeline.zero import run_zero

RECIPES = Path(__file__).parents[2] / "recipes/tiny"


def run(
    runs_dir: str, point: str | None, overrides: list[str], recipe: str, tune: dict[str, Any] | None
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit an ignored Ctrl-C
    torch.set_num_threads(1)
    tenth.pipeline.machine.measure_peak = lambda _: 1e11  # seconds of matrix products that change no result
    sinks = [Assassin(Point(**json.loads(point)))] if point else []
    if tune is None:
        tell = run_r1 if flow_name(RECIPES / recipe) is FlowName.R1 else run_zero
        tell(RECIPES / recipe, overrides, runs_dir=Path(runs_dir), sinks=sinks)
    else:
        work = run_rl if tune["kind"] == "rl" else run_sft
        work(tune["values"], overrides, out=Path(runs_dir) / "tuned", sinks=sinks)


def wait_for(child: int, *, kill_after_cpu_seconds: float | None) -> dict[str, float]:
    while True:
        ended, status, usage = os.wait4(child, 0 if kill_after_cpu_seconds is None else os.WNOHANG)
        if ended:
            used = usage.ru_utime + usage.ru_stime
            return {"status": os.waitstatus_to_exitcode(status), "cpu_seconds": used}
        if kill_after_cpu_seconds is not None and cpu_seconds(child) >= kill_after_cpu_seconds:
            os.kill(child, signal.SIGKILL)
            kill_after_cpu_seconds = None
        time.sleep(0.005)


def cpu_seconds(process: int) -> float:
    """What the process has computed so far: a busy machine stretches every other clock."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_in_child(*, kill_after_cpu_seconds: float | None, **order: object) -> dict[str, float]:
    child = os.fork()
    if child:
        return wait_for(child, kill_after_cpu_seconds=kill_after_cpu_seconds)
    try:
        run(**order)
    except BaseException:  # noqa: BLE001  the child must end here, whatever happened
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_in_child(**json.loads(line))), flush=True)  # noqa: T201
