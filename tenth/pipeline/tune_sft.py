"""`tenth sft`: supervised fine-tuning of somebody's model on somebody's conversations.

measured -> trained -> measured again, on examples that are set aside, and a model that other tools load.
In:  a checkpoint, a file of conversations (data/conversations.py).
Out: a run directory; `model/` in it; the held-out loss before and after.
The loss falls on what the assistant says.
Not here: the steps (sft_trainer.py), settings (tune_recipe.py), the command line (cli/sft.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.config import apply_overrides, build_recipe
from tenth.base.files import file_hash, read_json, write_json
from tenth.base.runlog import MetricSink
from tenth.checkpoint.model_card import ModelCard
from tenth.data.conversations import read_examples
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.lock import only_writer
from tenth.pipeline.machine import Machine
from tenth.pipeline.saver import Saver
from tenth.pipeline.sft_trainer import ExampleSplit, SftPlan, SftTrainer, num_steps, split_examples
from tenth.pipeline.stage import Outcome, Stage, adopt_records, done_number, open_log, run_stages
from tenth.pipeline.tune import (
    Base,
    begin_run,
    load_policy,
    load_to_learn,
    load_trained,
    lora_config,
    open_base,
    save_trained,
    stage_named,
    take_over,
    write_card,
)
from tenth.pipeline.tune_memory import estimate, require_memory
from tenth.pipeline.tune_recipe import SftRecipe
from tenth.training.sft import sft_loss

_LR, _LR_ADAPTER = 2e-5, 2e-4  # peak rates where none is given
_SCORES = "scores.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SftResult:
    """A finished run: nats per trained token of the held-out examples."""

    run_dir: Path
    loss_before: float
    loss_after: float
    num_held_out: int


def run_sft(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: Path,
    command: str = "",
    sinks: Sequence[MetricSink] = (),
    say: Callable[[str], None] = lambda _: None,
) -> SftResult:
    """Run, or continue, with the settings of `SftRecipe`; `command` is what somebody typed."""
    given = apply_overrides(dict(values), overrides)
    given.setdefault("learning_rate", _LR_ADAPTER if given.get("lora_rank") else _LR)
    recipe = build_recipe(SftRecipe, given, source="tenth sft")
    base = open_base(Path(recipe.model))
    recipe, split, note = prepare_sft(recipe, base)
    with only_writer(out):
        require_sft_memory(recipe, base)
        hashes = {"model": base.fingerprint(), "data": file_hash(Path(recipe.data))}
        machine, settings = begin_run(out, recipe, hashes=hashes, reward_files={}, say=say)
        for sentence in (*note, introduction(out, recipe, split)):
            say(sentence)
        run = SftRun(run_dir=out, recipe=recipe, base=base, split=split, machine=machine, sinks=sinks)
        stages = run.stages(settings)
        adopt_records(out, stages)  # of an earlier version
        run_stages(out, stages)
        result = SftResult(
            run_dir=out,
            loss_before=run.loss("measure-before"),
            loss_after=run.loss("measure-after"),
            num_held_out=len(split.held_out),
        )
        write_card(out, _card(run, command, result), base, recipe)
    return result


def prepare_sft(recipe: SftRecipe, base: Base) -> tuple[SftRecipe, ExampleSplit, list[str]]:
    """The settings without a None, the examples, and what there is to say about them."""
    context = base.config.max_position_embeddings
    longest = min(recipe.max_length or context, context)
    path = Path(recipe.data)
    found = read_examples([path], base.tokenizer, template=base.template, max_tokens=longest)
    split = split_examples(found.examples, most=recipe.eval_examples, source=path)
    steps = recipe.steps or num_steps(len(split.training), epochs=recipe.epochs, batch_size=recipe.batch_size)
    resolved = recipe.model_copy(update={"max_length": longest, "steps": steps})
    lora_config(resolved, base)  # checks it
    if not found.num_too_long:
        return resolved, split, []
    total = len(found.examples) + found.num_too_long
    return (
        resolved,
        split,
        [f"{found.num_too_long:,} of {total:,} examples are longer than {longest} tokens and are left out."],
    )


def introduction(out: Path, recipe: SftRecipe, split: ExampleSplit) -> str:
    return (
        f"{out}: {recipe.steps:,} step{'' if recipe.steps == 1 else 's'} × {recipe.batch_size} examples, "
        f"drawn from {len(split.training):,}; "
        f"{len(split.held_out):,} others are set aside and measured before and after."
    )


def require_sft_memory(recipe: SftRecipe, base: Base) -> None:
    """Refuse what will not fit."""
    need = estimate(
        base.config,
        rank=recipe.lora_rank,
        targets=recipe.lora_targets,
        num_copies=0,
        cached_tokens=0,
        batch_tokens=recipe.micro_batch_tokens,
    )
    require_memory(need, base.config, is_adapter=recipe.lora_rank is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRun:
    """What the stages share."""

    run_dir: Path
    recipe: SftRecipe
    base: Base
    split: ExampleSplit
    machine: Machine
    sinks: Sequence[MetricSink]

    def stages(self, settings: Mapping[str, Any]) -> list[Stage]:
        """The story."""
        return [
            Stage(name="measure-before", settings=settings, run=self._measure_before),
            Stage(name="sft", needs=("measure-before",), settings=settings, run=self.train),
            Stage(name="measure-after", needs=("sft",), settings=settings, run=self._measure_after),
        ]

    def loss(self, stage: str) -> float:
        """What a measuring stage found."""
        return float(read_json(stage_named(self.run_dir, stage) / _SCORES)["loss"])

    def trainer(self, model: Transformer) -> SftTrainer:
        """What takes the steps; another objective overrides this and `held_out_loss`."""
        recipe = self.recipe
        return SftTrainer(
            model, self.split, recipe.optim_config(), sft_plan(recipe), pad_id=self.base.tokenizer.pad_id
        )

    def held_out_loss(self, model: Transformer) -> float:
        """Before and after the training."""
        return sft_loss(
            model,
            self.split.held_out,
            micro_batch_tokens=self.recipe.micro_batch_tokens,
            pad_id=self.base.tokenizer.pad_id,
        )

    def _measure_before(self, directory: Path) -> Outcome:
        model = load_policy(self.base, self.recipe, dtype=self.machine.compute_dtype)
        return self._measure(directory, model)

    def _measure_after(self, directory: Path) -> Outcome:
        dtype = self.machine.compute_dtype
        return self._measure(directory, load_trained(self.base, self.recipe, self.run_dir, dtype=dtype))

    def _measure(self, directory: Path, model: Transformer) -> Outcome:
        log = open_log(directory, sinks=self.sinks, from_step=0, total_steps=1)
        loss = self.held_out_loss(model)
        write_json(directory / _SCORES, {"loss": loss, "examples": len(self.split.held_out)})
        log.log(0, {"held_out_loss": loss})
        log.end()
        return Outcome(summary={"held_out_loss": loss})

    def train(self, directory: Path) -> Outcome:
        """From where it was saved last, to `model/`."""
        recipe = self.recipe
        assert recipe.steps is not None
        model, exact = load_to_learn(self.base, recipe, dtype=self.machine.compute_dtype)
        trainer = self.trainer(model)
        take_over(trainer.updater, exact)
        saver = Saver(directory, recipe)
        state = trainer.resume(saver)
        first = 0 if state is None else state.step
        log = open_log(directory, sinks=self.sinks, from_step=first, total_steps=recipe.steps)
        trainer.train(log, saver, first=first, every=max(1, recipe.steps // recipe.evaluations))
        save_trained(self.run_dir, model, self.base, recipe, trainer.updater.masters.state_dict())
        costs = flops_per_token(self.base.config, context_tokens=trainer.mean_tokens)
        flops = costs.training if recipe.lora_rank is None else costs.adapting
        return Outcome(tokens=float(trainer.num_tokens), flops=flops * trainer.num_tokens)


def sft_plan(recipe: SftRecipe) -> SftPlan:
    """The recipe as training knows it, once nothing is None."""
    assert recipe.steps is not None
    return SftPlan(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        warmup_share=recipe.warmup_ratio,
        floor=recipe.lr_floor,
        micro_batch_tokens=recipe.micro_batch_tokens,
        seed=recipe.seed,
        is_packed=recipe.packing,
    )


def _card(run: SftRun, command: str, result: SftResult) -> ModelCard:
    recipe, path = run.recipe, Path(run.recipe.data)
    tokens = done_number(stage_named(run.run_dir, "sft"), "tokens")
    return ModelCard(
        name=f"{run.base.name}-sft",
        datasets=(f"{path.name} ({file_hash(path)}, {len(run.split.training)} examples)",),
        stages=(
            f"Began as {run.base.name}.",
            f"Supervised fine-tuning of {recipe.what_learns}: {recipe.steps} steps of {recipe.batch_size} "
            f"examples, {tokens:,.0f} tokens, peak learning rate {recipe.learning_rate:g}.",
        ),
        scores={
            f"held-out loss before ({result.num_held_out} examples, nats per token)": result.loss_before,
            f"held-out loss after ({result.num_held_out} examples, nats per token)": result.loss_after,
        },
        command=command or None,
    )
