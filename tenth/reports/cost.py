"""What each stage cost: seconds, tokens, floating-point operations, share of the machine's peak, dollars.

Why: a result without its price cannot be compared with anything.
In:  a `Run`.  Out: one `StageCost` per stage, and their sum.
Not here: predicted costs (planning/), bars (figures.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tenth.reports.runs import Run, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """The measured cost of one stage; None where it was not recorded."""

    name: str
    seconds: float | None
    tokens: float | None
    flops: float | None
    peak_share: float | None  # of the highest matrix-product rate measured on this machine
    usd: float | None
    is_done: bool


def stage_costs(run: Run) -> list[StageCost]:
    """One row per stage that has begun."""
    return [_cost(run, stage) for stage in run.stages]


def total_cost(costs: Sequence[StageCost], *, run: Run) -> StageCost:
    """All stages together; the share of the peak counts every second, also those without arithmetic."""
    seconds, flops = _sum([c.seconds for c in costs]), _sum([c.flops for c in costs])
    return StageCost(
        name="total",
        seconds=seconds,
        tokens=_sum([c.tokens for c in costs]),
        flops=flops,
        peak_share=_peak_share(run, seconds=seconds, flops=flops),
        usd=_usd(run, seconds),
        is_done=all(c.is_done for c in costs),
    )


def _cost(run: Run, stage: Stage) -> StageCost:
    if stage.done is None:
        # An unfinished stage has no DONE.json; its step times are what is known.
        seconds = _sum([row.get("step_time") for row in stage.metrics()])
        return StageCost(
            name=stage.name,
            seconds=seconds,
            tokens=None,
            flops=None,
            peak_share=None,
            usd=_usd(run, seconds),
            is_done=False,
        )
    done = stage.done
    return StageCost(
        name=stage.name,
        seconds=done.seconds,
        tokens=done.tokens,
        flops=done.flops,
        peak_share=_peak_share(run, seconds=done.seconds, flops=done.flops),
        usd=_usd(run, done.seconds),
        is_done=True,
    )


def _peak_share(run: Run, *, seconds: float | None, flops: float | None) -> float | None:
    peak = max(run.matmul_peak_flops.values(), default=0.0)
    return flops / (seconds * peak) if flops and seconds and peak else None


def _usd(run: Run, seconds: float | None) -> float | None:
    if seconds is None or run.price_usd_per_hour is None:
        return None
    return seconds / 3600 * run.price_usd_per_hour


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
