"""When and where a stage's training state is saved: every so many seconds, the last few kept.

Saving is by the clock because it changes no result: whatever is lost is recomputed to the same bits. Going
back is not by the clock, since where a run goes back to does change its result: that needs anchors, saves at
fixed steps.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tenth.checkpoint.training_state import (
    State,
    load_latest,
    load_state,
    prune,
    save_state,
    saved_steps,
    step_directory,
)
from tenth.checkpoint.whole_dir import remove_directory
from tenth.pipeline.stage import StageClock


class SavingRules(Protocol):
    """What a recipe says about saving."""

    @property
    def checkpoint_every_seconds(self) -> float:
        """How much work a kill may cost."""
        ...

    @property
    def keep_checkpoints(self) -> int:
        """How many of the last saves stay."""
        ...


class Saver:
    """The checkpoints of one stage."""

    def __init__(self, stage_dir: Path, rules: SavingRules, *, anchor_every: int | None = None) -> None:
        """`anchor_every`: that many steps apart lie the saves to go back to; None: nobody goes back."""
        self.directory = stage_dir / "checkpoint"
        self.every_seconds, self.keep_last = rules.checkpoint_every_seconds, rules.keep_checkpoints
        self.anchor_every = anchor_every
        self.clock = StageClock(stage_dir)
        self.last = time.monotonic()
        self.best: tuple[float, int] | None = None  # (score, step) of the best save so far

    def load(self) -> State | None:
        """The newest whole checkpoint."""
        state = load_latest(self.directory)
        if state is not None and state.facts.get("best"):
            score, step = state.facts["best"]
            self.best = (float(score), int(step))
        return state

    def is_due(self, step: int) -> bool:
        """Whether enough time has passed, or the state before `step` is an anchor."""
        return self._anchor(step) == step or time.monotonic() - self.last >= self.every_seconds

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        *,
        score: float | None = None,
    ) -> None:
        """The state before step `step`. Of the scored saves the best is kept, whatever its age."""
        if score is not None and (self.best is None or score > self.best[0]):
            self.best = (score, step)
        save_state(self.directory, step=step, tensors=tensors, facts={**facts, "best": self.best})
        keep = self.best[1] if self.best else self._anchor(step)
        prune(self.directory, keep_last=self.keep_last, keep=keep)
        self.clock.save()
        self.last = time.monotonic()

    def go_back(self, step: int) -> State:
        """The last anchor at or before `step`; later saves are of a way that was given up, so they go."""
        anchor = self._anchor(step)
        assert anchor is not None, "a stage that goes back must say how far apart its anchors lie"
        for later in saved_steps(self.directory):
            if later > anchor:
                remove_directory(step_directory(self.directory, later))
        return load_state(self.directory, step=anchor)

    def _anchor(self, step: int) -> int | None:
        return None if self.anchor_every is None else step - step % self.anchor_every
