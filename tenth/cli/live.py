"""The live view of a run: one line per stage with bar and ETA, and the few numbers that matter.

Why: a person who waits wants to know how far, how long and whether it works, and nothing else. On a
terminal the view is redrawn in place; in a pipe or a log file it becomes plain aligned lines, one every few
seconds.
In:  the numbers of every step, through `MetricSink`.
Out: text on a console.
Not here: where the numbers come from; metrics.jsonl keeps all of them (base/runlog.py).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tenth.base.runlog import Metrics
from tenth.base.units import show_count, show_seconds

PLAIN_EVERY_SECONDS = 5.0
REFRESH_PER_SECOND = 4.0

Show = Callable[[float], str]


def _fixed(digits: int) -> Show:
    return lambda value: f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return f"{value:.0%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One number of the view: its documented metric name, its label, how it is written."""

    metric: str
    label: str
    show: Show


REINFORCEMENT_COLUMNS = (
    Column(metric="reward", label="reward", show=_fixed(3)),
    Column(metric="rewards/accuracy/mean", label="accuracy", show=_percent),
    Column(metric="completions/mean_length", label="length", show=_fixed(0)),
    Column(metric="think_share", label="thinks", show=_percent),
    Column(metric="entropy", label="entropy", show=_fixed(3)),
)
LANGUAGE_COLUMNS = (
    Column(metric="loss", label="loss", show=_fixed(4)),
    Column(metric="val_bpb", label="bits/byte", show=_fixed(3)),
    Column(metric="val_loss", label="held-out", show=_fixed(4)),
    Column(metric="max_vio", label="MaxVio", show=_fixed(2)),
    Column(metric="tokens_per_second", label="tok/s", show=show_count),
    Column(metric="peak_share", label="of peak", show=_percent),
)
OTHER_COLUMNS = 5  # a stage with neither reward nor loss shows its first five numbers


def columns_for(metrics: Mapping[str, float]) -> Sequence[Column]:
    """The columns of a stage, told by what it measures."""
    if "reward" in metrics:
        return REINFORCEMENT_COLUMNS
    if "loss" in metrics:
        return LANGUAGE_COLUMNS
    return [Column(metric=name, label=name, show=show_count) for name in list(metrics)[:OTHER_COLUMNS]]


@dataclass(slots=True, kw_only=True)
class StageProgress:
    """How far one stage is. Changes with every step."""

    name: str
    total_steps: int
    started_at: float  # seconds on the view's clock
    ended_at: float | None = None
    first_step: int | None = None  # a continued stage does not begin at 0
    first_step_at: float = 0.0
    steps_done: int = 0
    latest: dict[str, float] = field(default_factory=dict)  # every metric's newest value

    def take(self, step: int, metrics: Metrics, *, now: float) -> None:
        """Note one step, counted from 0."""
        if self.first_step is None:
            self.first_step, self.first_step_at = step, now
        self.steps_done = step + 1
        self.total_steps = max(self.total_steps, self.steps_done)  # a guess where compute decides
        self.latest.update(metrics)

    def elapsed_seconds(self, now: float) -> float:
        """Since the stage began, or how long it took."""
        return (self.ended_at if self.ended_at is not None else now) - self.started_at

    def eta_seconds(self, now: float) -> float | None:
        """What is left at the pace so far; None before there is a pace."""
        if self.first_step is None or self.ended_at is not None:
            return None
        # The first step's own duration is unknown when a stage is continued, so the pace begins after it.
        paced = self.steps_done - 1 - self.first_step
        left = max(0, self.total_steps - self.steps_done)
        return left * (now - self.first_step_at) / paced if paced > 0 else None

    def numbers(self) -> list[tuple[str, str]]:
        """Label and value of each column that has been measured."""
        return [
            (column.label, column.show(self.latest[column.metric]))
            for column in columns_for(self.latest)
            if column.metric in self.latest
        ]


class LiveView:
    """A metric sink that draws; use it in a `with`, so that Ctrl-C leaves the terminal as it was."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        plain_every_seconds: float = PLAIN_EVERY_SECONDS,
    ) -> None:
        self.console, self.clock, self.plain_every_seconds = console, clock, plain_every_seconds
        self.stages: dict[str, StageProgress] = {}
        self._live: Live | None = None
        self._last_line_at = float("-inf")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()  # draws the last state and shows the cursor again
            self._live = None

    def start_stage(self, stage: str, *, total_steps: int) -> None:
        """A new line."""
        self.stages[stage] = StageProgress(name=stage, total_steps=total_steps, started_at=self.clock())
        self._last_line_at = float("-inf")
        if self._live is None:
            self._print(f"{stage}: {total_steps:,} step{'s' * (total_steps != 1)}")

    def log(self, stage: str, step: int, metrics: Metrics) -> None:
        """New numbers for a line that is there; a stage that nobody announced is announced here."""
        if stage not in self.stages:
            self.start_stage(stage, total_steps=step + 1)
        now, progress = self.clock(), self.stages[stage]
        progress.take(step, metrics, now=now)
        is_last = progress.steps_done >= progress.total_steps
        if self._live is None and (is_last or now - self._last_line_at >= self.plain_every_seconds):
            self._last_line_at = now
            self._print(plain_line(progress, now=now))

    def end_stage(self, stage: str) -> None:
        """The line stops moving."""
        progress = self.stages.get(stage)
        if progress is None:
            return
        progress.ended_at = self.clock()
        if self._live is None:
            self._print(f"{stage}: done in {show_seconds(progress.elapsed_seconds(progress.ended_at))}")

    def render(self) -> RenderableType:
        """The whole view at this moment."""
        now = self.clock()
        lines = Table.grid(padding=(0, 2))
        for progress in self.stages.values():
            lines.add_row(*_stage_cells(progress, now=now))
        running = [progress for progress in self.stages.values() if progress.ended_at is None]
        numbers = running[-1].numbers() if running else []
        return Group(lines, *([_numbers_line(numbers)] if numbers else []))

    def _print(self, text: str) -> None:
        # No wrapping: a line of a log is one line, however narrow the console claims to be.
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


def plain_line(progress: StageProgress, *, now: float) -> str:
    """One aligned line for a log file."""
    total = f"{progress.total_steps:,}"
    eta = progress.eta_seconds(now)
    numbers = "  ".join(f"{label} {value:>7}" for label, value in progress.numbers())
    left = f"  {show_seconds(eta)} left" if eta else ""
    return f"{progress.name:<16} step {progress.steps_done:>{len(total)},}/{total}  {numbers}{left}"


def _stage_cells(progress: StageProgress, *, now: float) -> list[RenderableType]:
    elapsed = show_seconds(progress.elapsed_seconds(now))
    is_done = progress.ended_at is not None
    eta = progress.eta_seconds(now)
    bar = ProgressBar(
        total=max(1, progress.total_steps), completed=progress.steps_done, width=28, complete_style="cyan"
    )
    return [
        Text("✓" if is_done else "▸", style="green" if is_done else "cyan"),
        Text(progress.name, style="" if is_done else "bold"),
        Text("", style="dim") if is_done else bar,
        Text(f"{progress.steps_done:,}/{progress.total_steps:,}", style="dim"),
        Text(elapsed, style="dim"),
        Text(f"{show_seconds(eta)} left" if eta else "", style="cyan"),
    ]


def _numbers_line(numbers: Sequence[tuple[str, str]]) -> Text:
    line = Text("\n  ")
    for label, value in numbers:
        line.append(f"{label} ", style="dim").append(value, style="bold").append("   ")
    return line
