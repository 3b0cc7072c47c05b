"""`tenth sft MODEL --data FILE`: supervised fine-tuning of your own model on your own conversations.

Why: the everyday command: no recipe to write, sensible defaults, a model that other tools load comes out.
In:  a checkpoint of any known format; a file with `messages`, or with `prompt` and `completion`.
Out: a run directory; its `model/`; the held-out loss before and after. Repeat the command to continue a run.
Not here: the stages (pipeline/tune_sft.py), what can be set (pipeline/tune_recipe.py).
"""

import math
from pathlib import Path
from typing import Annotated

import typer

from tenth.base.errors import ConfigError
from tenth.cli.tune_command import print_result, run_in_view, run_name


def sft(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory, a .gguf or .bin file.")],
    data: Annotated[
        Path, typer.Option(help="Conversations: .jsonl with messages, or prompt and completion.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as batch_size=8 seed=2.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory. Default: runs/MODEL-sft.")] = None,
    lora: Annotated[int | None, typer.Option(help="Train an adapter of this rank, not all weights.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the file. Default: 3.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Default: 2e-5; 2e-4 with --lora.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a view redrawn in place.")] = False,
) -> None:
    """Fine-tune your own model on your own conversations."""
    if epochs is not None and steps is not None:
        raise ConfigError(f"--epochs {epochs:g} and --steps {steps} both say how long; give one of them.")
    from tenth.native.process import tune_process  # torch: not for `--help`

    tune_process()  # before the first tensor
    from tenth.pipeline.tune_sft import run_sft

    values = {
        "model": str(model),
        "data": str(data),
        "lora_rank": lora,
        "epochs": epochs,
        "steps": steps,
        "learning_rate": lr,
    }
    run_dir = out or Path("runs") / run_name(model, "sft")
    result = run_in_view(run_sft, values, overrides or [], out=run_dir, plain=plain)
    pair = (result.loss_before, result.loss_after)
    print_result(
        [
            ("loss, nats per token", *(f"{loss:.4f}" for loss in pair)),
            ("perplexity", *(f"{math.exp(min(loss, 700.0)):.2f}" for loss in pair)),
        ],
        model_dir=run_dir / "model",
        measured_on=f"{result.num_held_out} held-out examples",
    )
