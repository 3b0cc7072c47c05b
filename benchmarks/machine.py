"""What this machine can do, measured in the same run as the benchmark: matrix products and memory.

Why: a ratio to a peer says who is faster, a share of the peak says how much is left; the machine is noisy
and shared, so a peak written down on another day would be another machine's.
In:  nothing.  Out: a frozen `Machine`; `python -m benchmarks.machine` prints it as JSON.
Not here: theoretical peaks.
"""

import dataclasses
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tenth.native.build import library


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Who measured, and what it can do at best."""

    cpu: str
    cores: int
    threads: int
    memory_gib: float
    torch: str
    python: str
    commit: str
    has_native_kernels: bool
    bf16_gflop_per_s: float  # best of three sizes of square matrix product
    fp32_gflop_per_s: float  # the same at float32 matmul precision "medium"
    read_gb_per_s: float  # sum of a 512 MB array

    def peak(self, precision: str) -> float:
        """The peak of the data type that the matrix products of this precision run in."""
        return self.fp32_gflop_per_s if precision.startswith("fp32") else self.bf16_gflop_per_s


def median_seconds(run: Callable[[], object], *, repeats: int) -> float:
    """Median of `repeats` calls after two that warm up."""
    run(), run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def matmul_gflop_per_s(dtype: torch.dtype, *, sizes: tuple[int, ...] = (1024, 2048, 3072)) -> float:
    """The best rate of a square product into a buffer that exists already."""
    best = 0.0
    for n in sizes:
        a, b, out = (
            torch.randn(n, n, dtype=dtype),
            torch.randn(n, n, dtype=dtype),
            torch.empty(n, n, dtype=dtype),
        )
        seconds = median_seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), repeats=9)  # type: ignore[misc]
        best = max(best, 2 * n**3 / seconds / 1e9)
    return best


def read_gb_per_s() -> float:
    """How fast a large array can be summed."""
    values = torch.ones(128 * 1024 * 1024)  # 512 MB of float32
    return values.numel() * 4 / median_seconds(values.sum, repeats=7) / 1e9


def measure() -> Machine:
    """Takes about three seconds; the precision setting is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        fp32 = matmul_gflop_per_s(torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)
    return Machine(
        cpu=_cpu_name(),
        cores=torch.multiprocessing.cpu_count(),
        threads=torch.get_num_threads(),
        memory_gib=round(_memory_gib(), 1),
        torch=torch.__version__,
        python=platform.python_version(),
        commit=_commit(),
        has_native_kernels=library() is not None,
        bf16_gflop_per_s=round(matmul_gflop_per_s(torch.bfloat16), 1),
        fp32_gflop_per_s=round(fp32, 1),
        read_gb_per_s=round(read_gb_per_s(), 1),
    )


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def _memory_gib() -> float:
    path = Path("/proc/meminfo")
    return int(path.read_text().split()[1]) / 2**20 if path.exists() else 0.0


def _commit() -> str:
    """The checkout's commit, `+` behind it where tracked files of tenth/ or benchmarks/ differ from it."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        ).stdout.strip()

    is_changed = bool(git("status", "--porcelain", "--untracked-files=no", "--", "tenth", "benchmarks/*.py"))
    return git("rev-parse", "--short", "HEAD") + ("+" if is_changed else "")


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measure()), indent=2))
