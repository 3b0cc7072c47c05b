"""`tenth distill TEACHER STUDENT --prompts FILE`: a student learns from a stronger model's answers.

Why: what a large model found out by reinforcement reaches small ones most cheaply by way of its answers
(DeepSeek-R1, arXiv:2501.12948v2, section 4).
In:  a teacher: a model on disk, a run, or an API's address with --model; a student: a model directory or the
name of a preset; a file with `prompt`, and with `answer` where answers shall be checked.
Out: a run directory; its `model/`; the teacher's samples, kept and dropped. Repeat the command to continue:
what was answered is neither asked nor paid for again.
Not here: the stages (pipeline/distill.py), what can be set (pipeline/tune_recipe.py).
"""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.base.errors import ConfigError
from tenth.cli.endpoint_options import Budget, Concurrency, KeyEnv, Prices, Timeout
from tenth.cli.eval_targets import Target, opened, read_targets
from tenth.cli.tune_command import print_result, run_in_view, run_name

if TYPE_CHECKING:
    from tenth.pipeline.distill_sides import Teacher

_REPLIES = "replies"  # of the run: what an API has answered and cost


def distill(
    teacher: Annotated[
        str, typer.Argument(metavar="TEACHER", help="A model, a run, or an API's address (https://.../v1).")
    ],
    student: Annotated[
        Path, typer.Argument(metavar="STUDENT", help="A model directory; or a preset, from random weights.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as samples=4 seed=2.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="What to ask: .jsonl or .parquet with prompt; an answer is checked.")
    ] = None,
    tasks: Annotated[Path | None, typer.Option(help="The same, and every row has an answer.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="sft (default), logits or on-policy; the latter two: a local teacher.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory. Default: runs/STUDENT-distill.")
    ] = None,
    lora: Annotated[int | None, typer.Option(help="Train an adapter of this rank, not all weights.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the set. Default: 3.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Default: 1e-4 to 2e-5 by size; 2e-4 with --lora.")] = None,
    model: Annotated[str | None, typer.Option(help="The teacher's name at its address.")] = None,
    key_env: KeyEnv[str | None] = None,
    prices: Prices[str | None] = None,
    budget: Budget = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where an API's replies are kept, for several runs to share.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a view redrawn in place.")] = False,
) -> None:
    """Distil a teacher, on disk or behind an API, into a student."""
    asked = _one_file(prompts, tasks)
    if epochs is not None and steps is not None:
        raise ConfigError(f"--epochs {epochs:g} and --steps {steps} both say how long; give one of them.")
    from tenth.native.process import tune_process  # torch: not for `--help`

    tune_process()  # before the first tensor
    from tenth.pipeline.distill import run_distill

    (target,) = read_targets(
        [teacher],
        models=[model] if model else (),
        key_variables=[key_env] if key_env else (),
        prices=[prices] if prices else (),
        budget_usd=budget,
        concurrency=concurrency,
        timeout_seconds=timeout,
    )
    values = {
        "teacher": teacher,
        "model": str(student),
        "prompts": str(asked),
        "method": kind,
        "lora_rank": lora,
        "epochs": epochs,
        "steps": steps,
        "learning_rate": lr,
    }
    run_dir = out or Path("runs") / run_name(student, "distill")
    work = partial(
        run_distill,
        teacher=_teacher(target, replies_dir=cache or run_dir / _REPLIES),
        needs_answers=tasks is not None,
    )
    result = run_in_view(work, values, overrides or [], out=run_dir, plain=plain)
    pair = (result.loss_before, result.loss_after)
    if result.kind == "sft":
        rows = [
            ("loss, nats per token", *(f"{loss:.4f}" for loss in pair)),
            ("perplexity", *(f"{math.exp(min(loss, 700.0)):.2f}" for loss in pair)),
        ]
    else:
        rows = [("KL to the teacher, nats per token", *(f"{loss:.4f}" for loss in pair))]
    print_result(rows, model_dir=run_dir / "model", measured_on=f"{result.num_held_out} held-out examples")
    if result.usd:
        typer.echo(f"The teacher's answers cost ${result.usd:.4f}.")


def _one_file(prompts: Path | None, tasks: Path | None) -> Path:
    found = [path for path in (prompts, tasks) if path is not None]
    if len(found) != 1:
        raise ConfigError(
            "give one of --prompts FILE (what to ask; an answer that a row has is checked) and --tasks FILE "
            "(every row has an answer)."
        )
    return found[0]


def _teacher(target: Target, *, replies_dir: Path) -> "Teacher":
    from tenth.pipeline.distill_sides import Teacher

    return Teacher(
        name=target.name,
        identity=target.identity,
        model_dir=target.model_dir,
        open=partial(opened, target, replies_dir=replies_dir),
    )
