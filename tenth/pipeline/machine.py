"""What this machine is and can do, measured once per run: compute type and matrix-product peak.

Utilisation is a share of what this very machine reached a moment ago, not of a data sheet.
"""

import time
from dataclasses import dataclass

import torch

from tenth.base.machine import has_bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How a run computes."""

    compute_dtype: torch.dtype
    peaks: dict[str, float]  # "bf16", "fp32": FLOP/s of a 2048-wide product

    @property
    def matmul_peak(self) -> float:
        """FLOP/s in the compute type."""
        return self.peaks["bf16" if self.compute_dtype == torch.bfloat16 else "fp32"]


def measure_machine() -> Machine:
    """Half a second of matrix products; bfloat16 where the processor has it."""
    peaks = {"bf16": measure_peak(torch.bfloat16), "fp32": measure_peak(torch.float32)}
    # By what the processor has, not by which product happened to be faster: a busy moment must not decide.
    dtype = torch.bfloat16 if has_bf16() else torch.float32
    return Machine(compute_dtype=dtype, peaks=peaks)


def measure_peak(dtype: torch.dtype, *, width: int = 2048, rounds: int = 7) -> float:
    """FLOP/s of a square product: the best of a few rounds, since a peak is what nobody disturbed."""
    a, b = torch.randn(width, width).to(dtype), torch.randn(width, width).to(dtype)
    seconds = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    return 2 * width**3 / min(seconds[2:])
