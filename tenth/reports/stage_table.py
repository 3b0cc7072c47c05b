"""The stage table as numbers: a row for everything that is measured, a cell for every model of an R1 run.

Why: the page shows it for one run, the seeds' summary averages it over several; both show the same rows.
DeepSeek-R1 (arXiv:2501.12948v2), table 3.
In:  `Model`s.  Out: `Row`s.
Not here: markup (r1_sections.py), means over seeds (r1_seeds.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tenth.base.units import show_count, show_seconds
from tenth.reports.cost import StageCost
from tenth.reports.scores import Score
from tenth.reports.stages import Model

T = TypeVar("T")
_SHOWN_DIGITS = 3  # of a share: two cells that look alike are equally good


class Measure(StrEnum):
    """What a row's numbers are."""

    SHARE = "share"
    NUMBER = "number"
    COUNT = "count"
    SECONDS = "seconds"
    DOLLARS = "dollars"


class Better(StrEnum):
    """Which end of a row is the good one; of a length or a cost neither is."""

    HIGH = "high"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number."""

    value: float
    low: float | None = None  # 95 % interval
    high: float | None = None
    untaught: float | None = None  # the same without the teacher's part


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; a None is not measured."""

    group: str
    label: str
    measure: Measure
    cells: tuple[Cell | None, ...]
    better: Better | None = None

    @property
    def best(self) -> frozenset[int]:
        """Places of the best cells; none where all are alike, or only one is known."""
        known = {i: round(cell.value, _SHOWN_DIGITS) for i, cell in enumerate(self.cells) if cell}
        if self.better is None or len(set(known.values())) < 2:
            return frozenset()
        best = (max if self.better is Better.HIGH else min)(known.values())
        return frozenset(i for i, value in known.items() if value == best)


def stage_rows(models: Sequence[Model]) -> list[Row]:
    """Every row that at least one model has a number for."""
    scores = [model.score() for model in models]
    families = sorted({name for model in models if model.evaluation for name in model.evaluation.families})
    rows = [
        _accuracies("all families", scores),
        *(_accuracies(name, [model.score(name) for model in models]) for name in families),
        _accuracies("general questions, by rule", [model.general for model in models]),
        _shares("closed, ordered tags", scores, lambda score: score.format),
        _shares("language consistency", scores, lambda score: score.language),
        _shares("readable for people", scores, lambda score: score.reads_well),
        _shares("truncated", scores, lambda score: score.truncated, better=Better.LOW),
        _row("length", "tokens per answer", Measure.NUMBER, scores, lambda score: score.mean_tokens),
        *_costs("cost of its own stages", [(model.own, model.own_untaught) for model in models]),
        *_costs("cost with all before it", [(model.lineage, model.lineage_untaught) for model in models]),
        _row("size", "activated parameters", Measure.COUNT, models, lambda model: model.parameters),
    ]
    return [row for row in rows if any(row.cells)]


def show_value(measure: Measure, value: float) -> str:
    """A number in its unit; a share as points of a hundred, without the sign that a heading carries."""
    show: dict[Measure, Callable[[float], str]] = {
        Measure.SHARE: lambda share: f"{share * 100:.1f}",
        Measure.NUMBER: lambda number: f"{number:.1f}",
        Measure.COUNT: show_count,
        Measure.SECONDS: show_seconds,
        Measure.DOLLARS: lambda usd: f"${usd:.4f}",
    }
    return show[measure](value)


def _accuracies(label: str, scores: Sequence[Score | None]) -> Row:
    cells = tuple(
        Cell(value=score.accuracy, low=score.low, high=score.high) if score else None for score in scores
    )
    return Row(group="accuracy, %", label=label, measure=Measure.SHARE, cells=cells, better=Better.HIGH)


def _shares(
    label: str,
    scores: Sequence[Score | None],
    value_of: Callable[[Score], float | None],
    *,
    better: Better = Better.HIGH,
) -> Row:
    return _row("answers, %", label, Measure.SHARE, scores, value_of, better=better)


def _costs(group: str, costs: Sequence[tuple[StageCost | None, StageCost | None]]) -> list[Row]:
    kinds: list[tuple[str, Measure, Callable[[StageCost], float | None]]] = [
        ("time", Measure.SECONDS, lambda cost: cost.seconds),
        ("dollars", Measure.DOLLARS, lambda cost: cost.usd),
        ("tokens", Measure.COUNT, lambda cost: cost.tokens),
        ("FLOPs", Measure.COUNT, lambda cost: cost.flops),
    ]
    rows = []
    for label, measure, value_of in kinds:
        pairs = [
            tuple(None if cost is None else value_of(cost) for cost in (whole, part)) for whole, part in costs
        ]
        cells = tuple(None if whole is None else Cell(value=whole, untaught=part) for whole, part in pairs)
        rows.append(Row(group=group, label=label, measure=measure, cells=cells))
    return rows


def _row(
    group: str,
    label: str,
    measure: Measure,
    things: Sequence[T | None],
    value_of: Callable[[T], float | None],
    *,
    better: Better | None = None,
) -> Row:
    values = [None if thing is None else value_of(thing) for thing in things]
    cells = tuple(None if value is None else Cell(value=value) for value in values)
    return Row(group=group, label=label, measure=measure, cells=cells, better=better)
