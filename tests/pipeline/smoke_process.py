"""Runs of the smoke recipe in processes of their own: nothing of another test's process can matter."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self


class SmokeProcess:
    """Starts run_smoke.py and orders runs from it."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0  # of all runs so far
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("run_smoke.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        runs_dir: Path,
        *overrides: str,
        point: str | None = None,
        kill_after_cpu_seconds: float | None = None,
        recipe: str = "smoke.toml",
        tune: Mapping[str, Any] | None = None,
    ) -> int:
        """One run under `runs_dir`; its exit status, -9 when it was killed. Adds to `cpu_seconds`.

        `recipe` is a file under recipes/tiny; `tune` names another work than a recipe.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "runs_dir": str(runs_dir),
            "point": point,
            "overrides": overrides,
            "kill_after_cpu_seconds": kill_after_cpu_seconds,
            "recipe": recipe,
            "tune": tune,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        self.cpu_seconds += ended["cpu_seconds"]
        return int(ended["status"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
