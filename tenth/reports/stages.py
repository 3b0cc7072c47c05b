"""The models of an R1 run, one column of the stage table each: what they scored and what they cost.

Why: table, curves, aims, answers and seeds speak of the same nine models; who needed what is written once.
DeepSeek-R1 (arXiv:2501.12948v2), figure 2 and table 3: base, R1-Zero, Dev1, Dev2, Dev3, R1; section 4 and
F.1: the student, and the same student by reinforcement alone.
In:  a run of the R1 flow in any state.
Out: `Model`s; a None is not measured, or not finished, yet.
Costs are those of making a model: measuring is left out.
Not here: rows and cells (stage_table.py), how they look (r1_sections.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenth.base.files import read_json
from tenth.model.counts import count
from tenth.model.hf_config import from_hf
from tenth.reports.cost import StageCost, stage_costs, total_cost
from tenth.reports.runs import BASE, MEASURE_BASE, MEASURE_R1, MEASURE_ZERO, ZERO, Run
from tenth.reports.scores import SAMPLED, Evaluation, Score

COLD_START_DATA, REJECTION_DATA, STUDENT_DATA = "cold-start-data", "rejection-data", "student-data"
REASONING_RL, ALL_RL, REWARD_MODELS = "reasoning-rl", "r1", "reward-models"
CONTROL = "student-control"
_FLOW = "r1"  # what recipe.json says

_BASE = ("documents", BASE)
_ZERO = (*_BASE, ZERO)
_DEV1 = (*_ZERO, COLD_START_DATA, "cold-start")
_DEV2 = (*_DEV1, REASONING_RL)
_DEV3 = (*_DEV2, REJECTION_DATA, "general-sft")
_R1 = (*_DEV3, REWARD_MODELS, ALL_RL)
_STUDENT = ("student-base", STUDENT_DATA, "student")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One model: where it was made and measured."""

    key: str
    label: str
    how: str  # it was made
    measure: str  # the stage that asked it
    own: tuple[str, ...]  # stages that made it from the model before
    lineage: tuple[str, ...]  # every stage that had to run for it
    mode: str = SAMPLED

    @property
    def stage(self) -> str:
        """The stage that holds its weights."""
        return self.own[-1]


COLUMNS = (
    Column(key="base", label="base", how="pre-trained", measure=MEASURE_BASE, own=_BASE, lineage=_BASE),
    Column(key="zero", label="R1-Zero", how="RL", measure=MEASURE_ZERO, own=(ZERO,), lineage=_ZERO),
    Column(
        key="dev1",
        label="Dev1",
        how="cold start",
        measure="measure-cold-start",
        own=(COLD_START_DATA, "cold-start"),
        lineage=_DEV1,
    ),
    Column(
        key="dev2",
        label="Dev2",
        how="RL, reasoning",
        measure="measure-reasoning-rl",
        own=(REASONING_RL,),
        lineage=_DEV2,
    ),
    Column(
        key="dev3",
        label="Dev3",
        how="SFT on kept answers and general data",
        measure="measure-general-sft",
        own=(REJECTION_DATA, "general-sft"),
        lineage=_DEV3,
    ),
    Column(
        key="r1",
        label="R1",
        how="RL, all scenarios",
        measure=MEASURE_R1,
        own=(REWARD_MODELS, ALL_RL),
        lineage=_R1,
    ),
    Column(
        key="student",
        label="student",
        how="SFT on R1's answers",
        measure="measure-student",
        own=_STUDENT,
        lineage=(*_R1, *_STUDENT),
    ),
    Column(
        key="control_small",
        label="student by RL only",
        how="compute of the student's training",
        measure=f"measure-{CONTROL}",
        own=("student-base", CONTROL),
        lineage=("documents", "student-base", CONTROL),
        mode="without_teacher_sampling",
    ),
    Column(
        key="control",
        label="student by RL only, longer",
        how="and of the teacher's sampling",
        measure=f"measure-{CONTROL}",
        own=("student-base", CONTROL),
        lineage=("documents", "student-base", CONTROL),
    ),
)
_SHORT_CONTROL = "control_without_sampling"  # its key in compute.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is known of one column."""

    column: Column
    evaluation: Evaluation | None = None
    own: StageCost | None = None
    lineage: StageCost | None = None
    own_untaught: StageCost | None = None  # of the student: the teacher and its sampling not counted
    lineage_untaught: StageCost | None = None
    parameters: int | None = None  # that one token touches

    def score(self, family: str | None = None) -> Score | None:
        """Sampled accuracy and everything beside it."""
        return self.evaluation.score(self.column.mode, family) if self.evaluation else None

    @property
    def general(self) -> Score | None:
        """Questions beside reasoning, where the model was asked any."""
        found = self.evaluation.general if self.evaluation else None
        return found.overall if found else None


def is_r1(run: Run) -> bool:
    """Whether the run goes through all stages of R1, and not through R1-Zero's alone."""
    return run.recipe.get("flow") == _FLOW


def read_models(run: Run) -> dict[str, Model]:
    """Every column by key, those without a control left out where the recipe has none; {} for other runs."""
    if not is_r1(run):
        return {}
    costs = {cost.name: cost for cost in stage_costs(run)}
    evaluations = {column.measure: _evaluation(run, column.measure) for column in COLUMNS}
    has_control = run.recipe.get("student", {}).get("control", True)
    shown = [column for column in COLUMNS if has_control or CONTROL not in column.own]
    return {column.key: _model(run, column, costs, evaluations[column.measure]) for column in shown}


def compute_of(run: Run) -> Mapping[str, Any]:
    """compute.json of the student's control; empty while there is none."""
    stage = run.stage(CONTROL)
    path = stage.path / "compute.json" if stage else None
    return read_json(path) if path and path.exists() else {}


def share_kept(models: Mapping[str, Model]) -> float | None:
    """The student's accuracy as a share of R1's."""
    taught, teacher = (models[key].score() if key in models else None for key in ("student", "r1"))
    return taught.accuracy / teacher.accuracy if taught and teacher and teacher.accuracy else None


def share_activated(models: Mapping[str, Model]) -> float | None:
    """The student's activated parameters as a share of R1's."""
    taught, teacher = (models[key].parameters if key in models else None for key in ("student", "r1"))
    return taught / teacher if taught and teacher else None


def _evaluation(run: Run, name: str) -> Evaluation | None:
    stage = run.stage(name)
    return stage.scores() if stage else None


def _model(run: Run, column: Column, costs: Mapping[str, StageCost], evaluation: Evaluation | None) -> Model:
    costs = costs if column.key != "control_small" else _with_short_control(run, costs)
    is_taught = column.key == "student"
    untaught = tuple(name for name in column.own if name != STUDENT_DATA)
    return Model(
        column=column,
        evaluation=evaluation,
        own=_together(run, column.own, costs),
        lineage=_together(run, column.lineage, costs),
        own_untaught=_together(run, untaught, costs) if is_taught else None,
        lineage_untaught=_together(run, ("documents", *untaught), costs) if is_taught else None,
        parameters=_parameters(run, column.stage),
    )


def _with_short_control(run: Run, costs: Mapping[str, StageCost]) -> dict[str, StageCost]:
    """The control at the smaller budget: the first steps of the same training."""
    reached, stage = compute_of(run).get(_SHORT_CONTROL), run.stage(CONTROL)
    others = {name: cost for name, cost in costs.items() if name != CONTROL}
    if not reached or not stage:
        return others
    seconds = sum(row.get("step_time", 0.0) for row in stage.metrics() if row["step"] < reached["steps"])
    price = run.price_usd_per_hour
    short = StageCost(
        name=CONTROL,
        seconds=seconds,
        tokens=reached["tokens"],
        flops=reached["flops"],
        peak_share=None,
        usd=None if price is None else seconds / 3600 * price,
        is_done=True,
    )
    return {**others, CONTROL: short}


def _together(run: Run, names: Sequence[str], costs: Mapping[str, StageCost]) -> StageCost | None:
    """The sum; None while one of the stages has not ended."""
    found = [costs[name] for name in names if name in costs and costs[name].is_done]
    return total_cost(found, run=run) if len(found) == len(names) else None


def _parameters(run: Run, stage_name: str) -> int | None:
    stage = run.stage(stage_name)
    path = stage.path / "model" / "config.json" if stage else None
    return count(from_hf(read_json(path))).activated_parameters if path and path.exists() else None
