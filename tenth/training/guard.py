"""The guard: is this step fit to be applied? Pure decisions, no tensors, no clock.

Why: one NaN or one spike can ruin hours of training. DeepSeek-V3 reports no irrecoverable spike
(arXiv:2412.19437, section 1); a small run on a borrowed machine cannot count on that.
In:  the loss and gradient norm of a step that has been computed but not applied, and the guard's memory.
Out: a `Judgement`: what to do, why in one sentence, and the new memory. The loop obeys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median

from tenth.base.records import Record


class Action(StrEnum):
    """What the loop should do with the step."""

    CONTINUE = "continue"  # apply it
    SKIP = "skip"  # discard its gradients, go on with the next batch
    ROLLBACK = "rollback"  # go back to the last checkpoint
    STOP = "stop"  # end the run; a person must look


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """When a step is bad, and how many bad ones are borne."""

    window: int = 64  # good losses remembered
    warm_steps: int = 16  # no spike is called before so many are known
    spike_score: float = 10.0  # robust standard deviations above the median
    smallest_spread: float = 0.02  # share of the median below which a spread is not believed
    max_skips: int = 3  # bad steps in a row before going back
    max_rollbacks: int = 2  # of the whole stage, before stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardMemory(Record):
    """What the guard remembers; saved with the checkpoint."""

    losses: tuple[float, ...] = ()
    skips_in_row: int = 0
    rollbacks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The decision on one step."""

    action: Action
    reason: str  # one sentence; empty when all is well
    memory: GuardMemory


def spike_score(losses: Sequence[float], loss: float, *, smallest_spread: float) -> float:
    """Distance above the median in robust standard deviations (1.4826 × median absolute deviation)."""
    middle = median(losses)
    spread = 1.4826 * median(abs(value - middle) for value in losses)
    return (loss - middle) / max(spread, smallest_spread * abs(middle), 1e-12)


def judge(memory: GuardMemory, config: GuardConfig, *, loss: float, grad_norm: float) -> Judgement:
    """Decide on a step from its loss and gradient norm."""
    trouble = _trouble(memory, config, loss=loss, grad_norm=grad_norm)
    if not trouble:
        losses = (*memory.losses, loss)[-config.window :]
        return Judgement(
            action=Action.CONTINUE, reason="", memory=replace(memory, losses=losses, skips_in_row=0)
        )
    skips = memory.skips_in_row + 1
    if skips <= config.max_skips:
        return Judgement(
            action=Action.SKIP,
            reason=f"{trouble}; the step is skipped ({skips} of {config.max_skips} in a row).",
            memory=replace(memory, skips_in_row=skips),
        )
    rollbacks = memory.rollbacks + 1
    after = replace(memory, skips_in_row=0, rollbacks=rollbacks)
    if rollbacks <= config.max_rollbacks:
        return Judgement(
            action=Action.ROLLBACK,
            reason=f"{trouble}, after {config.max_skips} skipped steps; going back to the last checkpoint "
            f"({rollbacks} of {config.max_rollbacks}).",
            memory=after,
        )
    return Judgement(
        action=Action.STOP,
        reason=f"{trouble}, and {config.max_rollbacks} returns to a checkpoint did not help; the run stops. "
        "Lower the learning rate or look at the data of this step.",
        memory=after,
    )


def _trouble(memory: GuardMemory, config: GuardConfig, *, loss: float, grad_norm: float) -> str:
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(grad_norm):
        return f"the gradient norm is {grad_norm}"
    if len(memory.losses) < config.warm_steps:
        return ""
    score = spike_score(memory.losses, loss, smallest_spread=config.smallest_spread)
    if score > config.spike_score:
        middle = median(memory.losses)
        return f"the loss {loss:.4g} is {score:.1f} standard deviations above its median {middle:.4g}"
    return ""
