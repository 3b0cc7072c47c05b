"""`tenth runs`: list run directories, compare two, free the disk space of one.

Why: runs pile up; which one was good, what differed, and what can go are the three questions.
In:  run directories under runs/.
Out: tables on the standard output; `clean` deletes, after asking.
Not here: reading run directories (reports/runs.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tenth.base.units import show_bytes, show_seconds
from tenth.endpoint.budget import JOURNAL, Budget
from tenth.reports.runs import (
    Difference,
    bytes_under,
    checkpoints_of,
    compare_recipes,
    compare_results,
    delete_directories,
    find_run,
    find_runs,
    read_run,
    summarise_run,
)

RUNS_DIR = Path("runs")

app = typer.Typer(help="List, compare and clean run directories.", invoke_without_command=True)


@app.callback()
def list_by_default(context: typer.Context) -> None:
    """List, compare and clean run directories."""
    if context.invoked_subcommand is None:
        list_runs()


@app.command("list")
def list_runs() -> None:
    """Every run under runs/: how far it came, how long it took, how good it is."""
    paths = find_runs(RUNS_DIR)
    if not paths:
        typer.echo(f"No runs in {RUNS_DIR}/ yet; `make run` makes the first.")
        return
    table = _table("run", "stage", "time", "pass@1")
    for path in paths:
        line = summarise_run(path)
        stage = line.problem or (line.stage if line.is_done else f"{line.stage} (not finished)")
        table.add_row(line.name, stage, show_seconds(line.seconds), _percent(line.accuracy))
    Console().print(table)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run directory, or its name under runs/.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """The settings in which two runs differ, and their results side by side."""
    one, two = (read_run(find_run(name, root=RUNS_DIR)) for name in (first, second))
    settings = compare_recipes(one, two)
    if settings:
        _print_differences("setting", settings, names=(one.name, two.name))
    else:
        typer.echo("The recipes are the same.")
    results = compare_results(one, two)
    if results:
        _print_differences("result", results, names=(one.name, two.name))


@app.command()
def clean(
    name: Annotated[str, typer.Argument(help="A run directory, or its name under runs/.")],
    keep_report: Annotated[
        bool, typer.Option("--keep-report", help="Delete only the weights; metrics, samples and report stay.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run, or with --keep-report only its checkpoints."""
    run = read_run(find_run(name, root=RUNS_DIR))  # reads run.json: anything else is never deleted
    doomed = checkpoints_of(run) if keep_report else [run.path]
    if not doomed:
        typer.echo(f"{run.path} has no checkpoints; nothing to delete.")
        return
    size = show_bytes(bytes_under(doomed))
    what = f"{len(doomed)} checkpoint directories of {run.path}"
    if not keep_report:
        what = f"all of {run.path}{_paid_replies(run.path)}"
    if not yes:
        typer.confirm(f"Delete {what} ({size})?", abort=True)
    delete_directories(doomed)
    typer.echo(f"Deleted {what}: {size} freed.")


def _paid_replies(run_dir: Path) -> str:
    """What of a run costs money to have again: --keep-report leaves it alone."""
    journals = run_dir.glob(f"replies/*/{JOURNAL}")
    usd = sum(Budget(path.parent, limit_usd=None).spent_usd for path in journals)
    return f", replies of endpoints for ${usd:.2f} among it" if usd else ""


def _print_differences(kind: str, rows: Sequence[Difference], *, names: tuple[str, str]) -> None:
    table = _table(kind, *names)
    for row in rows:
        table.add_row(row.name, _value(row.first), _value(row.second))
    Console().print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _value(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
