"""The story of DeepSeek-R1: everything from documents to R1, and the student that learns from it.

R1 (arXiv:2501.12948v2), figure 2: base -> R1-Zero; base -> cold start (Dev1) -> reinforced on reasoning
(Dev2) -> its best answers and general data, the base fine-tuned on them (Dev3) -> reinforced for all
scenarios (R1).
In:  a recipe with `flow = "r1"`, or the directory of a run that was begun.  Out: a run directory.
Not here: beginning and continuing a run (flow.py), what a stage does (one call down), the student's stages
(distill_stages.py).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tenth.base.runlog import MetricSink
from tenth.pipeline import distill_stages as distill
from tenth.pipeline.flow import Call, Flow, Work, run_flow
from tenth.pipeline.r1_data import require_rejection, sample_cold_start, sample_rejection_set
from tenth.pipeline.r1_endpoints import deciding, require_key
from tenth.pipeline.r1_files import content_hashes
from tenth.pipeline.r1_measure import measure_control, measure_r1
from tenth.pipeline.r1_recipe import R1Recipe, SftSection
from tenth.pipeline.r1_rl import reinforce_all_scenarios, reinforce_reasoning
from tenth.pipeline.r1_tune import fine_tune_base, require_preferences, train_rewards
from tenth.pipeline.recipe import FlowName
from tenth.pipeline.stage import Outcome, Stage
from tenth.pipeline.zero import STORY as ZERO_STORY
from tenth.pipeline.zero import zero_stages

STORY = (
    *ZERO_STORY,
    *("cold-start-data", "cold-start", "measure-cold-start"),
    *("reasoning-rl", "measure-reasoning-rl"),
    *("rejection-data", "general-sft", "measure-general-sft"),
    *("reward-models", "r1", "measure-r1"),
    *("student-base", "student-data", "student", "measure-student"),
)
CONTROL = ("student-control", "measure-student-control")


def run_r1(
    source: Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: Path = Path("runs"),
    sinks: Sequence[MetricSink] = (),
    say: Callable[[str], None] = lambda _: None,
    yes: bool = False,
    again: str | None = None,
) -> Path:
    """Run a recipe, or continue the run in a directory; returns the run directory (see `Call`)."""
    call = Call(runs_dir=runs_dir, sinks=sinks, say=say, yes=yes, again=again)
    return run_flow(R1, source, overrides, call)


def cold_start_stages(work: Work[R1Recipe]) -> list[Stage]:
    """Dev1: the base, taught by the readable ones of R1-Zero's answers (sections 3 and B.3.2)."""
    data, sft = _without_sft(work, "cold_start")
    data["rewriter"] = deciding(data["rewriter"])
    return [
        _stage(
            work,
            "cold-start-data",
            sample_cold_start,
            needs=("zero",),
            settings=data,
            require=lambda: require_key(work.recipe.cold_start.rewriter),
        ),
        _fine_tuned(
            work, "cold-start", samples="cold-start-data", section=work.recipe.cold_start.sft, settings=sft
        ),
        _measured(work, "cold-start"),
    ]


def reasoning_stages(work: Work[R1Recipe]) -> list[Stage]:
    """Dev2: Dev1, reinforced on reasoning and on keeping to one language (section 3.2.1)."""
    settings = work.section("reasoning_rl") | _files(work)
    return [
        _stage(work, "reasoning-rl", reinforce_reasoning, needs=("cold-start",), settings=settings),
        _measured(work, "reasoning-rl"),
    ]


def general_stages(work: Work[R1Recipe]) -> list[Stage]:
    """Dev3: the base again, taught by Dev2's best answers and by general data (section B.3.3)."""
    data, sft = _without_sft(work, "rejection")
    data["judge"] = deciding(data["judge"])
    data["general_files"] = content_hashes(work.folder, work.recipe.rejection.general_files)
    return [
        _stage(
            work,
            "rejection-data",
            sample_rejection_set,
            needs=("reasoning-rl",),
            settings=data,
            require=lambda: require_rejection(work),
        ),
        _fine_tuned(
            work, "general-sft", samples="rejection-data", section=work.recipe.rejection.sft, settings=sft
        ),
        _measured(work, "general-sft"),
    ]


def all_scenario_stages(work: Work[R1Recipe]) -> list[Stage]:
    """R1: Dev3, reinforced by rules and at last by reward models (sections 3.1 and 3.2.2)."""
    rewards = work.section("reward_model")
    for name in ("helpful_files", "safe_files"):
        rewards[name] = content_hashes(work.folder, rewards[name])
    needs, settings = ("general-sft", "reward-models"), work.section("all_rl") | _files(work)
    return [
        _stage(
            work,
            "reward-models",
            train_rewards,
            needs=("general-sft",),
            settings=rewards,
            require=lambda: require_preferences(work),
        ),
        _stage(work, "r1", reinforce_all_scenarios, needs=needs, settings=settings),
        _measured(work, "r1"),
    ]


def student_stages(work: Work[R1Recipe]) -> list[Stage]:
    """A dense student of R1's answers (section 4), and beside it the same student reinforced (F.1)."""
    recipe, student = work.recipe, work.section("student")
    asked = {key: student[key] for key in ("prompts", "samples", "temperature")} | _files(work)
    asked["readable"] = work.section("rejection")["readable"]

    base = {key: student[key] for key in ("model", "pretrain")}
    taught_by = ("student-base", "student-data")
    stages = [
        _stage(work, "student-base", distill.pretrain_student, needs=(), settings=base),
        _stage(work, "student-data", distill.ask_teacher, needs=("r1",), settings=asked),
        _stage(work, "student", distill.tune_student, needs=taught_by, settings=student["sft"]),
        _measured(work, "student"),
    ]
    if not recipe.student.control:
        return stages
    needs, settings = (*taught_by, "student"), student["rl"] | _files(work)
    return [
        *stages,
        _stage(work, "student-control", distill.reinforce_student, needs=needs, settings=settings),
        _stage(
            work,
            "measure-student-control",
            measure_control,
            needs=("student-control",),
            settings=_measuring(work, longest=recipe.student.rl.max_completion_length),
        ),
    ]


def _stage(
    work: Work[R1Recipe],
    name: str,
    run: Callable[[Path, Work[R1Recipe]], Outcome],
    *,
    needs: tuple[str, ...],
    settings: Any,
    require: Callable[[], None] = lambda: None,
) -> Stage:
    """A stage that takes all it needs from `work`; every one reads the tokenizer."""
    return Stage(
        name=name,
        needs=("documents", *needs),
        settings=settings,
        run=lambda directory: run(directory, work),
        require=require,
    )


def _fine_tuned(
    work: Work[R1Recipe], name: str, *, samples: str, section: SftSection, settings: Any
) -> Stage:
    fine_tune = partial(fine_tune_base, samples=samples, section=section)
    return _stage(work, name, fine_tune, needs=("base", samples), settings=settings)


def _measured(work: Work[R1Recipe], stage: str) -> Stage:
    return Stage(
        name=f"measure-{stage}",
        needs=("documents", stage),
        settings=_measuring(work, longest=work.recipe.all_rl.max_completion_length),
        run=lambda directory: measure_r1(directory, work, stage),
    )


def _measuring(work: Work[R1Recipe], *, longest: int) -> dict[str, Any]:
    return {"eval": work.section("eval"), "longest": longest, **_files(work)}


def _files(work: Work[R1Recipe]) -> dict[str, Any]:
    return {"problem_files": work.section("problem_files")}


def _without_sft(work: Work[R1Recipe], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what decides the data, what decides the fine-tuning on them) of a section."""
    values = work.section(name)
    sft = values.pop("sft")
    return values | _files(work), sft


def _names(recipe: R1Recipe) -> tuple[str, ...]:
    return STORY + (CONTROL if recipe.student.control else ())


def _stages(work: Work[R1Recipe]) -> list[Stage]:
    return [
        *zero_stages(work),
        *cold_start_stages(work),
        *reasoning_stages(work),
        *general_stages(work),
        *all_scenario_stages(work),
        *student_stages(work),
    ]


R1 = Flow(name=FlowName.R1, schema=R1Recipe, names=_names, stages=_stages)
