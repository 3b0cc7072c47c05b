"""The figures of a report, as SVG text that goes into the page.

Why: a picture shows in a second what a column of numbers hides. SVG is small, sharp and searchable, and the
same input gives the same bytes. This is the only file that imports matplotlib.
In:  metrics rows, evaluations, a gain, costs.
Out: `<svg>` text without a header, or None where there is nothing to draw.
Not here: which figure goes where (sections.py). Ink and grid are CSS variables, so the page decides on
light or dark.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tenth.base.units import show_count, show_seconds
from tenth.reports.cost import StageCost
from tenth.reports.doctor import Rows
from tenth.reports.gain import Gain
from tenth.reports.panels import (
    BASE_COLOURS,
    BLUE,
    GUESS_COLOUR,
    ORANGE,
    TEAL,
    ZERO_COLOUR,
    Panel,
    Unit,
    points,
    smooth,
)
from tenth.reports.scores import (
    BASE_WAYS,
    FORCED_THINK,
    MODE_LABELS,
    SAMPLED,
    Evaluation,
    LevelScore,
    Score,
)

WIDTH_INCHES = 10.5

# Placeholders that become CSS variables in the finished SVG.
INK, MUTED, GRID = "#24292f", "#6e7781", "#e3e6ea"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # for the layout; the page's own font is drawn
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def draw_curves(rows: Rows, panels: Sequence[Panel], *, name: str, columns: int = 3) -> str | None:
    """Small multiples of metrics over steps; panels without data are left out."""
    shown = [panel for panel in panels if any(points(rows, metric)[0] for metric, _, _ in panel.lines)]
    if not shown:
        return None
    columns = min(columns, len(shown))
    height = -(-len(shown) // columns)

    def paint(figure: Figure) -> None:
        for i, panel in enumerate(shown):
            paint_panel(figure.add_subplot(height, columns, i + 1), rows, panel)
        figure.supxlabel("step", color=MUTED, fontsize=8.5)

    return draw(name, paint, height_inches=2.15 * height + 0.2)


def draw_families(base: Evaluation | None, zero: Evaluation | None) -> str | None:
    """Bars per family: the base in its four ways, R1-Zero, 95 % intervals, and ticks where guessing lies."""
    evaluations = [e for e in (base, zero) if e is not None]
    families = sorted({family for e in evaluations for family in e.families})
    if not families:
        return None
    bars = [(mode, base, BASE_COLOURS[mode], f"base, {MODE_LABELS[mode]}") for mode in BASE_WAYS if base]
    bars += [(SAMPLED, zero, ZERO_COLOUR, "R1-Zero")] if zero else []
    rows = ["all", *families]
    guess = {**evaluations[0].guess, "all": evaluations[0].mean_guess}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        width = 0.84 / len(bars)
        for i, (mode, evaluation, colour, label) in enumerate(bars):
            found = [(x, evaluation.score(mode, None if f == "all" else f)) for x, f in enumerate(rows)]
            _paint_bars(axes, found, offset=(i + 0.5) * width - 0.42, width=width, colour=colour, label=label)
        ticks = [(x, guess.get(family)) for x, family in enumerate(rows)]
        known = [(x, share) for x, share in ticks if share is not None]
        if known:
            xs, shares = zip(*known, strict=True)
            starts, ends = [x - 0.44 for x in xs], [x + 0.44 for x in xs]
            axes.hlines(shares, starts, ends, color=GUESS_COLOUR, linewidth=1.3, label="guessing", zorder=4)
        axes.set_xticks(
            range(len(rows)),
            rows,
            rotation=25 if len(rows) > 8 else 0,
            ha="right" if len(rows) > 8 else "center",
        )
        axes.get_xticklabels()[0].set_fontweight("bold")
        axes.set_xlim(-0.6, len(rows) - 0.4)
        as_share(axes)
        legend_above(figure)

    return draw("families", paint, height_inches=3.7)


def draw_levels(base: Evaluation | None, zero: Evaluation | None) -> str | None:
    """Accuracy by difficulty, one panel per family; a line marks the longest problem in the documents."""
    lines = [
        (evaluation.levels.get(mode, {}), colour, label)
        for evaluation, mode, colour, label in (
            (base, SAMPLED, BASE_COLOURS[SAMPLED], "base, template, sampled"),
            (base, FORCED_THINK, BASE_COLOURS[FORCED_THINK], "base, forced to think"),
            (zero, SAMPLED, ZERO_COLOUR, "R1-Zero"),
        )
        if evaluation is not None and evaluation.levels.get(mode)
    ]
    families = sorted({family for levels, _, _ in lines for family in levels})
    if not families:
        return None
    longest = {**(base.longest_in_documents if base else {}), **(zero.longest_in_documents if zero else {})}
    columns = min(4, len(families))
    height = -(-len(families) // columns)

    def paint(figure: Figure) -> None:
        for i, family in enumerate(families):
            axes = figure.add_subplot(height, columns, i + 1)
            shown = [(levels.get(family, {}), colour, label) for levels, colour, label in lines]
            _paint_levels(axes, shown, longest.get(family))
            axes.set_title(family)
        legend_above(figure)

    return draw("levels", paint, height_inches=1.9 * height + 0.4)


def draw_gain(gain: Gain) -> str:
    """A staircase from the sampled base to R1-Zero: format, choosing to think, new ability."""
    steps = [
        ("base,\nsampled", 0.0, gain.start, BASE_COLOURS[SAMPLED]),
        ("readable\nanswers", gain.start, gain.format, TEAL),
        ("choosing\nto think", gain.start + gain.format, gain.thinking, ORANGE),
        ("new\nability", gain.end - gain.ability, gain.ability, ZERO_COLOUR),
        ("R1-Zero,\nsampled", 0.0, gain.end, ZERO_COLOUR),
    ]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for x, (_, bottom, rise, colour) in enumerate(steps):
            is_total = x in (0, len(steps) - 1)
            axes.bar(x, rise, bottom=bottom, width=0.62, color=colour, alpha=1.0 if is_total else 0.85)
            text = f"{rise:.1%}" if is_total else f"{rise * 100:+.1f}"
            top = max(bottom, bottom + rise)
            axes.annotate(
                text, (x, top), xytext=(0, 3), textcoords="offset points", ha="center", fontweight="bold"
            )
            if x < len(steps) - 1:
                axes.hlines(bottom + rise, x + 0.31, x + 0.69, color=MUTED, linewidth=0.8)
        axes.set_xticks(range(len(steps)), [label for label, *_ in steps])
        as_share(axes)

    return draw("gain", paint, height_inches=2.9, width_inches=6.6)


def draw_costs(costs: Sequence[StageCost]) -> str | None:
    """Seconds, tokens and dollars per stage, as bars."""
    kinds: list[tuple[str, Callable[[StageCost], float | None], Callable[[float], str]]] = [
        ("Time", lambda cost: cost.seconds, show_seconds),
        ("Tokens processed", lambda cost: cost.tokens, show_count),
        ("Dollars", lambda cost: cost.usd, lambda usd: f"${usd:.3f}"),
    ]
    shown = [kind for kind in kinds if any(kind[1](cost) for cost in costs)]
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        for i, (title, value_of, show) in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), i + 1)
            values = [value_of(cost) or 0.0 for cost in costs]
            axes.barh(range(len(costs)), values, height=0.62, color=BLUE, alpha=0.85)
            for y, value in enumerate(values):
                text = show(value) if value else "–"
                axes.annotate(
                    text, (value, y), xytext=(4, 0), textcoords="offset points", va="center", color=MUTED
                )
            axes.set_yticks(range(len(costs)), [cost.name for cost in costs] if i == 0 else [""] * len(costs))
            axes.set_title(title)
            axes.set_xlim(0, max(values) * 1.3)
            axes.set_xticks([])
            axes.grid(visible=False)
            axes.invert_yaxis()

    return draw("costs", paint, height_inches=0.6 + 0.3 * len(costs))


def draw(
    name: str, paint: Callable[[Figure], None], *, height_inches: float, width_inches: float = WIDTH_INCHES
) -> str:
    """What `paint` draws, as SVG; `name` keeps its ids apart from those of other figures."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"tenth/{name}"}):
        figure = Figure(
            figsize=(width_inches, height_inches), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.09)
        )
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        paint(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _to_inline(buffer.getvalue(), name=name)


def _to_inline(text: str, *, name: str) -> str:
    """Drop header and fixed size, prefix ids (many figures share a page), turn ink into CSS variables."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"|height="[\d.]+pt" ', r"<svg \1", svg, count=1
    )
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.strip()


def paint_panel(axes: Axes, rows: Rows, panel: Panel) -> None:
    """One small plot: lines, smoothed where there are many points, and a level to compare with."""
    for metric, label, colour in panel.lines:
        steps, values = points(rows, metric)
        if not steps:
            continue
        window = len(values) // 12
        if window >= 3:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        marker = "o" if len(values) == 1 else None
        axes.plot(steps, smooth(values, window=window), color=colour, label=label, marker=marker)
    if panel.reference:
        level, label = panel.reference
        axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=label)
    axes.set_title(panel.title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if panel.unit is Unit.SHARE:
        as_share(axes)
    elif panel.unit is Unit.SMALL:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if any(label for _, label, _ in panel.lines) or panel.reference:
        axes.legend(loc="best")


def _paint_bars(
    axes: Axes,
    found: Sequence[tuple[int, Score | None]],
    *,
    offset: float,
    width: float,
    colour: str,
    label: str,
) -> None:
    known = [(x + offset, score) for x, score in found if score is not None]
    if not known:
        return
    xs = [x for x, _ in known]
    heights = [score.accuracy for _, score in known]
    below = [max(0.0, score.accuracy - score.low) for _, score in known]
    above = [max(0.0, score.high - score.accuracy) for _, score in known]
    axes.bar(xs, heights, width=width * 0.9, color=colour, label=label, zorder=2)
    axes.errorbar(
        xs, heights, yerr=[below, above], fmt="none", ecolor=INK, elinewidth=0.8, alpha=0.7, zorder=3
    )


def _paint_levels(
    axes: Axes, lines: Sequence[tuple[Mapping[int, LevelScore], str, str]], longest: int | None
) -> None:
    for levels, colour, label in lines:
        axes.plot(
            list(levels),
            [score.accuracy for score in levels.values()],
            color=colour,
            label=label,
            marker="o",
            markersize=3,
        )
    if longest is not None:
        axes.axvline(
            longest + 0.5, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label="longest in documents"
        )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    as_share(axes)


def as_share(axes: Axes) -> None:
    """The axis of a share: 0 to 100 %."""
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def legend_above(figure: Figure) -> None:
    """One legend for all panels; a label that only some of them have is there too."""
    shown = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        shown.values(),
        shown.keys(),
        loc="outside upper left",
        ncols=len(shown),
        handlelength=1.2,
        columnspacing=1.4,
    )
