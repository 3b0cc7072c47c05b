"""How many contained checks a second, beside a plain `python -c` that contains nothing.

python -m benchmarks.sandbox             writes benchmarks/results/sandbox.json

Why: a step of reinforcement on code scores hundreds of answers, and scoring must not be what it waits for.
In:  nothing.  Out: per way of checking: checks per second in each round, median and spread, load of the
machine. All ways take turns within a round; every verdict is checked.
Not here: whether anything is contained (tests/sandbox).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.machine import measure
from benchmarks.provenance import provenance
from tenth.sandbox.limits import FunctionTests, Outcome, Program, TestResults, Tier
from tenth.sandbox.pool import SandboxPool

RESULTS = Path(__file__).parent / "results" / "sandbox.json"
PROGRAM = "print(2 * int(input()) + 1)"
FUNCTION = "def solve(x):\n    return 2 * x + 1"
TESTS = tuple(f"assert solve({number}) == {2 * number + 1}" for number in range(3))

Way = Callable[[int], None]  # runs so many checks


def contained_programs(pool: SandboxPool) -> Way:
    """One program, one input."""

    def run(count: int) -> None:
        for result in pool.run_many([Program(source=PROGRAM, stdin="20\n")] * count):
            assert isinstance(result, Outcome)
            assert result.stdout == "41\n"

    return run


def contained_functions(pool: SandboxPool) -> Way:
    """One function, three tests, candidate and judge in processes of their own."""

    def run(count: int) -> None:
        for result in pool.run_many([FunctionTests(source=FUNCTION, tests=TESTS)] * count):
            assert isinstance(result, TestResults)
            assert result.is_all_passed

    return run


def plain_python(workers: int) -> Way:
    """The peer: a new interpreter for each program, without any containment."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]

    def check(_: int) -> None:
        done = subprocess.run(command, input=b"20\n", capture_output=True, check=True)
        assert done.stdout == b"41\n"

    def run(count: int) -> None:
        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(check, range(count)))

    return run


def measured(ways: dict[str, Way], *, rounds: int, count: int) -> dict[str, list[float]]:
    """Checks per second of each way, round by round; the first calls, which start things, are not counted."""
    for way in ways.values():
        way(10)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way(count)
            rates[name].append(round(count / (time.perf_counter() - started), 1))
    return rates


def summary(rates: list[float]) -> dict[str, object]:
    """Median, lowest and highest, and the rounds themselves."""
    return {
        "checks_per_s": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "rounds": rates,
    }


def all_ways(stack: ExitStack, workers: int) -> Iterator[tuple[str, Way]]:
    """What takes turns."""
    for tier in Tier:
        pool = stack.enter_context(SandboxPool(workers=workers, tier=tier))
        yield f"{tier}: program", contained_programs(pool)
        yield f"{tier}: function, three tests", contained_functions(pool)
    yield "python -I -S -c, nothing contained", plain_python(workers)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    before = os.getloadavg()
    with ExitStack() as stack:
        ways = dict(all_ways(stack, options.workers))
        rates = measured(ways, rounds=options.rounds, count=options.count)
    result = {
        **provenance("sandbox", measure()),
        "kernel": platform.release(),
        "workers": options.workers,
        "load_before": before,  # of the last 1, 5 and 15 minutes: others were at work where it is not near 0
        "load_after": os.getloadavg(),
        "ways": {name: summary(of_way) for name, of_way in rates.items()},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, of_way in rates.items():
        print(
            f"{name:40} {statistics.median(of_way):7.1f} checks/s  ({min(of_way):.1f} to {max(of_way):.1f})"
        )


if __name__ == "__main__":
    main()
