"""Supervised fine-tuning over many steps: which examples a step takes, its rate, its guard, its state.

Why: `tenth sft` and the stages of a run fine-tune alike; they differ in where model and examples come from.
Which examples a step takes follows from (seed, step), so a continued run repeats exactly what a checkpoint
had not kept.
In:  a model, examples with a loss mask, an `SftPlan`.
Out: changed weights, the metrics of each step, checkpoints.
Not here: one step's gradients (training/sft.py), reading files (data/conversations.py), what comes before and
after (tune_sft.py, supervised.py).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from tenth.base.errors import RunError
from tenth.base.runlog import RunLog
from tenth.checkpoint.training_state import State
from tenth.model.transformer import Transformer
from tenth.pipeline.saver import Saver
from tenth.pipeline.tune_draw import hold_out, shuffled_places
from tenth.tokenizer.chat import TrainingExample
from tenth.training.batches import Layout, TrainedSequence
from tenth.training.guard import Action, GuardConfig, GuardMemory, judge
from tenth.training.optim import OptimConfig, WeightUpdater
from tenth.training.schedules import LrSchedule, lr_factor
from tenth.training.sft import SftStats, sft_gradients, sft_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSplit:
    """No prompt is on both sides."""

    training: tuple[TrainedSequence, ...]
    held_out: tuple[TrainedSequence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SftPlan:
    """What decides every step."""

    steps: int
    batch_size: int  # examples per step
    warmup_share: float  # of the steps; after it a cosine
    floor: float  # of the peak rate, where the cosine ends
    micro_batch_tokens: int
    seed: int
    is_packed: bool = True


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


def num_steps(num_examples: int, *, epochs: float, batch_size: int) -> int:
    """Steps in so many passes, at least one."""
    return max(1, round(epochs * ceil(num_examples / batch_size)))


class SftTrainer:
    """Model, updater and guard of a training stage."""

    def __init__(
        self, model: Transformer, split: ExampleSplit, optim: OptimConfig, plan: SftPlan, *, pad_id: int
    ) -> None:
        self.model, self.split, self.plan, self.pad_id = model, split, plan, pad_id
        self.peak_lr = optim.lr
        self.updater = WeightUpdater(model, optim)
        self.memory, self.num_tokens = GuardMemory(), 0
        warmup = round(plan.warmup_share * plan.steps)
        self.schedule = LrSchedule(
            warmup_steps=warmup, constant_until=warmup / plan.steps, cosine_until=1.0, floor=plan.floor
        )
        self._places = shuffled_places(len(split.training), seed=plan.seed, stream="sft-order")

    def resume(self, saver: Saver) -> State | None:
        """Take over what was saved last; None: nothing was."""
        state = saver.load()
        if state is not None:
            self.updater.load_state_dict(state.tensors)
            self.memory = GuardMemory.from_dict(state.facts["guard"])
            self.num_tokens = int(state.facts["num_tokens"])
        return state

    def train(
        self, log: RunLog, saver: Saver, *, first: int, every: int, facts: Mapping[str, Any] | None = None
    ) -> None:
        """All steps from `first`; held-out loss after each `every` and the last. `facts` are saved, too."""
        for step in range(first, self.plan.steps):
            metrics = self.step(step)
            if (step + 1) % every == 0 or step + 1 == self.plan.steps:
                metrics["val_loss"] = self.held_out_loss()
            log.log(step, metrics)
            if saver.is_due(step + 1):
                saver.save(step + 1, self.updater.state_dict(), {**self._facts(), **(facts or {})})
        log.end()

    def step(self, step: int) -> dict[str, float]:
        """One update, unless the guard finds the step unfit."""
        began = time.perf_counter()
        stats = self.gradients(step)
        judgement = judge(self.memory, GuardConfig(), loss=stats.loss, grad_norm=stats.grad_norm)
        self.memory = judgement.memory
        factor = lr_factor(self.schedule, step=step, progress=step / self.plan.steps)
        if judgement.action is Action.CONTINUE:
            self.updater.apply(lr_factor=factor)
        else:
            self.updater.discard()
        if judgement.action in (Action.ROLLBACK, Action.STOP):
            # The data of the next steps is fixed, so going back would only meet the same ones again.
            raise RunError(
                f"step {step}: the loss is {stats.loss:.4g} and the gradient norm {stats.grad_norm:.4g}, out "
                f"of all proportion for the {GuardConfig().max_skips + 1}th step in a row; lower the "
                "learning rate in another run, or look at the examples of these steps."
            )
        self.num_tokens += stats.num_tokens
        seconds = time.perf_counter() - began
        return stats.metrics() | {
            "learning_rate": self.peak_lr * factor,
            "num_tokens": float(self.num_tokens),
            "tokens_per_second": stats.num_tokens / seconds,
            "skipped_updates": float(judgement.action is not Action.CONTINUE),
            "step_time": seconds,
        }

    def examples(self, step: int) -> list[TrainedSequence]:
        """What a step learns from."""
        return [self.split.training[place] for place in self._places(step, self.plan.batch_size)]

    def gradients(self, step: int) -> SftStats:
        """Of the step's loss, gathered; another objective overrides this and `held_out_loss`."""
        return sft_gradients(
            self.model,
            self.updater,
            self.examples(step),
            micro_batch_tokens=self.plan.micro_batch_tokens,
            pad_id=self.pad_id,
            layout=Layout.PACKED if self.plan.is_packed else Layout.PAD_RIGHT,
        )

    def held_out_loss(self) -> float:
        """Nats per trained token of the examples that were set aside."""
        return sft_loss(
            self.model,
            self.split.held_out,
            micro_batch_tokens=self.plan.micro_batch_tokens,
            pad_id=self.pad_id,
        )

    @property
    def mean_tokens(self) -> int:
        """Of an example, when all steps are done."""
        return max(1, self.num_tokens // (self.plan.steps * self.plan.batch_size))

    def _facts(self) -> Mapping[str, Any]:
        """What the next step depends on, beside the updater's tensors."""
        return {"guard": self.memory.to_dict(), "num_tokens": self.num_tokens}


def _prompt(example: TrainingExample) -> tuple[int, ...]:
    """The ids in front of the first that is learnt."""
    return example.ids[: example.loss_mask.index(1)]
