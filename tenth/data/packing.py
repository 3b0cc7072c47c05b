"""Pack rows of different lengths into few rows of one capacity, so that little of a batch is padding.

Why: best-fit decreasing wastes little and never cuts an example, which SFT and RL rows must not be.
In:  lengths. Out: which examples share a row. A pure function: no tensors.
Not here: pre-training documents, which are simply laid end to end (shards.py).
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

from tenth.base.errors import DataError


def best_fit(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Indices per row: longest first, each into the fullest row that still holds it, else into a new one."""
    longest = max(range(len(lengths)), key=lambda index: lengths[index], default=None)
    if longest is not None and lengths[longest] > capacity:
        raise DataError(
            f"example {longest} has {lengths[longest]:,} tokens, but a row holds {capacity:,}; "
            "drop it or raise the row's length."
        )
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = bisect_left(free, (lengths[index], 0))
        if place == len(free):
            left, row = capacity, len(rows)
            rows.append([])
        else:
            left, row = free.pop(place)
        rows[row].append(index)
        insort(free, (left - lengths[index], row))
    return rows
