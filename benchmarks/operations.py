"""Why the kernels exist: two operations of a training step, torch's way and ours, interleaved.

python -m benchmarks.operations  -> results/operations.json
In:  nothing.  Out: medians in milliseconds.  Not here: whole steps (train.py).
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from benchmarks.machine import measure
from benchmarks.provenance import RESULTS, provenance
from tenth.base.files import write_json
from tenth.model.attention_core import attention_reference, causal_attention
from tenth.model.rope import rope_tables
from tenth.native.process import tune_process

ROUNDS = 15
BATCH, TIME, HEADS, WIDTH = 32, 256, 4, 32
ROWS, HIDDEN, INNER, EXPERTS = 16384, 128, 96, 8


def attention_ways() -> dict[str, Callable[[], object]]:
    """Causal attention with rotation, forward and backward, bfloat16."""
    cos, sin = (
        table[None] for table in rope_tables(WIDTH // 2, TIME, theta=1e4, scaling=None)
    )  # (1, T, rope / 2)

    def draw(heads: int, width: int) -> torch.Tensor:
        return torch.randn(BATCH, TIME, heads, width, dtype=torch.bfloat16, requires_grad=True)

    q, k, k_rope, v = (
        draw(HEADS, WIDTH),
        draw(HEADS, WIDTH // 2),
        draw(1, WIDTH // 2),
        draw(HEADS, WIDTH),
    )
    grad = torch.randn(BATCH, TIME, HEADS, WIDTH, dtype=torch.bfloat16)
    return {
        "attention, torch": lambda: attention_reference(
            q, k, k_rope, v, cos, sin, scale=0.2, starts=None
        ).backward(grad),
        "attention, ours": lambda: causal_attention(q, k, k_rope, v, cos, sin, scale=0.2).backward(grad),
    }


def grouped_ways() -> dict[str, Callable[[], object]]:
    """torch's grouped product, with group sizes that stay and that change from call to call, bfloat16."""
    rows = torch.randn(ROWS, HIDDEN, dtype=torch.bfloat16)
    weight = torch.randn(EXPERTS, HIDDEN, INNER, dtype=torch.bfloat16)
    rng = random.Random(0)

    def offsets() -> torch.Tensor:
        return torch.tensor([*sorted(rng.sample(range(1, ROWS), EXPERTS - 1)), ROWS], dtype=torch.int32)

    fixed = offsets()
    return {
        "grouped_mm, sizes that stay": lambda: F.grouped_mm(rows, weight, offs=fixed),
        "grouped_mm, sizes that change": lambda: F.grouped_mm(rows, weight, offs=offsets()),
    }


def medians(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds per call, all ways in turn every round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 3):
        for name, call in ways.items():
            began = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: round(statistics.median(values[3:]), 2) for name, values in times.items()}


def main() -> None:
    tune_process()
    machine = measure()
    result = {**medians(attention_ways()), **medians(grouped_ways())}
    write_json(RESULTS / "operations.json", {"milliseconds": result, **provenance("operations", machine)})
    for name, value in result.items():
        print(f"{name}: {value} ms")


if __name__ == "__main__":
    main()
