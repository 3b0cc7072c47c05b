"""Settings of the whole process, applied once by a program before it computes: memory, precision, threads.

Why: torch leaves three things at defaults that cost a CPU run up to half of its speed. They belong to the
process, not to a library, so nothing happens at import: the command line (and a benchmark) calls
`tune_process` first.
In:  nothing; `OMP_NUM_THREADS` is respected.  Out: what was set, for run.json.
Not here: what the machine is (base/machine.py), kernels (build.py).
"""

import ctypes
import os
from dataclasses import dataclass

import torch

from tenth.base.machine import usable_threads
from tenth.base.records import Record

# glibc malloc.h: parameter numbers of mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT = (
    (_M_MMAP_THRESHOLD, 2**30),  # blocks up to this size come from the heap, where they can be used again
    (_M_TRIM_THRESHOLD, 2**31 - 1),  # free heap is kept; an int is all that the call can carry
    (_M_TOP_PAD, 64 * 2**20),  # and grows in strides
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings(Record):
    """What `tune_process` did."""

    threads: int
    float32_matmul_precision: str
    keeps_memory: bool  # False: not glibc, the allocator stays as it was


def tune_process() -> ProcessSettings:
    """Apply the settings; twice is the same as once, and what a platform does not know is left alone."""
    # By default glibc hands every block of 32 MiB and more back to the kernel when a tensor dies, and the
    # next one pays for fresh zeroed pages: a softmax of 32 MB takes 11.5 ms instead of 2 ms.
    keeps_memory = _keep_freed_memory()
    # "medium" makes torch call oneDNN instead of MKL for float32 products. MKL does not take its AVX-512 path
    # on AMD: 190 GFLOP/s against 450, with the same float32 accuracy (relative error 4e-7). On processors
    # with AMX "medium" may compute in bfloat16; a float32 test of exactness must not rely on it.
    torch.set_float32_matmul_precision("medium")
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_threads())
    return ProcessSettings(
        threads=torch.get_num_threads(),
        float32_matmul_precision=torch.get_float32_matmul_precision(),
        keeps_memory=keeps_memory,
    )


def _keep_freed_memory() -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    accepted = [
        mallopt(name, value) == 1 for name, value in _KEPT
    ]  # every one is asked, also after a refusal
    return all(accepted)
