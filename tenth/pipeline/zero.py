"""The R1-Zero story: documents -> base -> measured -> reinforced -> measured, and the controls beside it.

R1 (arXiv:2501.12948v2, section 2). One screen: what each stage does is one call down.
In:  a recipe file or the directory of a run that was begun.  Out: a run directory with a report.
Not here: drawing the report (the command line asks reports/ for it).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tenth.base.config import apply_overrides, build_recipe, dump_recipe, load_recipe
from tenth.base.errors import RunError
from tenth.base.files import read_json, write_json
from tenth.base.machine import preflight
from tenth.base.runlog import MetricSink
from tenth.checkpoint.model_dir import load_model
from tenth.model.counts import count
from tenth.model.transformer import Transformer
from tenth.pipeline import base, controls
from tenth.pipeline.checks import check_recipe
from tenth.pipeline.lock import only_writer
from tenth.pipeline.machine import Machine
from tenth.pipeline.measure import FOUR_WAYS, Mode, base_modes, measure
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.reinforce import batch_plan
from tenth.pipeline.run_dir import INFO, RECIPE, changed_settings, describe_run
from tenth.pipeline.settings import model_config
from tenth.pipeline.stage import FORMAT_VERSION, Outcome, Stage, run_stages
from tenth.pipeline.zero_card import write_zero_card
from tenth.pipeline.zero_rl import reinforce_zero
from tenth.tokenizer.tokenizer import Tokenizer

# What may differ between two calls of one run: it changes no result.
_FREE_KEYS = {"controls", "price_usd_per_hour", "checkpoint_every_seconds", "keep_checkpoints"}


def run_zero(
    source: Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: Path = Path("runs"),
    sinks: Sequence[MetricSink] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run a recipe, or continue the run in a directory; returns the run directory.

    `sinks` get every step's numbers, `say` the few sentences that a person should read before it starts.
    """
    recipe, folder = _resolve(source, overrides)
    run_dir = source if source.is_dir() else runs_dir / recipe.name
    check_recipe(recipe, folder)
    with only_writer(run_dir):
        _refuse_others(run_dir, recipe)
        preflight(
            needed_bytes_memory=_memory_needed(recipe), needed_bytes_disk=_disk_needed(recipe), path=run_dir
        )
        machine = describe_run(
            run_dir, name=recipe.name, recipe_folder=folder, price_usd_per_hour=recipe.price_usd_per_hour
        )
        # Behind every check: a recipe that cannot run must not take the name.
        write_json(run_dir / RECIPE, dump_recipe(recipe))
        say(f"{run_dir}: each RL step is {batch_plan(recipe.rl).sentence()}.")
        if machine.compute_dtype == torch.float32:
            say("This processor gains nothing from bfloat16, so the run computes in float32.")
        stages = zero_stages(run_dir, recipe, machine, sinks)
        if recipe.controls.enabled:
            stages += control_stages(run_dir, recipe, machine, sinks)
        run_stages(run_dir, stages)
    return run_dir


def zero_stages(
    run_dir: Path, recipe: ZeroRecipe, machine: Machine, sinks: Sequence[MetricSink]
) -> list[Stage]:
    """The story itself."""
    documents, base_dir, zero_dir = run_dir / "01-documents", run_dir / "02-base", run_dir / "04-zero"
    shared = {
        "seed": recipe.seed,
        "model": recipe.model,
        "template": recipe.template,
        "families": dump_recipe(recipe)["families"],
    }
    measuring = {"eval": dump_recipe(recipe)["eval"], "longest": recipe.rl.max_completion_length}

    def reinforce_base(directory: Path) -> Outcome:
        model, tokenizer = _load(base_dir, documents, machine)
        return reinforce_zero(directory, recipe, model, tokenizer, sinks=sinks)

    return [
        Stage(
            name="documents",
            settings=shared | {"documents": dump_recipe(recipe)["documents"]},
            run=lambda directory: base.write_documents(directory, recipe),
        ),
        Stage(
            name="base",
            settings=dump_recipe(recipe)["pretrain"],
            run=lambda directory: base.pretrain(
                directory, recipe, documents=documents, machine=machine, sinks=sinks
            ),
        ),
        Stage(
            name="measure-base",
            settings=measuring,
            run=lambda directory: _measure(
                directory, recipe, base_dir, documents, machine, base_modes(recipe), sinks
            ),
        ),
        Stage(name="zero", settings=dump_recipe(recipe)["rl"], run=reinforce_base),
        Stage(
            name="measure-zero",
            settings=measuring,
            run=lambda directory: _measure(directory, recipe, zero_dir, documents, machine, FOUR_WAYS, sinks),
        ),
    ]


def control_stages(
    run_dir: Path, recipe: ZeroRecipe, machine: Machine, sinks: Sequence[MetricSink]
) -> list[Stage]:
    """What else could explain the gain, at the tokens that R1-Zero used."""
    documents, base_dir = run_dir / "01-documents", run_dir / "02-base"

    def reward_format(directory: Path) -> Outcome:
        model, tokenizer = _load(base_dir, documents, machine)
        return reinforce_zero(directory, controls.format_only(recipe), model, tokenizer, sinks=sinks)

    def imitate(directory: Path) -> Outcome:
        model, tokenizer = _load(base_dir, documents, machine)
        tokens = read_json(run_dir / "04-zero" / "DONE.json")["tokens"]
        return controls.imitate_steps(directory, recipe, model, tokenizer, tokens=tokens, sinks=sinks)

    def measure_both(directory: Path) -> Outcome:
        formatted, tokenizer = _load(run_dir / "06-control-format", documents, machine)
        imitating, _ = _load(run_dir / "07-control-sft", documents, machine)
        asks = [(Mode(name="format_only"), formatted), (Mode(name="sft_steps"), imitating)]
        return measure(directory, recipe, asks, tokenizer, sinks=sinks)

    return [
        Stage(name="control-format", settings="format only", run=reward_format),
        Stage(name="control-sft", settings="worked documents", run=imitate),
        Stage(name="measure-controls", settings="sampled", run=measure_both),
    ]


def _measure(
    directory: Path,
    recipe: ZeroRecipe,
    model_stage: Path,
    documents: Path,
    machine: Machine,
    modes: Sequence[Mode],
    sinks: Sequence[MetricSink],
) -> Outcome:
    model, tokenizer = _load(model_stage, documents, machine)
    outcome = measure(directory, recipe, [(mode, model) for mode in modes], tokenizer, sinks=sinks)
    write_zero_card(recipe, model_stage, measured=directory)
    return outcome


def _load(stage_dir: Path, documents: Path, machine: Machine) -> tuple[Transformer, Tokenizer]:
    return load_model(stage_dir / "model", dtype=machine.compute_dtype), Tokenizer.load(documents)


def _resolve(source: Path, overrides: Sequence[str]) -> tuple[ZeroRecipe, Path]:
    """The recipe and the folder its file names are relative to."""
    if not source.is_dir():
        return load_recipe(ZeroRecipe, source, overrides), source.parent
    saved = source / RECIPE
    if not saved.exists():
        raise RunError(f"{source} holds no run: recipe.json is missing; name a recipe file to begin one.")
    values = read_json(source / INFO)
    if values["format_version"] > FORMAT_VERSION:
        raise RunError(
            f"{source} has format {values['format_version']}, this version reads {FORMAT_VERSION}; "
            "use a newer tenth."
        )
    recipe = build_recipe(ZeroRecipe, apply_overrides(read_json(saved), overrides), source=str(saved))
    return recipe, Path(values["recipe_folder"])


def _refuse_others(run_dir: Path, recipe: ZeroRecipe) -> None:
    """See that the run directory is this recipe's, or nobody's yet."""
    changed = changed_settings(run_dir, dump_recipe(recipe), free=_FREE_KEYS)
    if changed:
        raise RunError(
            f"{run_dir} was made by another recipe ('{changed[0]}' differs); give this run another name "
            f"(name=...) or remove the old one with `tenth runs clean {run_dir.name}`."
        )


def _memory_needed(recipe: ZeroRecipe) -> int:
    """Bytes: weights, masters, gradients, moments and reference, one batch's activations, the cache of a
    rollout."""
    config = model_config(recipe, vocab_size=recipe.documents.vocab_size)
    weights = count(config).stored_parameters * 24
    batch = recipe.pretrain.sequences_per_step * recipe.pretrain.sequence_length
    activations = batch * config.hidden_size * (config.num_hidden_layers + 2) * 80
    rollouts = recipe.rl.prompts_per_step * recipe.rl.num_generations * recipe.rl.max_completion_length
    return weights + activations + rollouts * config.num_hidden_layers * config.hidden_size * 4 + (1 << 29)


def _disk_needed(recipe: ZeroRecipe) -> int:
    """Bytes: tokens, checkpoints, stored rollouts."""
    config = model_config(recipe, vocab_size=recipe.documents.vocab_size)
    checkpoints = count(config).stored_parameters * 16 * (recipe.keep_checkpoints + 2) * 2
    rollouts = (
        recipe.rl.steps
        * recipe.rl.prompts_per_step
        * recipe.rl.num_generations
        * 3
        * recipe.rl.max_completion_length
    )
    return recipe.documents.tokens * 2 + checkpoints + rollouts + (64 << 20)
