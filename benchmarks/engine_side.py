"""What every side of the engine benchmark answers: a timed greedy continuation, and logits for comparing.

In:  requests as JSON from engine_rounds.py and engine_quality.py.  Out: `Timing`, or a file of logits.
Not here: the sides (engine_sides.py, engine_llama.py).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.workers import Channel, Worker


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One trial of one side."""

    prefill_seconds: float  # until every sequence has its first token
    step_seconds: tuple[float, ...]  # of each later step that gave every sequence one token
    ids: tuple[tuple[int, ...], ...]  # what was generated, prompt by prompt


class Side(Protocol):
    """A model that was loaded with some settings."""

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing: ...
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]: ...


def serve(channel: Channel, side: Side, facts: Mapping[str, Any]) -> None:
    """The child's loop."""

    def answer(request: Mapping[str, Any]) -> Any:
        if "path" in request:
            np.save(request["path"], side.logits(request["ids"]))
            return None
        return dataclasses.asdict(side.generate(request["prompts"], request["new_tokens"]))

    channel.answer(answer, facts)


def ask_timing(worker: Worker, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
    """The parent's end of a trial."""
    answer = worker.ask({"prompts": prompts, "new_tokens": new_tokens})
    return Timing(
        prefill_seconds=answer["prefill_seconds"],
        step_seconds=tuple(answer["step_seconds"]),
        ids=tuple(map(tuple, answer["ids"])),
    )


def ask_logits(worker: Worker, ids: Sequence[int], path: Path) -> NDArray[np.float32]:
    """The parent's end of a comparison; (T, V), read from `path`, which is removed."""
    worker.ask({"ids": list(ids), "path": str(path)})
    values: NDArray[np.float32] = np.load(path)
    path.unlink()
    return values
