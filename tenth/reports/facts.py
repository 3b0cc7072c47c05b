"""Everything the sections of a report share, read from the run directory once.

Why: thirteen sections ask for the same evaluations and costs; reading them once keeps them equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenth.reports.cost import StageCost, stage_costs, total_cost
from tenth.reports.runs import MEASURE_BASE, MEASURE_CONTROLS, MEASURE_ZERO, Run
from tenth.reports.scores import Evaluation
from tenth.reports.stages import Model, read_models


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the sections share; a None is not measured yet."""

    run: Run
    base: Evaluation | None
    zero: Evaluation | None
    controls: Evaluation | None
    costs: Sequence[StageCost]
    total: StageCost
    models: Mapping[str, Model]  # of an R1 run, by key; empty for others


def gather_facts(run: Run) -> Facts:
    """Read what the sections need."""
    costs = stage_costs(run)
    return Facts(
        run=run,
        base=run.evaluation(MEASURE_BASE),
        zero=run.evaluation(MEASURE_ZERO),
        controls=run.evaluation(MEASURE_CONTROLS),
        costs=costs,
        total=total_cost(costs, run=run),
        models=read_models(run),
    )
