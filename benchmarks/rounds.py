"""Interleaved rounds of two workers, and what they say: medians, spread, a ratio per round.

Why: a shared machine moves by a fifth from minute to minute; neighbours in time move together, so each
round's ratio is worth more than two averages taken apart.
In:  two workers, numbers of rounds and steps.  Out: `Comparison`.
"""

import statistics
from dataclasses import dataclass

from benchmarks.workers import Worker


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Seconds per step, the median of each round, and what follows from them."""

    ours_seconds: tuple[float, ...]
    peer_seconds: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster we were, round by round."""
        return tuple(peer / own for own, peer in zip(self.ours_seconds, self.peer_seconds, strict=True))

    def to_dict(self) -> dict[str, object]:
        """For the JSON file."""
        return {
            "ours": spread(self.ours_seconds),
            "peer": spread(self.peer_seconds),
            "ratio": spread(self.ratios),
        }


def spread(values: tuple[float, ...]) -> dict[str, object]:
    """Median, extremes and all values."""
    rounded = [round(value, 5) for value in values]
    return {"median": statistics.median(rounded), "min": min(rounded), "max": max(rounded), "rounds": rounded}


def compare(ours: Worker, peer: Worker, *, rounds: int, steps: int, warm_up: int = 2) -> Comparison:
    """Warm both up, then alternate; who begins alternates too."""
    ours.run(warm_up)
    peer.run(warm_up)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            times[side].append(statistics.median((ours, peer)[side].run(steps)))
    return Comparison(ours_seconds=tuple(times[0]), peer_seconds=tuple(times[1]))
