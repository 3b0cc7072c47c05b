"""Several seeds of the R1 flow as one stage table: mean, lowest and highest of every cell.

Why: "Dev2 is better than Dev1" means something where the ranges of three seeds do not touch.
In:  finished R1 runs of the same recipe under different seeds.
Out: a plain dict for JSON; the same as Markdown for the documents.
Not here: R1-Zero's seeds (seeds.py), the page around it (page.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tenth.base.errors import RunError
from tenth.base.files import read_json
from tenth.base.units import show_seconds
from tenth.reports.cost import stage_costs, total_cost
from tenth.reports.r1_aims import check_r1_aims
from tenth.reports.runs import MEASURE_R1, Run
from tenth.reports.spread import Spread, describe_runs, spread
from tenth.reports.stage_table import Cell, Measure, Row, show_value, stage_rows
from tenth.reports.stages import (
    COLUMNS,
    REWARD_MODELS,
    Model,
    compute_of,
    read_models,
    share_activated,
    share_kept,
)

_Key = tuple[str, str]  # group and label of a row


def summarise_r1_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """`table`: every cell over all runs; `numbers`: what is no cell; `aims`: how many runs reached each."""
    found = [_models(run) for run in runs]
    shown = [column for column in COLUMNS if any(column.key in models for models in found)]
    tables = [_table(models) for models in found]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = []
    for key in keys:
        known = [table[key] for table in tables if key in table]
        cells = [
            spread(
                [
                    _value(table.get(key), models, column.key)
                    for table, models in zip(tables, found, strict=True)
                ]
            )
            for column in shown
        ]
        rows.append({"group": key[0], "label": key[1], "measure": str(known[0].measure), "cells": cells})
    numbers = [_numbers(run, models) for run, models in zip(runs, found, strict=True)]
    names = list(dict.fromkeys(name for row in numbers for name in row))
    return {
        "runs": describe_runs(runs),
        "table": {"columns": [column.label for column in shown], "rows": rows},
        "numbers": {name: spread([row.get(name) for row in numbers]) for name in names},
        "aims": _aims(runs, found),
    }


def r1_markdown(summary: Mapping[str, Any]) -> str:
    """Three Markdown tables: the stages, the numbers beside them, the aims."""
    names = ", ".join(f"`{run['name']}` (seed {run['seed']})" for run in summary["runs"])
    count, columns = len(summary["runs"]), summary["table"]["columns"]
    lines = [f"{count} runs: {names}. A cell is the mean over the runs, in brackets lowest and highest.", ""]
    lines += [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in summary["table"]["rows"]:
        cells = " | ".join(show_cell(row["measure"], cell) for cell in row["cells"])
        lines.append(f"| {row_name(row)} | {cells} |")
    lines += ["", "| | mean | min | max |", "|---|---:|---:|---:|"]
    for name, row in summary["numbers"].items():
        shown = " | ".join(show_r1_number(name, row[key]) for key in ("mean", "min", "max"))
        lines.append(f"| {name} | {shown} |")
    lines += ["", "| aim | reached | measured |", "|---|---:|---|"]
    for aim in summary["aims"]:
        lines.append(f"| {aim['text']} | {aim['reached']} of {count} | {'; '.join(aim['measured'])} |")
    return "\n".join(lines) + "\n"


def show_cell(measure: str, cell: Spread) -> str:
    """Mean and range; the range is left out where all runs agree as far as it is shown."""
    if cell["mean"] is None:
        return "–"
    mean, low, high = (show_value(Measure(measure), cell[key]) for key in ("mean", "min", "max"))
    return mean if low == high else f"{mean} ({low}–{high})"


def show_r1_number(name: str, value: float | None) -> str:
    """A number beside the table in the unit that its name calls for."""
    if value is None:
        return "–"
    if name.endswith("seconds"):
        return show_seconds(value)
    if name == "dollars":
        return f"${value:.2f}"
    if name.endswith("FLOPs"):
        return show_value(Measure.COUNT, value)
    return f"{value:.1%}"


def _models(run: Run) -> dict[str, Model]:
    models = read_models(run)
    if "r1" not in models or models["r1"].score() is None:
        raise RunError(
            f"run {run.name} has no {MEASURE_R1} evaluation yet; finish it with `tenth run {run.path}`."
        )
    return models


def _table(models: Mapping[str, Model]) -> dict[_Key, Row]:
    return {(row.group, row.label): row for row in stage_rows(list(models.values()))}


def _value(row: Row | None, models: Mapping[str, Model], column: str) -> float | None:
    if row is None or column not in models:
        return None
    cell: Cell | None = row.cells[list(models).index(column)]
    return cell.value if cell else None


def _numbers(run: Run, models: Mapping[str, Model]) -> dict[str, float | None]:
    total, compute = total_cost(stage_costs(run), run=run), compute_of(run)
    given = compute.get("distillation", {})
    alone = models["student"].lineage_untaught
    stage = run.stage(REWARD_MODELS)
    path = stage.path / "scores.json" if stage else None
    scores = read_json(path) if path and path.exists() else {}
    judged = {
        f"reward model {kind}, {label}": each[key]
        for kind, each in scores.items()
        for key, label in (("accuracy", "held-out accuracy"), ("longer_wins", "longer wins"))
    }
    return {
        "share of R1's accuracy that the student keeps": share_kept(models),
        "share of R1's activated parameters that the student has": share_activated(models),
        "student's training, FLOPs": given.get("training_flops"),
        "teacher's sampling, FLOPs": given.get("teacher_sampling_flops"),
        "control at the smaller budget, FLOPs": compute.get("control_without_sampling", {}).get("flops"),
        "control at the larger budget, FLOPs": compute.get("control_with_sampling", {}).get("flops"),
        "student without its teacher, all stages, FLOPs": alone.flops if alone else None,
        "student without its teacher, all stages, seconds": alone.seconds if alone else None,
        **judged,
        "seconds": total.seconds,
        "dollars": total.usd,
    }


def _aims(runs: Sequence[Run], found: Sequence[Mapping[str, Model]]) -> list[dict[str, Any]]:
    """Each aim, in how many runs it was reached, and what each run measured."""
    aims: dict[str, dict[str, Any]] = {}
    for run, models in zip(runs, found, strict=True):
        total = total_cost(stage_costs(run), run=run)
        for aim in check_r1_aims(models, seconds=total.seconds if total.is_done else None):
            row = aims.setdefault(aim.text, {"text": aim.text, "reached": 0, "measured": []})
            row["reached"] += aim.is_reached
            row["measured"].append(aim.measured)
    return list(aims.values())


def row_name(row: Mapping[str, Any]) -> str:
    """A row's label where no heading stands above it."""
    is_cost = row["group"].startswith("cost")
    return f"{row['label']}, {row['group'].removeprefix('cost ')}" if is_cost else _with_percent(row)


def _with_percent(row: Mapping[str, Any]) -> str:
    return f"{row['label']}, %" if row["measure"] == Measure.SHARE else row["label"]
