"""The R1-Zero story: documents -> base -> measured -> reinforced -> measured, and the controls beside it.

R1 (arXiv:2501.12948v2, section 2). One screen: what each stage does is one call down.
In:  a recipe file or the directory of a run that was begun.  Out: a run directory with a report.
Not here: beginning and continuing a run (flow.py), the stages behind R1-Zero (r1.py), drawing the report (the
command line asks reports/ for it).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from tenth.base.runlog import MetricSink
from tenth.pipeline import base, controls
from tenth.pipeline.flow import Call, Flow, Work, run_flow
from tenth.pipeline.measure import FOUR_WAYS, Mode, base_modes, measure
from tenth.pipeline.recipe import FlowName, ZeroRecipe
from tenth.pipeline.stage import Outcome, Stage, done_number
from tenth.pipeline.zero_card import write_zero_card
from tenth.pipeline.zero_rl import reinforce_zero

STORY = ("documents", "base", "measure-base", "zero", "measure-zero")
CONTROLS = ("control-format", "control-sft", "measure-controls")


def run_zero(
    source: Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: Path = Path("runs"),
    sinks: Sequence[MetricSink] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run a recipe, or continue the run in a directory; returns the run directory.

    `sinks` get every step's numbers, `say` the few sentences that a person should read before it starts.
    """
    return run_flow(ZERO, source, overrides, Call(runs_dir=runs_dir, sinks=sinks, say=say))


def zero_stages(work: Work[ZeroRecipe]) -> list[Stage]:
    """The story itself."""
    shared = {key: work.section(key) for key in ("seed", "model", "template", "families", "documents")}
    files = {"problem_files": work.section("problem_files")}
    measuring = {"eval": work.section("eval"), "longest": work.recipe.rl.max_completion_length, **files}

    def pretrain(directory: Path) -> Outcome:
        return base.pretrain(
            directory, work.recipe, documents=work.dirs["documents"], machine=work.machine, sinks=work.sinks
        )

    def reinforce_base(directory: Path) -> Outcome:
        return reinforce_zero(directory, work.recipe, work.model("base"), work.tokenizer(), sinks=work.sinks)

    return [
        Stage(
            name="documents",
            settings=shared,
            run=lambda directory: base.write_documents(directory, work.recipe),
        ),
        Stage(name="base", needs=("documents",), settings=work.section("pretrain"), run=pretrain),
        Stage(
            name="measure-base",
            needs=("documents", "base"),
            settings=measuring,
            run=lambda directory: _measure(directory, work, "base", base_modes(work.recipe)),
        ),
        Stage(
            name="zero",
            needs=("documents", "base"),
            settings=work.section("rl") | files,
            run=reinforce_base,
        ),
        Stage(
            name="measure-zero",
            needs=("documents", "zero"),
            settings=measuring,
            run=lambda directory: _measure(directory, work, "zero", FOUR_WAYS),
        ),
    ]


def control_stages(work: Work[ZeroRecipe]) -> list[Stage]:
    """What else could explain the gain, at the tokens that R1-Zero used."""
    recipe = work.recipe

    def reward_format(directory: Path) -> Outcome:
        formatted = controls.format_only(recipe)
        return reinforce_zero(directory, formatted, work.model("base"), work.tokenizer(), sinks=work.sinks)

    def imitate(directory: Path) -> Outcome:
        tokens = done_number(work.dirs["zero"], "tokens")
        return controls.imitate_steps(
            directory, recipe, work.model("base"), work.tokenizer(), tokens=tokens, sinks=work.sinks
        )

    def measure_both(directory: Path) -> Outcome:
        asks = [
            (Mode(name="format_only"), work.model("control-format")),
            (Mode(name="sft_steps"), work.model("control-sft")),
        ]
        return measure(directory, recipe, asks, work.tokenizer(), sinks=work.sinks)

    before = ("documents", "base", "zero")
    return [
        Stage(name="control-format", needs=before, settings="format only", run=reward_format),
        Stage(name="control-sft", needs=before, settings="worked documents", run=imitate),
        Stage(
            name="measure-controls",
            needs=("measure-zero", "control-format", "control-sft"),
            settings="sampled",
            run=measure_both,
        ),
    ]


def _measure(directory: Path, work: Work[ZeroRecipe], stage: str, modes: Sequence[Mode]) -> Outcome:
    model = work.model(stage)
    asks = [(mode, model) for mode in modes]
    outcome = measure(directory, work.recipe, asks, work.tokenizer(), sinks=work.sinks)
    write_zero_card(work.recipe, work.dirs[stage], measured=directory)
    return outcome


def _names(recipe: ZeroRecipe) -> tuple[str, ...]:
    return STORY + (CONTROLS if recipe.controls.enabled else ())


def _stages(work: Work[ZeroRecipe]) -> list[Stage]:
    return zero_stages(work) + (control_stages(work) if work.recipe.controls.enabled else [])


ZERO = Flow(name=FlowName.ZERO, schema=ZeroRecipe, names=_names, stages=_stages)
