"""How fast this machine reads memory right now: the yardstick of a decode step, measured before every round.

Why: a decode step cannot be faster than reading the weights once, and on a shared machine that limit moves by
a fifth within minutes.
In:  nothing.  Out: a side for workers.py that answers any request with GB/s (1e9 bytes).
The array is 1 GiB, far larger than any cache, on large pages where the system grants them, because those read
fastest: a share against the best possible read is the honest one.
"""

import ctypes
import mmap
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.workers import Channel

BYTES = 1 << 30
PASSES = 5
SOURCE = Path(__file__).with_suffix(".cpp")


def build(folder: Path) -> ctypes.CDLL:
    """Compile the loop."""
    target = folder / "read.so"
    flags = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp"]
    subprocess.run([os.environ.get("CXX", "g++"), *flags, str(SOURCE), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.read_all.restype = ctypes.c_uint64
    library.read_all.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return library


def bandwidth(channel: Channel, *, threads: int) -> None:
    """The side."""
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
    memory = mmap.mmap(-1, BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    words = (ctypes.c_uint8 * BYTES).from_buffer(memory)
    ctypes.memset(words, 1, BYTES)
    each = int.from_bytes(b"\1" * 8, "little")
    expected = each * (BYTES // 8) % 2**64

    def measure(_request: Any) -> float:
        rates = []
        for _ in range(PASSES):
            start = time.perf_counter()
            total = library.read_all(ctypes.addressof(words), BYTES, threads)
            rates.append(BYTES / (time.perf_counter() - start) / 1e9)
            if total != expected:
                raise RuntimeError(f"the sum of the array was {total}, not {expected}")
        return round(statistics.median(rates), 2)

    channel.answer(measure, {"bytes": BYTES, "threads": threads})
