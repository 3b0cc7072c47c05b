"""One long-lived process per side of a comparison; only the one that was asked works, the other sleeps in a
read.

Why: interleaved rounds need both sides alive and warm at once, and no two torch runtimes may share threads,
allocator settings or compiled graphs.
In:  the dotted name of a side (a function that takes a `Channel` and its options), options, environment.
Out: `Worker.run(n)`: seconds of each of n steps.
Not here: what a step is (training_sides.py, grpo_sides.py).
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

# glibc hands large buffers back to the system after every operation and faults them in again for the next.
# These settings stop that, for every side alike; whether a peer is faster with them is part of its grid.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


class WorkerError(RuntimeError):
    """A side that could not be built or failed in a step; the text is the last line of its complaint."""


class Channel:
    """A worker's end: JSON lines, requests in, answers out."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests, self._answers = requests, answers

    def send(self, value: Any) -> None:
        self._answers.write(json.dumps(value) + "\n")
        self._answers.flush()

    def next_count(self) -> int | None:
        """How many steps to run now; None: the end."""
        line = self._requests.readline()
        return int(line) if line.strip() else None

    def answer(self, answer: Callable[[Any], Any], facts: Mapping[str, Any]) -> None:
        """Say what was built, then answer every request: any JSON value to any JSON value."""
        self.send(dict(facts))
        while (line := self._requests.readline()).strip():
            self.send(answer(json.loads(line)))

    def serve(self, step: Callable[[], object], facts: Mapping[str, Any]) -> None:
        """Say what was built, then run steps as they are asked for."""
        self.send(dict(facts))
        while (count := self.next_count()) is not None:
            seconds = []
            for _ in range(count):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
            self.send(seconds)


class Worker:
    """The parent's end."""

    def __init__(self, side: str, options: Mapping[str, Any], *, keeps_memory: bool) -> None:
        env = {**os.environ, **(KEEP_MEMORY if keeps_memory else {})}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.workers", side, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self.facts: dict[str, Any] = self._receive()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with code {self._process.wait()}"}
        if isinstance(answer, dict) and "error" in answer:
            self.close()
            raise WorkerError(answer["error"])
        return answer

    def ask(self, request: Any) -> Any:
        """One request to a side that answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def run(self, count: int) -> list[float]:
        """Seconds of each of `count` steps."""
        return self.ask(count)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """The child: answers go to the real stdout, everything that a library prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    channel = Channel(sys.stdin, answers)
    module, _, name = sys.argv[1].rpartition(".")
    try:
        getattr(importlib.import_module(module), name)(channel, **json.loads(sys.argv[2]))
    except Exception as error:  # noqa: BLE001  a peer's failure is a result of the grid, whatever its type
        last = (str(error).strip().splitlines() or [""])[-1]
        channel.send({"error": f"{type(error).__name__}: {last}"[:300]})


if __name__ == "__main__":
    main()
