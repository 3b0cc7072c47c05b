"""A peer's settings, each tried for a moment, so that it is compared at its best; failures are results too.

In:  settings, a function that builds a worker for one of them.  Out: `Trial`s, best first.
Not here: which settings a peer has (train.py, grpo.py).
"""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.workers import Worker, WorkerError


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting's moment."""

    options: Mapping[str, Any]
    keeps_memory: bool  # allocator told to keep freed memory (workers.KEEP_MEMORY)
    seconds: float | None  # median of a step; None: it failed
    steps: int = 0
    error: str | None = None

    def name(self) -> str:
        """The setting in a few words."""
        words = [
            str(v) if not isinstance(v, bool) else k.removeprefix("is_") for k, v in self.options.items() if v
        ]
        return ", ".join([*words, *(["kept memory"] if self.keeps_memory else [])])


def try_setting(
    side: str, fixed: Mapping[str, Any], options: Mapping[str, Any], *, keeps_memory: bool, steps: int
) -> Trial:
    """Build, warm up with two steps, time `steps` more."""
    try:
        worker = Worker(side, {**fixed, **options}, keeps_memory=keeps_memory)
        try:
            worker.run(2)
            seconds = statistics.median(worker.run(steps))
        finally:
            worker.close()
    except WorkerError as error:
        return Trial(options=options, keeps_memory=keeps_memory, seconds=None, error=str(error))
    return Trial(options=options, keeps_memory=keeps_memory, seconds=seconds, steps=steps)


def scan(
    side: str,
    fixed: Mapping[str, Any],
    grid: Iterable[Mapping[str, Any]],
    *,
    steps: int,
    again: int = 2,
    tell: Callable[[str], None] = print,
) -> list[Trial]:
    """Every setting with kept memory; the `again` best also compiled, the very best without kept memory too.

    Compiling takes a minute per setting, so it is tried where it could win. Best first, failures last.
    """
    trials = []

    def attempt(options: Mapping[str, Any], *, keeps_memory: bool) -> None:
        trial = try_setting(side, fixed, options, keeps_memory=keeps_memory, steps=steps)
        tell(
            f"  {trial.name()}: " + (f"{trial.seconds:.3f} s" if trial.seconds else f"failed, {trial.error}")
        )
        trials.append(trial)

    for options in grid:
        attempt(options, keeps_memory=True)
    for best in ranked(trials)[:again]:
        if best.seconds is not None:
            attempt({**best.options, "is_compiled": True}, keeps_memory=True)
    for best in ranked(trials)[:1]:
        if best.seconds is not None:
            attempt(best.options, keeps_memory=False)
    return ranked(trials)


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Fastest first, failures last."""
    return sorted(trials, key=lambda trial: (trial.seconds is None, trial.seconds or 0.0))
