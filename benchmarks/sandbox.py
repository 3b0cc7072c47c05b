"""How many contained checks a second, beside a plain `python -c` that contains nothing.

python -m benchmarks.sandbox             writes benchmarks/results/sandbox.json

Why: a step of reinforcement on code scores hundreds of answers, and scoring must not be what it waits for.
In:  nothing.  Out: per way of checking: checks per second in each round, median and spread, processor
time of each check (which depends little on who else is at work), load of the machine. All ways take turns
within a round; every verdict is checked.
Not here: whether anything is contained (tests/sandbox).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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
IMPORTS = "import collections, heapq, itertools, math, random, re, typing\n"
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


def plain_python(workers: int, options: tuple[str, ...], imports: str) -> Way:
    """The peer: a new interpreter for each program, without any containment."""
    command = [sys.executable, *options, "-c", imports + PROGRAM]

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


def all_ways(stack: ExitStack, workers: int) -> dict[str, Way]:
    """What takes turns. Whatever was started ends with the stack."""
    ways: dict[str, Way] = {}
    for tier in Tier:
        pool = stack.enter_context(SandboxPool(workers=workers, tier=tier))
        ways[f"{tier}: program"] = contained_programs(pool)
        ways[f"{tier}: function, three tests"] = contained_functions(pool)
    ways["python -c, what solutions import"] = plain_python(workers, (), IMPORTS)
    ways["python -I -S -c, nothing imported"] = plain_python(workers, ("-I", "-S"), "")
    return ways


def cpu_seconds(name: str, count: int, workers: int) -> float:
    """Processor time of so many checks, ours and that of every process that ended."""
    before = _cpu_seconds()
    with ExitStack() as stack:
        all_ways(stack, workers)[name](count)
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


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
        ways = all_ways(stack, options.workers)
        rates = measured(ways, rounds=options.rounds, count=options.count)
    used = {
        name: cpu_seconds(name, 1 + options.count, options.workers) - cpu_seconds(name, 1, options.workers)
        for name in ways
    }
    result = {
        **provenance("sandbox", measure()),
        "kernel": platform.release(),
        "workers": options.workers,
        "load_before": before,  # of the last 1, 5 and 15 minutes: others were at work where it is not near 0
        "load_after": os.getloadavg(),
        "ways": {
            name: summary(of_way) | {"cpu_ms_per_check": round(1000 * used[name] / options.count, 1)}
            for name, of_way in rates.items()
        },
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, of_way in rates.items():
        print(
            f"{name:40} {statistics.median(of_way):7.1f} checks/s  ({min(of_way):.1f} to {max(of_way):.1f})"
        )


if __name__ == "__main__":
    main()
