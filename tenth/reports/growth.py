"""The growth curves of an R1 run, as SVG: three reinforcements on one axis, and what is set beside them.

Why: figures of one stage start at step 0; those of a whole recipe show one stage continue where another ends.
In:  metrics of stages, what was measured before and after each.
Out: `<svg>` text, None where there is nothing to draw.
Not here: which metrics (r1_curves.py), style and SVG (figures.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tenth.reports.doctor import Rows
from tenth.reports.figures import INK, MUTED, as_share, draw, legend_above, paint_panel
from tenth.reports.panels import BLUE, ORANGE, TEAL, Panel, Unit, points, smooth

_COLOURS = (BLUE, TEAL, ORANGE)
_DASHED, _DOTTED = (0, (4, 3)), (0, (1, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One stage on the common axis."""

    label: str
    rows: Rows
    before: Mapping[str, float | None] = field(default_factory=dict)  # panel title -> measured, held-out
    after: Mapping[str, float | None] = field(default_factory=dict)
    mark: float | None = None  # the step at which something begins


def draw_growth(
    segments: Sequence[Segment], panels: Sequence[Panel], *, mark: str, columns: int
) -> str | None:
    """A panel per metric, one stage behind the other; `mark` names what begins at the segments' marks."""
    segments = [segment for segment in segments if segment.rows]
    shown = [panel for panel in panels if any(_has(segment, panel) for segment in segments)]
    if not shown:
        return None
    height = -(-len(shown) // columns)
    *starts, end = _ends(segments)

    def paint(figure: Figure) -> None:
        for i, panel in enumerate(shown):
            axes = figure.add_subplot(height, columns, i + 1)
            for segment, start, colour in zip(segments, starts, _COLOURS, strict=False):
                _paint_segment(axes, segment, panel, start=start, colour=colour, mark=mark)
            for start in starts[1:]:
                axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=_DASHED)
            axes.set_title(panel.title)
            axes.set_xlim(-0.02 * end, 1.02 * end)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if panel.unit is Unit.SHARE:
                as_share(axes)
            else:
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.set_ylim(bottom=0)
        figure.supxlabel("steps of reinforcement, one stage after the other", color=MUTED, fontsize=8.5)
        legend_above(figure)

    return draw("growth", paint, height_inches=2.15 * height + 0.5)


def draw_many(
    plots: Sequence[tuple[Rows, Panel]], *, name: str, columns: int, mark: tuple[float, str] | None = None
) -> str | None:
    """Panels with metrics of their own each; `mark`: a step, and what begins there."""
    shown = [(rows, panel) for rows, panel in plots if any(points(rows, key)[0] for key, _, _ in panel.lines)]
    if not shown:
        return None
    columns = min(columns, len(shown))
    height = -(-len(shown) // columns)

    def paint(figure: Figure) -> None:
        for i, (rows, panel) in enumerate(shown):
            axes = figure.add_subplot(height, columns, i + 1)
            if mark is not None:
                axes.axvline(mark[0], color=INK, linewidth=1.1, linestyle=_DOTTED, label=mark[1])
            paint_panel(axes, rows, panel)
        figure.supxlabel("step", color=MUTED, fontsize=8.5)

    return draw(name, paint, height_inches=2.3 * height + 0.2)


def _ends(segments: Sequence[Segment]) -> list[float]:
    """Where every segment begins on the common axis, and where the last one ends."""
    lengths = [max(row["step"] for row in segment.rows) + 1 for segment in segments]
    return list(accumulate(lengths, initial=0.0))


def _has(segment: Segment, panel: Panel) -> bool:
    return any(points(segment.rows, key)[0] for key, _, _ in panel.lines)


def _paint_segment(
    axes: Axes, segment: Segment, panel: Panel, *, start: float, colour: str, mark: str
) -> None:
    ((metric, _, _),) = panel.lines
    steps, values = points(segment.rows, metric)
    places = [start + step for step in steps]
    window = len(values) // 12
    if window >= 3:
        axes.plot(places, values, color=colour, alpha=0.25, linewidth=0.8)
    marker = "o" if len(values) == 1 else None
    axes.plot(places, smooth(values, window=window), color=colour, label=segment.label, marker=marker)
    end = start + max(row["step"] for row in segment.rows) + 1
    found = [(start, segment.before.get(panel.title)), (end, segment.after.get(panel.title))]
    known = [(place, value) for place, value in found if value is not None]
    if known:
        xs, ys = zip(*known, strict=True)
        axes.plot(xs, ys, "D", color=colour, markersize=4.5, markeredgecolor=INK, markeredgewidth=0.7)
    if segment.mark is not None:
        axes.axvline(start + segment.mark, color=INK, linewidth=1.1, linestyle=_DOTTED, label=mark)
