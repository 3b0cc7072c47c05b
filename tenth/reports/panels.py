"""Which metrics are drawn together, in which colour: a table of panels, no drawing.

Why: adding a curve to the report is adding a line here.
In:  documented metric names.  Out: `Panel`s, and the points and smoothed lines they show.
Not here: matplotlib (figures.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tenth.reports.doctor import Rows
from tenth.reports.scores import FORCED_DIRECT, FORCED_THINK, GREEDY, SAMPLED

ZERO_COLOUR = "#4f5bd5"
BASE_COLOURS = {SAMPLED: "#8a97a8", GREEDY: "#b9c2cd", FORCED_THINK: "#e0912f", FORCED_DIRECT: "#2a9d8f"}
GUESS_COLOUR = "#d1495b"
BLUE, ORANGE, TEAL, RED = (
    ZERO_COLOUR,
    BASE_COLOURS[FORCED_THINK],
    BASE_COLOURS[FORCED_DIRECT],
    GUESS_COLOUR,
)


class Unit(StrEnum):
    """How an axis is scaled and written."""

    PLAIN = "plain"
    SHARE = "share"  # 0 to 100 %
    SMALL = "small share"  # from 0 to wherever the values end, in percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small plot of metrics over steps."""

    title: str
    lines: Sequence[tuple[str, str, str]]  # metric, label, colour
    unit: Unit = Unit.PLAIN
    reference: tuple[float, str] | None = None  # a dashed level and its label


PRETRAIN_PANELS = (
    Panel(title="Loss", lines=(("loss", "next token", BLUE), ("mtp_loss", "token after next", ORANGE))),
    Panel(title="Held-out text, bits per byte", lines=(("val_bpb", "", BLUE),)),
    Panel(title="MaxVio (0 = experts in balance)", lines=(("max_vio", "", TEAL),)),
    Panel(title="Share of the machine's peak", lines=(("peak_share", "", TEAL),), unit=Unit.SHARE),
)

REWARD_PANELS = (
    Panel(title="Reward", lines=(("reward", "", BLUE),)),
    Panel(
        title="Accuracy and format",
        lines=(("rewards/accuracy/mean", "accuracy", BLUE), ("rewards/format/mean", "format", TEAL)),
        unit=Unit.SHARE,
    ),
    Panel(title="Groups without signal", lines=(("frac_reward_zero_std", "", RED),), unit=Unit.SHARE),
)


def behaviour_panels(corpus_reflection_per_1k: float | None) -> tuple[Panel, ...]:
    """What changes in the answers and in the update while rewards rise."""
    level = None
    if corpus_reflection_per_1k is not None:
        level = (corpus_reflection_per_1k, "in the documents")
    return (
        Panel(title="Response length, tokens", lines=(("completions/mean_length", "", BLUE),)),
        Panel(title="Share of answers that think", lines=(("think_share", "", BLUE),), unit=Unit.SHARE),
        Panel(
            title="Reflection words per 1,000 tokens",
            lines=(("reflection_per_1k", "", ORANGE),),
            reference=level,
        ),
        Panel(title="Entropy, nats per token", lines=(("entropy", "", TEAL),)),
        Panel(title="KL to the reference, nats", lines=(("kl", "", TEAL),)),
        Panel(title="Share of clipped ratios", lines=(("clip_ratio/region_mean", "", RED),), unit=Unit.SMALL),
    )


def family_panels(rows: Rows) -> tuple[Panel, ...]:
    """One panel per family: its training accuracy."""
    prefix = "accuracy/"
    names = sorted({key for row in rows for key in row if key.startswith(prefix)})
    return tuple(
        Panel(title=name.removeprefix(prefix), lines=((name, "", BLUE),), unit=Unit.SHARE) for name in names
    )


def smooth(values: Sequence[float], *, window: int) -> list[float]:
    """Centred moving average; the window shrinks evenly on both sides towards the ends."""
    last = len(values) - 1
    halves = [min(window // 2, i, last - i) for i in range(len(values))]
    cut = [values[i - half : i + half + 1] for i, half in enumerate(halves)]
    return [sum(part) / len(part) for part in cut]


def points(rows: Rows, metric: str) -> tuple[list[float], list[float]]:
    """The steps at which a metric was written, and its values."""
    found = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    return [step for step, _ in found], [value for _, value in found]
