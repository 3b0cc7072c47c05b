"""What of somebody's file is held out, and in which order the rest is drawn.

Why: a gain on what was trained on says nothing, so a part of the file is set aside by its content; whoever
repeats a command gets the same part and the same order, wherever it was interrupted.
In:  what the examples ask; how many there are, a seed.
Out: the questions to hold out; a function from a step to the places of its examples.
Not here: reading files (tasks/problem_files.py, data/conversations.py).
"""

from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from tenth.base.errors import DataError
from tenth.base.files import text_hash
from tenth.base.seeds import stream_random

_LARGEST_SHARE = 10  # one in so many prompts is held out, at most

K = TypeVar("K", bound=Hashable)


def hold_out(prompts: Iterable[K], *, most: int, source: Path) -> list[K]:
    """`most` of the distinct prompts, or a tenth if that is less; which ones follows from them alone."""
    distinct = sorted(set(prompts), key=lambda prompt: text_hash("held-out", str(prompt)))
    if len(distinct) < 2:
        raise DataError(
            f"{source} has {len(distinct)} distinct prompt, but one is held out to measure with; "
            "give at least 2."
        )
    return distinct[: min(most, -(-len(distinct) // _LARGEST_SHARE))]


def shuffled_places(total: int, *, seed: int, stream: str) -> Callable[[int, int], list[int]]:
    """(step, count) -> places: every one once before any comes again, each pass in another order."""

    @lru_cache(maxsize=2)  # a step may end one pass and begin the next
    def order(epoch: int) -> list[int]:
        places = list(range(total))
        stream_random(seed, stream, epoch).shuffle(places)
        return places

    def places_of(step: int, count: int) -> list[int]:
        turns = (divmod(step * count + i, total) for i in range(count))
        return [order(epoch)[place] for epoch, place in turns]

    return places_of
