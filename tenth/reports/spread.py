"""Mean, lowest and highest of a number over several runs.

Not here: which numbers (seeds.py, r1_seeds.py).
"""

from collections.abc import Sequence
from typing import Any

from tenth.reports.runs import Run

Spread = dict[str, Any]


def spread(values: Sequence[float | None]) -> Spread:
    """Mean, min and max of the known values; the values themselves stay beside them."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "min": None, "max": None, "values": list(values)}
    return {"mean": sum(known) / len(known), "min": min(known), "max": max(known), "values": list(values)}


def describe_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Which runs they are."""
    return [
        {"name": run.name, "seed": run.recipe.get("seed"), "commit": run.info.get("commit")} for run in runs
    ]
