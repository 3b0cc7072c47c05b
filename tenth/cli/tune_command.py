"""What `tenth rl` and `tenth sft` do alike on a terminal: settings from options, the view, the last table.

In:  what was typed.  Out: text on a console; exit code 130 and how to go on after Ctrl-C.
Not here: the options (rl.py, sft.py), the work (pipeline/).
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

R = TypeVar("R")
Work = Callable[..., R]


def run_in_view(
    work: Work[R], values: Mapping[str, Any], overrides: Sequence[str], *, out: Path, plain: bool
) -> R:
    """Call the pipeline's `work` with a view of its steps; what was not given is left to it."""
    from tenth.cli.live import LiveView
    from tenth.cli.tensorboard import TensorBoardSink

    command = typed_command()
    console = Console(force_terminal=False if plain else None)
    given = {name: value for name, value in values.items() if value is not None}
    try:
        with LiveView(console) as view, closing(TensorBoardSink(out / "tensorboard")) as tensorboard:
            return work(
                given,
                overrides,
                out=out,
                command=command,
                sinks=(view, tensorboard),
                say=lambda text: console.print(text, soft_wrap=True, markup=False, highlight=False),
            )
    except KeyboardInterrupt:
        typer.echo(f"Stopped; all that was saved is kept. To continue: {command}", err=True)
        raise typer.Exit(130) from None


def typed_command() -> str:
    """The command line, to be repeated or written down."""
    return shlex.join(["tenth", *sys.argv[1:]])


def print_result(rows: Sequence[Sequence[str]], *, model_dir: Path, measured_on: str) -> None:
    """What changed on what was set aside (name, before, after), and where the model is."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(measured_on)
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if (model_dir / "adapter_config.json").exists():
        typer.echo(f"The adapter is in {model_dir}; its README.md says how to merge it into the model.")
    else:
        typer.echo(f"The model is in {model_dir}.")


def run_name(model: Path, kind: str) -> str:
    """How a run is called that nobody named."""
    return f"{model.resolve().name.removesuffix('.gguf').removesuffix('.bin')}-{kind}"
