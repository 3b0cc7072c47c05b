"""`tenth sft`: supervised fine-tuning of somebody's model on somebody's conversations.

measured -> trained -> measured again, on examples that are set aside, and a model that other tools load.
In:  a checkpoint, a file of conversations (data/conversations.py).
Out: a run directory; `model/` in it; the held-out loss before and after.
The loss falls on what the assistant says. Which examples a step takes follows from (seed, step), so a
continued run repeats exactly what a checkpoint had not kept.
Not here: one step (training/sft.py), settings (tune_recipe.py), the command line (cli/sft.py).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from tenth.base.config import apply_overrides, build_recipe
from tenth.base.errors import RunError
from tenth.base.files import file_hash, read_json, write_json
from tenth.base.runlog import MetricSink
from tenth.checkpoint.model_card import ModelCard
from tenth.data.conversations import read_examples
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.lock import only_writer
from tenth.pipeline.machine import Machine
from tenth.pipeline.saver import Saver
from tenth.pipeline.stage import Outcome, Stage, open_log, run_stages
from tenth.pipeline.tune import (
    Base,
    begin_run,
    load_policy,
    load_to_learn,
    load_trained,
    lora_config,
    open_base,
    save_trained,
    take_over,
    write_card,
)
from tenth.pipeline.tune_draw import hold_out, shuffled_places
from tenth.pipeline.tune_memory import estimate, require_memory
from tenth.pipeline.tune_recipe import SftRecipe
from tenth.tokenizer.chat import TrainingExample
from tenth.training.batches import Layout, TrainedSequence
from tenth.training.guard import Action, GuardConfig, GuardMemory, judge
from tenth.training.optim import WeightUpdater
from tenth.training.schedules import LrSchedule, lr_factor
from tenth.training.sft import sft_gradients, sft_loss

_LR, _LR_ADAPTER = 2e-5, 2e-4  # peak rates where none is given
_SCORES = "scores.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SftResult:
    """A finished run: nats per trained token of the held-out examples."""

    run_dir: Path
    loss_before: float
    loss_after: float
    num_held_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSplit:
    """No prompt is on both sides."""

    training: tuple[TrainedSequence, ...]
    held_out: tuple[TrainedSequence, ...]


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
    recipe, split, note = _prepare(recipe, base)
    with only_writer(out):
        _require_memory(recipe, base)
        hashes = {"model": base.fingerprint(), "data": file_hash(Path(recipe.data))}
        machine, settings = begin_run(out, recipe, hashes=hashes, reward_files={}, say=say)
        for sentence in (*note, _introduction(out, recipe, split)):
            say(sentence)
        run = _Run(run_dir=out, recipe=recipe, base=base, split=split, machine=machine, sinks=sinks)
        run_stages(out, run.stages(settings))
        result = SftResult(
            run_dir=out,
            loss_before=run.loss("01-measure-before"),
            loss_after=run.loss("03-measure-after"),
            num_held_out=len(split.held_out),
        )
        write_card(out, _card(run, command, result), base, recipe)
    return result


def _prepare(recipe: SftRecipe, base: Base) -> tuple[SftRecipe, ExampleSplit, list[str]]:
    """The examples, and the settings without a None."""
    context = base.config.max_position_embeddings
    longest = min(recipe.max_length or context, context)
    path = Path(recipe.data)
    found = read_examples([path], base.tokenizer, template=base.template, max_tokens=longest)
    split = split_examples(found.examples, most=recipe.eval_examples, source=path)
    steps = recipe.steps or max(1, round(recipe.epochs * ceil(len(split.training) / recipe.batch_size)))
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


def split_examples(examples: Sequence[TrainingExample], *, most: int, source: Path) -> ExampleSplit:
    """Hold out `most` prompts, or a tenth if that is less; which ones follows from their ids alone."""
    chosen = frozenset(hold_out(map(_prompt, examples), most=most, source=source))

    def side(*, is_held_out: bool) -> tuple[TrainedSequence, ...]:
        return tuple(
            TrainedSequence(ids=example.ids, trained=tuple(map(bool, example.loss_mask)))
            for example in examples
            if (_prompt(example) in chosen) is is_held_out
        )

    return ExampleSplit(training=side(is_held_out=False), held_out=side(is_held_out=True))


def _prompt(example: TrainingExample) -> tuple[int, ...]:
    """The ids in front of the first that is learnt."""
    return example.ids[: example.loss_mask.index(1)]


def _introduction(out: Path, recipe: SftRecipe, split: ExampleSplit) -> str:
    return (
        f"{out}: {recipe.steps:,} step{'' if recipe.steps == 1 else 's'} × {recipe.batch_size} examples, "
        f"drawn from {len(split.training):,}; "
        f"{len(split.held_out):,} others are set aside and measured before and after."
    )


def _require_memory(recipe: SftRecipe, base: Base) -> None:
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
class _Run:
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
            Stage(name="sft", settings=settings, run=self._train),
            Stage(name="measure-after", settings=settings, run=self._measure_after),
        ]

    def loss(self, stage: str) -> float:
        """What a measuring stage found."""
        return float(read_json(self.run_dir / stage / _SCORES)["loss"])

    def _measure_before(self, directory: Path) -> Outcome:
        model = load_policy(self.base, self.recipe, dtype=self.machine.compute_dtype)
        return self._measure(directory, model)

    def _measure_after(self, directory: Path) -> Outcome:
        dtype = self.machine.compute_dtype
        return self._measure(directory, load_trained(self.base, self.recipe, self.run_dir, dtype=dtype))

    def _measure(self, directory: Path, model: Transformer) -> Outcome:
        log = open_log(directory, sinks=self.sinks, from_step=0, total_steps=1)
        loss = self._held_out_loss(model)
        write_json(directory / _SCORES, {"loss": loss, "examples": len(self.split.held_out)})
        log.log(0, {"held_out_loss": loss})
        log.end()
        return Outcome(summary={"held_out_loss": loss})

    def _held_out_loss(self, model: Transformer) -> float:
        return sft_loss(
            model,
            self.split.held_out,
            micro_batch_tokens=self.recipe.micro_batch_tokens,
            pad_id=self.base.tokenizer.pad_id,
        )

    def _train(self, directory: Path) -> Outcome:
        recipe = self.recipe
        assert recipe.steps is not None
        model, exact = load_to_learn(self.base, recipe, dtype=self.machine.compute_dtype)
        trainer = _Trainer(recipe, model, self.split.training, pad_id=self.base.tokenizer.pad_id)
        take_over(trainer.updater, exact)
        saver = Saver(directory, recipe)
        state = saver.load()
        first = 0
        if state is not None:
            first = state.step
            trainer.updater.load_state_dict(state.tensors)
            trainer.memory = GuardMemory.from_dict(state.facts["guard"])
            trainer.num_tokens = int(state.facts["num_tokens"])
        log = open_log(directory, sinks=self.sinks, from_step=first, total_steps=recipe.steps)
        every = max(1, recipe.steps // recipe.evaluations)
        for step in range(first, recipe.steps):
            metrics = trainer.step(step)
            if (step + 1) % every == 0 or step + 1 == recipe.steps:
                metrics["val_loss"] = self._held_out_loss(model)
            log.log(step, metrics)
            if saver.is_due(step + 1):
                facts = {"guard": trainer.memory.to_dict(), "num_tokens": trainer.num_tokens}
                saver.save(step + 1, trainer.updater.state_dict(), facts)
        log.end()
        save_trained(self.run_dir, model, self.base, recipe, trainer.updater.masters.state_dict())
        mean_tokens = max(1, trainer.num_tokens // (recipe.steps * recipe.batch_size))
        costs = flops_per_token(self.base.config, context_tokens=mean_tokens)
        flops = costs.training if recipe.lora_rank is None else costs.adapting
        return Outcome(tokens=float(trainer.num_tokens), flops=flops * trainer.num_tokens)


class _Trainer:
    """Model, updater and guard of the training stage."""

    def __init__(
        self, recipe: SftRecipe, model: Transformer, examples: Sequence[TrainedSequence], *, pad_id: int
    ) -> None:
        assert recipe.steps is not None
        self.recipe, self.model, self.examples, self.pad_id = recipe, model, examples, pad_id
        self.updater = WeightUpdater(model, recipe.optim_config())
        self.memory, self.num_tokens = GuardMemory(), 0
        warmup = round(recipe.warmup_ratio * recipe.steps)
        self.schedule = LrSchedule(
            warmup_steps=warmup, constant_until=warmup / recipe.steps, cosine_until=1.0, floor=0.0
        )
        self.steps = recipe.steps
        self._places = shuffled_places(len(examples), seed=recipe.seed, stream="sft-order")

    def step(self, step: int) -> dict[str, float]:
        """One update, unless the guard finds the step unfit."""
        began = time.perf_counter()
        stats = sft_gradients(
            self.model,
            self.updater,
            [self.examples[place] for place in self._places(step, self.recipe.batch_size)],
            micro_batch_tokens=self.recipe.micro_batch_tokens,
            pad_id=self.pad_id,
            layout=Layout.PACKED if self.recipe.packing else Layout.PAD_RIGHT,
        )
        judgement = judge(self.memory, GuardConfig(), loss=stats.loss, grad_norm=stats.grad_norm)
        self.memory = judgement.memory
        factor = lr_factor(self.schedule, step=step, progress=step / self.steps)
        if judgement.action is Action.CONTINUE:
            self.updater.apply(lr_factor=factor)
        else:
            self.updater.discard()
        if judgement.action in (Action.ROLLBACK, Action.STOP):
            # The data of the next steps is fixed, so going back would only meet the same ones again.
            raise RunError(
                f"step {step}: the loss is {stats.loss:.4g} and the gradient norm {stats.grad_norm:.4g}, out "
                f"of all proportion for the {GuardConfig().max_skips + 1}th step in a row; lower the "
                "learning rate (--lr) in another --out, or look at the examples of these steps."
            )
        self.num_tokens += stats.num_tokens
        seconds = time.perf_counter() - began
        return stats.metrics() | {
            "learning_rate": self.recipe.learning_rate * factor,
            "num_tokens": float(self.num_tokens),
            "tokens_per_second": stats.num_tokens / seconds,
            "skipped_updates": float(judgement.action is not Action.CONTINUE),
            "step_time": seconds,
        }


def _card(run: _Run, command: str, result: SftResult) -> ModelCard:
    recipe, path = run.recipe, Path(run.recipe.data)
    tokens = read_json(run.run_dir / "02-sft" / "DONE.json")["tokens"]
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
