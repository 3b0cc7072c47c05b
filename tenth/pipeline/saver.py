"""When and where a stage's training state is saved: every so many seconds, the last few kept.

Saving is by the clock because it changes no result: whatever is lost is recomputed to the same bits.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tenth.checkpoint.training_state import State, load_latest, prune, save_state
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.stage import StageClock


class Saver:
    """The checkpoints of one stage."""

    def __init__(self, stage_dir: Path, recipe: ZeroRecipe) -> None:
        self.directory = stage_dir / "checkpoint"
        self.every_seconds, self.keep_last = recipe.checkpoint_every_seconds, recipe.keep_checkpoints
        self.clock = StageClock(stage_dir)
        self.last = time.monotonic()

    def load(self) -> State | None:
        """The newest whole checkpoint."""
        return load_latest(self.directory)

    def is_due(self) -> bool:
        """Whether enough time has passed."""
        return time.monotonic() - self.last >= self.every_seconds

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """The state before step `step`."""
        save_state(self.directory, step=step, tensors=tensors, facts=facts)
        prune(self.directory, keep_last=self.keep_last)
        self.clock.save()
        self.last = time.monotonic()
