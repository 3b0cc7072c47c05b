"""`tenth report RUN...`: the page of one run, or the summary of several seeds.

Why: the page can be made again at any time, also while the run is still going or on another machine.
In:  one run (path, or name under runs/), or several of the same recipe.
Out: RUN/report.html; for several, seeds.html, seeds.md and seeds.json in --out.
Not here: what the page says (reports/).
"""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tenth.base.errors import ConfigError

RUNS_DIR = Path("runs")


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="A run directory or its name under runs/; several: their seeds."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Several runs: where to write the summary. Default: runs/.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
) -> None:
    """Write report.html about a run; of several runs, mean, lowest and highest of every number."""
    from tenth.reports.page import write_report, write_seeds_report  # matplotlib: not for `--help`
    from tenth.reports.runs import find_run

    paths = [find_run(run, root=RUNS_DIR) for run in runs]
    if len(paths) == 1:
        if out is not None:
            raise ConfigError(
                f"--out {out} is for several runs; one run's page lies in its directory, leave --out away."
            )
        written = [write_report(paths[0])]
    else:
        written = write_seeds_report(paths, out or RUNS_DIR)
    for path in written:
        typer.echo(str(path))
    if open_page:
        webbrowser.open(written[0].resolve().as_uri())
