"""Every kill point, and kills at random moments: does a continued run end bit for bit the same?

    python -m tests.soak.kill [--random 16] [--seed 0] [--out benchmarks/results/soak-kill.json]

Writes what was tried, on which machine, and whether every run ended as the uninterrupted one.
"""

# ruff: noqa: T201  it is a program

import argparse
import json
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tenth.base.files import write_json
from tenth.base.machine import describe_machine

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "pipeline"))  # tests are no package; pytest finds them the same way

from kill_points import POINTS, contents  # noqa: E402
from smoke_process import SmokeProcess  # noqa: E402

OVERRIDES = ("checkpoint_every_seconds=0.2", "controls.enabled=true")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=16, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "soak-kill.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, SmokeProcess() as smoke:
        if smoke.run(Path(scratch) / "reference", *OVERRIDES):
            print("the uninterrupted run failed")
            return 2
        seconds = smoke.cpu_seconds
        expected = contents(Path(scratch) / "reference" / "smoke")
        tried = []
        orders = [*_named(), *_random(asked.random, seconds=seconds, seed=asked.seed)]
        for number, order in enumerate(orders):
            tried.append(_try(smoke, Path(scratch) / str(number), order, expected))
            print(json.dumps(tried[-1]), flush=True)
    is_good = all(each["is_equal"] for each in tried)
    write_json(asked.out, _report(asked, tried, seconds, num_files=len(expected), is_good=is_good))
    print(f"{asked.out}: {len(tried)} kills, {'all equal' if is_good else 'NOT all equal'}")
    return 0 if is_good else 1


def _named() -> Iterator[dict[str, Any]]:
    for point in POINTS:
        yield {"name": point.name, "point": point.to_json()}


def _random(count: int, *, seconds: float, seed: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    for _ in range(count):
        # Two kills each: the second one falls into the continued run.
        yield {
            "name": "random",
            "kill_after_cpu_seconds": [rng.uniform(0.0, 0.9) * seconds for _ in range(2)],
        }


def _try(
    smoke: SmokeProcess, runs_dir: Path, order: dict[str, Any], expected: dict[str, str]
) -> dict[str, Any]:
    statuses = [
        smoke.run(runs_dir, *OVERRIDES, kill_after_cpu_seconds=seconds)
        for seconds in order.get("kill_after_cpu_seconds", ())
    ]
    if "point" in order:
        statuses.append(smoke.run(runs_dir, *OVERRIDES, point=order["point"]))
    reached = max((path.name for path in (runs_dir / "smoke").glob("[0-9]*")), default="nothing")
    ended = smoke.run(runs_dir, *OVERRIDES)
    found = contents(runs_dir / "smoke") if ended == 0 else {}
    different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return {
        "name": order["name"],
        "kill_after_cpu_seconds": [round(each, 2) for each in order.get("kill_after_cpu_seconds", ())],
        "statuses": statuses,  # -9: killed; 0: the run had ended before the kill
        "killed_in": reached,
        "is_equal": not different,
        "different": different,
    }


def _report(
    asked: argparse.Namespace, tried: list[dict[str, Any]], seconds: float, *, num_files: int, is_good: bool
) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "command": f"python -m tests.soak.kill {shlex.join(sys.argv[1:])}".strip(),
        "commit": commit.stdout.strip(),
        "machine": asdict(describe_machine()),
        "torch": torch.__version__,
        "threads": 1,
        "overrides": OVERRIDES,
        "cpu_seconds_uninterrupted": round(seconds, 2),
        "files_compared": num_files,
        "kills": sum(status == -9 for each in tried for status in each["statuses"]),
        "all_equal": is_good,
        "points": tried,
    }


if __name__ == "__main__":
    sys.exit(main())
