"""The front door: one table of commands, one place where errors become sentences.

Why: `tenth --help` must appear in a blink, so no command's machinery is imported before it is asked for.
In:  the command line.  Out: exit code 0; 1 with one sentence for what the user can mend; 2 for a command line
that cannot be read; 130 after Ctrl-C. Anything else is a fault of ours and shows its traceback.
Not here: what the commands do (one module per noun beside this one).
"""

import sys

import typer

from tenth import __version__
from tenth.base.errors import TenthError
from tenth.cli import (
    chat,
    convert,
    data,
    distill,
    eval,
    export,
    freeze,
    init,
    inspect,
    judge_pairs,
    quantize,
    report,
    reward_model,
    rl,
    run,
    runs,
    sft,
    tasks,
)
from tenth.cli.tune_command import CommandWithKeys

# No pretty tracebacks: a report of a fault should hold what Python says, not what fits a terminal's width.
commands = typer.Typer(
    name="tenth",
    help="An open implementation of the DeepSeek-R1 system: train, reinforce, measure, talk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
commands.command()(run.run)
commands.command(cls=CommandWithKeys)(rl.rl)
commands.command(cls=CommandWithKeys)(sft.sft)
commands.command(cls=CommandWithKeys)(distill.distill)
commands.command(name="eval")(eval.evaluate)
commands.add_typer(runs.app, name="runs")
commands.command(name="reward-model", epilog=reward_model.KEYS)(reward_model.reward_model)
commands.command(name="judge-pairs")(judge_pairs.judge_pairs)
commands.command()(report.report)
commands.command()(chat.chat)
commands.command()(inspect.inspect)
commands.command()(convert.convert)
commands.command()(quantize.quantize)
commands.command()(export.export)
commands.add_typer(tasks.app, name="tasks")
commands.add_typer(data.app, name="data")
commands.command()(init.init)
commands.command()(freeze.freeze)


@commands.command()
def version() -> None:
    """The version of tenth."""
    typer.echo(__version__)


def app() -> None:
    """What the installed `tenth` calls."""
    try:
        commands()
    except TenthError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
    except KeyboardInterrupt:  # before the command itself began
        sys.exit(130)


if __name__ == "__main__":
    app()
