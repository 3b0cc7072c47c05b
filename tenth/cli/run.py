"""`tenth run RECIPE|RUN [key=value ...]`: run a recipe to its end, or go on with a run that was cut off.

A recipe says which story it tells: `flow = "r1"`, or R1-Zero alone.

Why: the main job is one command: train, measure, and write the report, with a view of it meanwhile.
In:  a recipe file with overrides, or the directory of a run.
Out: a run directory with report.html; the exit code 130 and how to go on after Ctrl-C.
Not here: the stages (pipeline/), the view (live.py), the page (reports/).
"""

import shlex
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RUNS_DIR = Path("runs")


def run(
    source: Annotated[
        Path, typer.Argument(metavar="RECIPE|RUN", help="A recipe (TOML), or a run's directory.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as rl.steps=20 seed=2.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where new runs go.")] = RUNS_DIR,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a view redrawn in place.")] = False,
    again: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Run this stage alone, even if it is done.")
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Remove the results that a changed recipe outdates, and make them again."),
    ] = False,
) -> None:
    """Run a recipe, or continue a run; afterwards its report is in report.html."""
    changes = overrides or []
    try:
        run_dir = _run(source, changes, runs_dir=runs_dir, plain=plain, again=again, yes=yes)
    except KeyboardInterrupt:
        same = ["tenth", "run", str(source), *changes]
        same += ["--runs-dir", str(runs_dir)] if runs_dir != RUNS_DIR else []
        same += ["--again", again] if again else []
        typer.echo(f"Stopped; all that was saved is kept. To continue: {shlex.join(same)}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"The run is in {run_dir}. Talk to it: tenth chat {shlex.quote(str(run_dir))}")


def _run(
    source: Path, overrides: list[str], *, runs_dir: Path, plain: bool, again: str | None, yes: bool
) -> Path:
    from tenth.native.process import tune_process  # torch: not for `--help`

    tune_process()  # before the first tensor
    from tenth.cli.live import LiveView
    from tenth.cli.tensorboard import TensorBoardSink
    from tenth.pipeline.flow import Call, run_flow
    from tenth.pipeline.r1 import R1
    from tenth.pipeline.recipe import FlowName
    from tenth.pipeline.recipes import flow_name
    from tenth.pipeline.zero import ZERO
    from tenth.reports.page import write_report

    events = _run_dir(source, overrides, runs_dir=runs_dir) / "tensorboard"
    console = Console(force_terminal=False if plain else None)
    with LiveView(console) as view, closing(TensorBoardSink(events)) as tensorboard:
        call = Call(
            runs_dir=runs_dir,
            sinks=(view, tensorboard),
            say=lambda text: console.print(text, soft_wrap=True, markup=False, highlight=False),
            yes=yes,
            again=again,
        )
        if flow_name(source, overrides) is FlowName.R1:
            run_dir = run_flow(R1, source, overrides, call)
        else:
            run_dir = run_flow(ZERO, source, overrides, call)
    typer.echo(f"Report: {write_report(run_dir)}")
    return run_dir


def _run_dir(source: Path, overrides: list[str], *, runs_dir: Path) -> Path:
    """Where the run is or will be, before it has begun."""
    from tenth.pipeline.recipes import read_recipe

    return source if source.is_dir() else runs_dir / read_recipe(source, overrides).name
