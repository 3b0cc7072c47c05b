"""Several seeds as one table: mean, lowest and highest of every number that is reported.

Why: one run of reinforcement learning proves little; three with their spread say what to expect.
In:  finished runs of the same recipe under different seeds.
Out: a plain dict for JSON, and the same as a Markdown table for the documents.
Not here: the page around it (page.py).
"""

from collections.abc import Sequence
from typing import Any

from tenth.base.errors import RunError
from tenth.base.units import show_seconds
from tenth.reports.cost import stage_costs, total_cost
from tenth.reports.gain import explain_gain
from tenth.reports.r1_seeds import r1_markdown, summarise_r1_seeds
from tenth.reports.runs import MEASURE_BASE, MEASURE_CONTROLS, MEASURE_ZERO, Run
from tenth.reports.scores import BASE_WAYS, MODE_LABELS, SAMPLED, Evaluation
from tenth.reports.spread import describe_runs, spread
from tenth.reports.stages import is_r1


def summarise_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """Every reported number over all runs; a RunError names the run that is not measured yet."""
    flows = {str(run.recipe.get("flow", "zero")) for run in runs}
    if len(flows) > 1:
        raise RunError(f"these runs are of different flows ({', '.join(sorted(flows))}); report them apart.")
    if is_r1(runs[0]):
        return summarise_r1_seeds(runs)
    rows = [_one_run(run) for run in runs]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {
        "runs": describe_runs(runs),
        "numbers": {key: spread([row.get(key) for row in rows]) for key in keys},
    }


def markdown_table(summary: dict[str, Any]) -> str:
    """The summary as a Markdown table; of the R1 flow as several."""
    if "table" in summary:
        return r1_markdown(summary)
    names = ", ".join(f"`{run['name']}` (seed {run['seed']})" for run in summary["runs"])
    lines = [f"{len(summary['runs'])} runs: {names}.", "", "| | mean | min | max |", "|---|---:|---:|---:|"]
    for key, row in summary["numbers"].items():
        cells = " | ".join(show_number(key, row[name]) for name in ("mean", "min", "max"))
        lines.append(f"| {key} | {cells} |")
    return "\n".join(lines) + "\n"


def show_number(key: str, value: float | None) -> str:
    """A number of the summary in the unit that its name calls for."""
    if value is None:
        return "–"
    if key == "seconds":
        return show_seconds(value)
    if key == "dollars":
        return f"${value:.2f}"
    if key.startswith("gain"):
        return f"{value * 100:+.1f} points"
    if key.endswith(("tokens per answer", "per 1,000 tokens")):
        return f"{value:.1f}"
    return f"{value:.1%}"


def _one_run(run: Run) -> dict[str, float | None]:
    base, zero = run.evaluation(MEASURE_BASE), run.evaluation(MEASURE_ZERO)
    if base is None or zero is None:
        missing = MEASURE_BASE if base is None else MEASURE_ZERO
        raise RunError(
            f"run {run.name} has no {missing} evaluation yet; finish it with `tenth run {run.path}`."
        )
    total = total_cost(stage_costs(run), run=run)
    gain = explain_gain(base, zero)
    row: dict[str, float | None] = {f"base, {MODE_LABELS[way]}": _accuracy(base, way) for way in BASE_WAYS}
    row["base, pass@16"] = base_pass_at_16(base)
    row["R1-Zero"] = _accuracy(zero, SAMPLED)
    row["guessing"] = base.mean_guess
    controls = run.evaluation(MEASURE_CONTROLS)
    for mode in controls.modes if controls else ():
        row[f"control, {MODE_LABELS.get(mode, mode)}"] = _accuracy(controls, mode) if controls else None
    if gain:
        row |= {
            "gain, total": gain.total,
            "gain, format": gain.format,
            "gain, choosing to think": gain.thinking,
            "gain, new ability": gain.ability,
        }
    for family in zero.families:
        row[f"{family}, base"] = _accuracy(base, SAMPLED, family)
        row[f"{family}, R1-Zero"] = _accuracy(zero, SAMPLED, family)
    return row | _behaviour(base, zero) | {"seconds": total.seconds, "dollars": total.usd}


def base_pass_at_16(base: Evaluation) -> float | None:
    """The share of problems that 16 samples of the base solve at least once."""
    for mode in ("sampled_pass16", SAMPLED):
        score = base.score(mode)
        if score and 16 in score.pass_at:
            return score.pass_at[16]
    return None


def _behaviour(base: Evaluation, zero: Evaluation) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for name, evaluation in (("base", base), ("R1-Zero", zero)):
        score = evaluation.score(SAMPLED)
        if score:
            row[f"{name}, share that thinks"] = score.think_share
            row[f"{name}, tokens per answer"] = score.mean_tokens
            row[f"{name}, reflection words per 1,000 tokens"] = score.reflection_per_1k
    return row


def _accuracy(evaluation: Evaluation, mode: str, family: str | None = None) -> float | None:
    score = evaluation.score(mode, family)
    return score.accuracy if score else None
