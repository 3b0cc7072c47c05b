"""Schedules as pure functions: learning rate, batch ramp, MTP weight, router-bias speed.

Why: what a step does must follow from its number alone, so that a continued run does the same thing.
In:  a step counted from 0, or the progress of the stage (a fraction of its tokens or steps, 0 to 1).
Out: a factor of the peak learning rate, a number of sequences, a weight.
Source: DeepSeek-V3 (arXiv:2412.19437), section 4.2. Its turning points are kept as fractions of 14.8T tokens.
"""

import math
from dataclasses import dataclass

from tenth.base.errors import ConfigError

V3_TOKENS = 14.8e12
V3_CONSTANT_UNTIL = 10e12 / V3_TOKENS  # 2.2e-4 up to 10T tokens
V3_COSINE_UNTIL = 14.3e12 / V3_TOKENS  # cosine down to 2.2e-5 over the next 4.3T
V3_LAST_PHASE = 14.633e12 / V3_TOKENS  # 333B more at 2.2e-5, then 167B at 7.3e-6
V3_FLOOR = 2.2e-5 / 2.2e-4
V3_LAST_FLOOR = 7.3e-6 / 2.2e-4
V3_MTP_SWITCH = 10e12 / V3_TOKENS  # lambda 0.3, then 0.1
V3_BIAS_FREEZE = 14.3e12 / V3_TOKENS  # gamma 0.001, then 0


@dataclass(frozen=True, kw_only=True)
class LrSchedule:
    """Linear warm-up, constant, cosine to `floor`, then flat; optionally a last, lower step."""

    warmup_steps: int = 0
    constant_until: float = V3_CONSTANT_UNTIL  # fraction of the stage
    cosine_until: float = 1.0  # V3: V3_COSINE_UNTIL, followed by the two-step tail
    floor: float = V3_FLOOR  # of the peak
    last_phase_from: float | None = None  # V3: V3_LAST_PHASE; None: no last phase
    last_floor: float = V3_LAST_FLOOR

    def __post_init__(self) -> None:
        if not 0 <= self.constant_until <= self.cosine_until <= 1:
            raise ConfigError(
                f"constant_until = {self.constant_until} and cosine_until = {self.cosine_until} are "
                "fractions of the stage, so they must satisfy 0 <= constant_until <= cosine_until <= 1."
            )


def lr_factor(schedule: LrSchedule, *, step: int, progress: float) -> float:
    """The share of the peak learning rate that step `step` uses, at `progress` of the stage."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if progress <= schedule.constant_until:
        return 1.0
    if schedule.last_phase_from is not None and progress >= schedule.last_phase_from:
        return schedule.last_floor
    if progress >= schedule.cosine_until:
        return schedule.floor
    fall = (progress - schedule.constant_until) / (schedule.cosine_until - schedule.constant_until)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * fall))


@dataclass(frozen=True, kw_only=True)
class BatchRamp:
    """Sequences per step: linear from `start` to `final` over `ramp_steps` (V3: 3072 to 15360)."""

    start: int
    final: int
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        if self.start < 1 or self.final < 1 or self.ramp_steps < 0:
            raise ConfigError(
                f"batch ramp from {self.start} to {self.final} sequences over {self.ramp_steps} steps: "
                "sizes must be at least 1 and ramp_steps at least 0."
            )


def sequences_at(ramp: BatchRamp, *, step: int) -> int:
    """How many sequences step `step` trains on."""
    if step >= ramp.ramp_steps:
        return ramp.final
    return ramp.start + (ramp.final - ramp.start) * step // ramp.ramp_steps


def sequences_before(ramp: BatchRamp, *, step: int) -> int:
    """How many sequences all earlier steps have used: the data cursor of step `step`."""
    ramped = min(step, ramp.ramp_steps)
    return sum(sequences_at(ramp, step=earlier) for earlier in range(ramped)) + (step - ramped) * ramp.final


def steps_for(ramp: BatchRamp, *, num_sequences: int) -> int:
    """The smallest number of steps that uses at least `num_sequences`."""
    used, step = 0, 0
    while used < num_sequences and step < ramp.ramp_steps:
        used += sequences_at(ramp, step=step)
        step += 1
    return step + max(0, -(-(num_sequences - used) // ramp.final))


def mtp_weight(
    progress: float, *, first: float = 0.3, second: float = 0.1, switch_at: float = V3_MTP_SWITCH
) -> float:
    """Lambda of the multi-token-prediction loss (section 4.2)."""
    return first if progress < switch_at else second


def bias_speed(progress: float, *, speed: float = 0.001, freeze_at: float = V3_BIAS_FREEZE) -> float:
    """Gamma, the step of the router bias, frozen near the end (section 4.2)."""
    return speed if progress < freeze_at else 0.0
