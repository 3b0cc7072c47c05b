"""`tenth reward-model MODEL --data FILE...`: a reward model from preferences, and what it is worth.

Why: a reward model that does not beat "the longer answer wins" teaches a policy to talk, so the command
measures before it trains: cross-validation beside simple rules, and how much data would be needed.
In:  a model directory; preference files. Out: a directory with the reward model and check.json.
Not here: the work (pipeline/reward_run.py).
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tenth.base.config import apply_overrides, build_recipe
from tenth.base.errors import ConfigError
from tenth.cli.eval_targets import refuse_run
from tenth.cli.tune_command import run_name, typed_command

_KINDS = ("helpful", "safe")
KEYS = (
    "Keys and defaults: epochs=1, batch_size=64, held_out_share=0.1, optim.lr=2e-5, optim.weight_decay=0, "
    "micro_batch_tokens=8192. DeepSeek-R1's were batch_size=256 optim.lr=6e-6 with 66,000 pairs."
)


def reward_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model directory to begin from.")],
    data: Annotated[
        list[Path], typer.Option(help="Preferences: prompt, chosen, rejected; or prompt, response, label.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as epochs=2 optim.lr=1e-4.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="helpful: pairs, final summary; safe: labels, thinking too.")
    ] = "helpful",
    folds: Annotated[int, typer.Option(help="Of the cross-validation.")] = 5,
    repeats: Annotated[int, typer.Option(help="Of the cross-validation.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Default: runs/MODEL-KIND.")] = None,
    seed: Annotated[int, typer.Option(help="Of folds and order.")] = 1,
) -> None:
    """Train a reward model on preferences, and measure it beside simple rules."""
    if kind not in _KINDS:
        raise ConfigError(f"--kind {kind} is not known; choose helpful or safe.")
    refuse_run(model)
    from tenth.native.process import tune_process  # torch: not for `--help`

    tune_process()
    from tenth.checkpoint.reward_dir import RewardKind
    from tenth.pipeline.r1_recipe import RewardModelSection
    from tenth.pipeline.reward_run import run_reward_model

    values = {"optim": {"kind": "adamw", "lr": 2e-5, "weight_decay": 0.0}}
    section = build_recipe(
        RewardModelSection, apply_overrides(values, overrides or []), source="tenth reward-model"
    )
    console = Console()
    try:
        result = run_reward_model(
            model,
            data,
            kind=RewardKind(kind),
            folds=folds,
            repeats=repeats,
            out=out or Path("runs") / run_name(model, kind),
            section=section,
            seed=seed,
            say=lambda text: console.print(text, soft_wrap=True, markup=False, highlight=False),
        )
    except KeyboardInterrupt:
        typer.echo(f"Stopped; all that was saved is kept. To continue: {typed_command()}", err=True)
        raise typer.Exit(130) from None
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"{folds} folds, {'once' if repeats == 1 else f'{repeats} times'}")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    for each in result.check["candidates"]:
        table.add_row(each["name"], f"{each['mean']:.1%}", f"{each['low']:.1%} to {each['high']:.1%}")
    console.print(table)
    typer.echo(result.check["sentence"])
    scores = result.scores
    typer.echo(
        f"The reward model is in {result.model_dir}; of held-out examples, {scores['held_out']:,} in all, "
        f"it is right in {scores['accuracy']:.1%}."
    )
