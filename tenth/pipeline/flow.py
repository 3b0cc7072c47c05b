"""A run from its recipe or its directory to its end: what is checked, what is done already, what is left.

Why: R1-Zero and the whole of R1 are stories of stages (zero.py, r1.py); beginning, continuing and changing a
run are the same for both. Work that another recipe made is removed only by somebody who said so.
In:  a recipe file or the directory of a run that was begun, and the story to tell.
Out: a run directory, every stage of it done; or a RunError that names what would be made again.
Not here: the stages, the report (the command line asks reports/ for it).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from tenth.base.config import apply_overrides, build_recipe, dump_recipe, load_recipe
from tenth.base.errors import RunError
from tenth.base.files import read_json, write_json
from tenth.base.machine import preflight
from tenth.base.runlog import MetricSink
from tenth.checkpoint.model_dir import load_model
from tenth.model.counts import count
from tenth.model.transformer import Transformer
from tenth.pipeline.checks import check_recipe
from tenth.pipeline.lock import only_writer
from tenth.pipeline.machine import Machine
from tenth.pipeline.recipe import FlowName, ZeroRecipe
from tenth.pipeline.recipes import saved_values
from tenth.pipeline.reinforce import batch_plan
from tenth.pipeline.run_dir import INFO, RECIPE, describe_run, require_run_or_nothing
from tenth.pipeline.settings import model_config
from tenth.pipeline.stage import (
    FORMAT_VERSION,
    Outcome,
    Stage,
    adopt_records,
    done_stages,
    remove_stages,
    renew_stage,
    require_ready,
    run_stages,
    stage_dirs,
    stale_stages,
)
from tenth.tokenizer.tokenizer import Tokenizer

_SHOWN_KEYS = 3  # of a changed recipe
# What may differ between two calls of one run: it changes no result.
_FREE_KEYS = ("price_usd_per_hour", "checkpoint_every_seconds", "keep_checkpoints")
_FREE_ENDINGS = (".key_variable", ".hit_usd", ".miss_usd", ".output_usd", ".budget_usd", ".concurrency")

R = TypeVar("R", bound=ZeroRecipe)
R_co = TypeVar("R_co", bound=ZeroRecipe, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[R_co]):
    """What all stages of a run share."""

    recipe: R_co
    machine: Machine
    sinks: Sequence[MetricSink]
    dirs: dict[str, Path]  # of the stages, by name
    run_dir: Path
    folder: Path  # what the recipe's file names are relative to

    def section(self, name: str) -> Any:
        """A part of the recipe as plain values: the settings of a stage."""
        return dump_recipe(self.recipe)[name]

    def tokenizer(self) -> Tokenizer:
        """The one tokenizer of the run."""
        return Tokenizer.load(self.dirs["documents"])

    def model(self, stage: str, *, part: str = "model") -> Transformer:
        """What a stage has trained."""
        return load_model(self.dirs[stage] / part, dtype=self.machine.compute_dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(Generic[R]):
    """A story: the schema of its recipe, the names of its stages in order, and the stages."""

    name: FlowName
    schema: type[R]
    names: Callable[[R], tuple[str, ...]]
    stages: Callable[[Work[R]], list[Stage]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a run is to be made."""

    runs_dir: Path = Path("runs")
    sinks: Sequence[MetricSink] = ()  # get every step's numbers
    say: Callable[[str], None] = lambda _: None  # the few sentences that a person should read
    yes: bool = False  # what a changed recipe has outdated may be removed
    again: str | None = None  # the only stage to run, even when it is done


def run_flow(flow: Flow[R], source: Path, overrides: Sequence[str], call: Call) -> Path:
    """Run a recipe, or continue the run in a directory; returns the run directory."""
    recipe, folder = _resolve(flow, source, overrides)
    run_dir = source if source.is_dir() else call.runs_dir / recipe.name
    check_recipe(recipe, folder)
    with only_writer(run_dir):
        before = _recipe_before(flow, run_dir, recipe)
        preflight(
            needed_bytes_memory=_memory_needed(recipe), needed_bytes_disk=_disk_needed(recipe), path=run_dir
        )
        machine = describe_run(
            run_dir, name=recipe.name, recipe_folder=folder, price_usd_per_hour=recipe.price_usd_per_hour
        )

        def stages_of(recipe: R) -> list[Stage]:
            dirs = stage_dirs(run_dir, flow.names(recipe))
            return flow.stages(
                Work(
                    recipe=recipe,
                    machine=machine,
                    sinks=call.sinks,
                    dirs=dirs,
                    run_dir=run_dir,
                    folder=folder,
                )
            )

        stages = stages_of(recipe)
        names = [stage.name for stage in stages]
        if call.again not in (None, *names):
            raise RunError(f"there is no stage '{call.again}'; the stages are {', '.join(names)}.")
        if before is not None:
            adopt_records(run_dir, stages_of(before))
        require_ready(run_dir, stages, only=call.again)
        if before is not None:
            _make_way(run_dir, stages, changed=_changed_keys(before, recipe), call=call)
        # Behind every check: a recipe that cannot run must not take the name.
        write_json(run_dir / RECIPE, dump_recipe(recipe))
        call.say(f"{run_dir}: each RL step is {batch_plan(recipe.rl).sentence()}.")
        if machine.compute_dtype == torch.float32:
            call.say("This processor gains nothing from bfloat16, so the run computes in float32.")
        if call.again is None:
            run_stages(run_dir, stages, tell=partial(_tell, call))
        else:
            _run_again(run_dir, stages, call.again, call)
    return run_dir


def _make_way(run_dir: Path, stages: Sequence[Stage], *, changed: Sequence[str], call: Call) -> None:
    """Remove what a changed recipe has outdated, if that was agreed to."""
    stale = stale_stages(run_dir, stages)
    if not stale or call.again is not None:
        if changed and stale:
            raise RunError(
                f"{', '.join(changed)} cannot change while --again runs a single stage; run "
                f"`tenth run {run_dir}` with the change first."
            )
        return
    kept = [name for name in done_stages(run_dir, stages) if name not in stale]
    sentence = f"{', '.join(stale)} will run again"
    stay = f"{', '.join(kept)} {'stays' if len(kept) == 1 else 'stay'}" if kept else "nothing stays"
    if not call.yes:
        why = (
            f"{_some(changed)} changed"
            if changed
            else "files or results that they are made from have changed"
        )
        raise RunError(
            f"{run_dir}: {why}, so {sentence} and what they hold would be removed ({stay}); add --yes to "
            "agree, or give the run another name (name=...)."
        )
    remove_stages(run_dir, stages, stale)
    call.say(f"{run_dir}: {sentence}; {stay}.")


def _run_again(run_dir: Path, stages: Sequence[Stage], name: str, call: Call) -> None:
    """Run one stage alone, and say what hangs on it."""
    by_name = {stage.name: stage for stage in stages}
    stale = stale_stages(run_dir, stages)
    done = [each for each in done_stages(run_dir, stages) if each not in stale]
    missing = [each for each in by_name[name].needs if each not in done]
    if missing:
        raise RunError(
            f"stage '{name}' needs stage '{missing[0]}', which is not done as the recipe stands; run "
            f"`tenth run {run_dir}` first."
        )
    renew_stage(run_dir, stages, name)
    run_stages(run_dir, stages, only=name, tell=partial(_tell, call))
    stale = stale_stages(run_dir, stages)
    if stale:
        call.say(
            f"{run_dir}: {', '.join(stale)} {'was' if len(stale) == 1 else 'were'} made from the earlier "
            f"result of '{name}'; `tenth run {run_dir} --yes` makes that again, too."
        )


def _tell(call: Call, name: str, outcome: Outcome) -> None:
    """A stage that makes a set of samples has no steps to watch; it says what it kept and dropped."""
    made = outcome.summary
    if "dropped" not in made:
        return
    rules = sorted(made["dropped"].items(), key=lambda item: -item[1])
    dropped = ", ".join(f"{rule} {count:,}" for rule, count in rules) or "none"
    added = f", {made['general']:,} general rows added" if made.get("general") else ""
    call.say(f"{name}: {made['kept']:,} of {made['sampled']:,} answers kept{added}; dropped: {dropped}.")


def _resolve(flow: Flow[R], source: Path, overrides: Sequence[str]) -> tuple[R, Path]:
    """The recipe and the folder its file names are relative to."""
    if not source.is_dir():
        return load_recipe(flow.schema, source, overrides), source.parent
    values = saved_values(source)
    info = read_json(source / INFO)
    version, folder = (
        (info.get("format_version"), info.get("recipe_folder")) if isinstance(info, dict) else (None, None)
    )
    if type(version) is not int or not isinstance(folder, str):
        raise RunError(f"{source / INFO} is damaged; restore it, or begin another run from the recipe file.")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{source} has format {str(version)[:20]}, this version reads {FORMAT_VERSION}; use a newer "
            "tenth."
        )
    recipe = build_recipe(flow.schema, apply_overrides(values, overrides), source=str(source / RECIPE))
    return recipe, Path(folder)


def _recipe_before(flow: Flow[R], run_dir: Path, recipe: R) -> R | None:
    """The recipe of the run in the directory, as this version reads it; None where there is no run yet."""
    require_run_or_nothing(run_dir)
    if not (run_dir / RECIPE).exists():
        return None
    values = saved_values(run_dir)
    if values.get("flow", FlowName.ZERO) != flow.name and flow.name == FlowName.ZERO:
        raise RunError(f"{run_dir} holds a run of more stages; give this one another name (name=...).")
    if values["name"] != recipe.name and any(run_dir.glob("*/DONE.json")):
        raise RunError(
            f"{run_dir} is the run '{values['name']}', not '{recipe.name}'; begin another run from a recipe "
            "file."
        )
    return build_recipe(flow.schema, values | {"flow": flow.name}, source=str(run_dir / RECIPE))


def _changed_keys(before: ZeroRecipe, recipe: ZeroRecipe) -> list[str]:
    """Dotted names of the settings that differ."""
    one, two = _flat(dump_recipe(before)), _flat(dump_recipe(recipe))
    keys = dict.fromkeys((*two, *one))
    changed = (key for key in keys if one.get(key) != two.get(key))
    return [key for key in changed if key not in _FREE_KEYS and not key.endswith(_FREE_ENDINGS)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _some(keys: Sequence[str]) -> str:
    rest = len(keys) - _SHOWN_KEYS
    return ", ".join(keys[:_SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _memory_needed(recipe: ZeroRecipe) -> int:
    """Bytes: weights, masters, gradients, moments and reference, one batch's activations, the cache of a
    rollout."""
    config = model_config(recipe, vocab_size=recipe.documents.vocab_size)
    weights = count(config).stored_parameters * 24
    batch = recipe.pretrain.sequences_per_step * recipe.pretrain.sequence_length
    activations = batch * config.hidden_size * (config.num_hidden_layers + 2) * 80
    rollouts = max(
        rl.prompts_per_step * rl.num_generations * rl.max_completion_length for rl in recipe.all_rls
    )
    return weights + activations + rollouts * config.num_hidden_layers * config.hidden_size * 4 + (1 << 29)


def _disk_needed(recipe: ZeroRecipe) -> int:
    """Bytes: tokens, checkpoints, stored rollouts."""
    config = model_config(recipe, vocab_size=recipe.documents.vocab_size)
    checkpoints = count(config).stored_parameters * 16 * (recipe.keep_checkpoints + 2)
    rollouts = sum(
        rl.steps * rl.prompts_per_step * rl.num_generations * rl.max_completion_length * 3
        for rl in recipe.all_rls
    )
    stages = 1 + 3 * len(recipe.all_rls) if len(recipe.all_rls) > 1 else 2  # that train a model
    return recipe.documents.tokens * 2 + stages * checkpoints + rollouts + (64 << 20)
