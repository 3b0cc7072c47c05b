"""What `tenth rl`, `sft` and `distill` do alike on a terminal: keys in --help, settings, view, last table.

In:  what was typed.  Out: text on a console; exit code 130 and how to go on after Ctrl-C.
Not here: the options (rl.py, sft.py, distill.py), the work (pipeline/).
"""

import ast
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from tenth.cli.eval_targets import refuse_run

_RECIPES = Path(__file__).parents[1] / "pipeline" / "tune_recipe.py"
_ACCURACY = (
    "accuracy_weight is of a right answer: 1 where the file has answers and no --reward is given, else 0."
)
R = TypeVar("R")
Work = Callable[..., R]


class CommandWithKeys(TyperCommand):
    """Its --help ends with what KEY=VALUE may set."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Read the keys now, and not at every start of `tenth`."""
        self.epilog = show_keys(default_keys(f"{(self.name or '').capitalize()}Recipe"))
        if self.name == "rl":
            self.epilog += f"\n\n{_ACCURACY}"
        super().format_help(ctx, formatter)


def show_keys(defaults: Mapping[str, str]) -> str:
    """Those with a default, then those without.

    >>> show_keys({"seed": "1", "beta": "0.0", "lora_alpha": ""})
    'Keys and defaults: seed=1, beta=0.0.\\n\\nWithout one, or chosen from model and file: lora_alpha.'
    """
    known = ", ".join(f"{key}={value}" for key, value in defaults.items() if value)
    others = ", ".join(key for key, value in defaults.items() if not value)
    return f"Keys and defaults: {known}.\n\nWithout one, or chosen from model and file: {others}."


def default_keys(recipe: str) -> dict[str, str]:
    """Every key that needs no value, from the source of the recipe: to import it is to import torch."""
    classes = {
        node.name: node
        for node in ast.parse(_RECIPES.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    fields = [
        node
        for name in ("TuneRecipe", recipe)
        for node in classes[name].body
        if isinstance(node, ast.AnnAssign) and node.value is not None
    ]
    shown = {field.target.id: _default(field.value) for field in fields if isinstance(field.target, ast.Name)}
    return {key: value for key, value in shown.items() if value is not None}


def _default(value: ast.expr | None) -> str | None:
    """As it is typed; empty where it is None or (), None where there is no default."""
    if isinstance(value, ast.Call):  # Field(default, ...)
        return _default(value.args[0]) if value.args else None
    if isinstance(value, ast.Constant) and value.value is not None:
        return str(value.value).lower()
    return value.attr.lower() if isinstance(value, ast.Attribute) else ""


def run_in_view(
    work: Work[R], values: Mapping[str, Any], overrides: Sequence[str], *, out: Path, plain: bool
) -> R:
    """Call the pipeline's `work` with a view of its steps; what was not given is left to it."""
    from tenth.cli.live import LiveView
    from tenth.cli.tensorboard import TensorBoardSink

    refuse_run(Path(values["model"]))
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
