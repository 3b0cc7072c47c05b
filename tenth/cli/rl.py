"""`tenth rl MODEL --tasks FILE`: reinforcement on your own model, problems and rewards.

Why: the everyday command: no recipe to write, sensible defaults, a model that other tools load comes out.
In:  a checkpoint of any known format; a JSONL or Parquet file with `prompt` and `answer`, or with `prompt`
alone and functions that reward (`file.py:function`, TRL's signature). Where functions are given, they alone
count, as in TRL; `accuracy_weight=1` adds that the answer is right.
Out: a run directory; its `model/`; held-out rewards before and after. Repeat the command to continue a run.
Not here: the stages (pipeline/tune_rl.py), what can be set (pipeline/tune_recipe.py).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.tune_command import print_result, run_in_view, run_name

if TYPE_CHECKING:
    from tenth.rollout.held_out import HeldOut

_REWARD_HELP = (
    "file.py:function, or file.py:function=WEIGHT; may be repeated. "
    "Instead of the answers' accuracy, which accuracy_weight=1 adds."
)


def rl(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory, a .gguf or .bin file.")],
    tasks: Annotated[
        Path, typer.Option(help="Problems: .jsonl or .parquet with prompt, and answer or --reward.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Such as num_generations=16 seed=2."),
    ] = None,
    reward: Annotated[list[str] | None, typer.Option(help=_REWARD_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory. Default: runs/MODEL-rl.")] = None,
    lora: Annotated[int | None, typer.Option(help="Train an adapter of this rank, not all weights.")] = None,
    steps: Annotated[int | None, typer.Option(help="Default: 100.")] = None,
    lr: Annotated[float | None, typer.Option(help="Default: 1e-6; 2e-5 with --lora.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a view redrawn in place.")] = False,
) -> None:
    """Reinforce your own model on your own problems (GRPO)."""
    from tenth.native.process import tune_process  # torch: not for `--help`

    tune_process()  # before the first tensor
    from tenth.pipeline.tune_problems import parse_rewards
    from tenth.pipeline.tune_rl import run_rl

    values = {
        "model": str(model),
        "tasks": str(tasks),
        "rewards": parse_rewards(reward or ()),
        "lora_rank": lora,
        "steps": steps,
        "learning_rate": lr,
    }
    run_dir = out or Path("runs") / run_name(model, "rl")
    result = run_in_view(run_rl, values, overrides or [], out=run_dir, plain=plain)
    before = result.before
    measured_on = f"{_counted(before.problems, 'held-out problem')} × {_counted(before.samples, 'sample')}"
    print_result(_rows(before, result.after), model_dir=run_dir / "model", measured_on=measured_on)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _rows(before: "HeldOut", after: "HeldOut") -> list[tuple[str, ...]]:
    pair = (before, after)
    rows: list[tuple[str, ...]] = [
        ("reward", *(f"{each.reward:.3f} ± {each.half_width:.3f}" for each in pair))
    ]
    rows += [
        (f"  {name}", *(f"{each.rewards.get(name, float('nan')):.3f}" for each in pair))
        for name in {**before.rewards, **after.rewards}
    ]
    rows.append(("tokens", *(f"{each.mean_tokens:.0f}" for each in pair)))
    rows.append(("cut off by length", *(f"{each.truncated:.0%}" for each in pair)))
    return rows
