"""One reward model under training: model, updater, guard, and the order of its examples.

In:  a network, examples of one kind, settings. Out: changed weights, a row of metrics per step.
Which examples a step takes follows from (seed, step), so a continued run repeats what was lost.
Not here: files (reward_model.py), one step's gradient (training/preference.py).
"""

import time
from collections.abc import Sequence
from math import ceil
from typing import Protocol

from tenth.base.errors import RunError
from tenth.model.scalar_head import RewardModel
from tenth.model.transformer import Transformer
from tenth.pipeline.base import optim_config
from tenth.pipeline.recipe import OptimSection
from tenth.pipeline.tune_draw import shuffled_places
from tenth.training.guard import Action, GuardConfig, GuardMemory, judge
from tenth.training.optim import WeightUpdater
from tenth.training.preference import Example, reward_gradients
from tenth.training.schedules import LrSchedule, lr_factor

_WARMUP_SHARE = 0.05


class RewardSettings(Protocol):
    """What of a recipe decides how a reward model is trained."""

    @property
    def epochs(self) -> float:
        """Passes over the training part."""
        ...

    @property
    def batch_size(self) -> int:
        """Pairs, or labels."""
        ...

    @property
    def optim(self) -> OptimSection:
        """Peak rate and the rest."""
        ...

    @property
    def micro_batch_tokens(self) -> int:
        """How much is computed at once."""
        ...


class RewardTrainer:
    """`body` becomes a reward model. Linear warm-up, then a cosine to 0."""

    def __init__(
        self,
        body: Transformer,
        examples: Sequence[Example],
        settings: RewardSettings,
        *,
        pad_id: int,
        seed: int,
    ) -> None:
        self.model = RewardModel(body)
        self.examples, self.settings, self.pad_id = examples, settings, pad_id
        self.updater = WeightUpdater(self.model, optim_config(settings.optim))
        self.memory, self.num_tokens = GuardMemory(), 0
        self.batch_size = min(settings.batch_size, len(examples))
        self.steps = max(1, round(settings.epochs * ceil(len(examples) / self.batch_size)))
        warmup = max(1, round(_WARMUP_SHARE * self.steps))
        self.schedule = LrSchedule(warmup_steps=warmup, constant_until=warmup / self.steps, floor=0.0)
        self._places = shuffled_places(len(examples), seed=seed, stream="reward-order")

    def fit(self) -> RewardModel:
        """Every step, without files."""
        for step in range(self.steps):
            self.step(step)
        return self.model

    def step(self, step: int) -> dict[str, float]:
        """One update, unless the guard finds the step unfit."""
        began = time.perf_counter()
        stats = reward_gradients(
            self.model,
            self.updater,
            [self.examples[place] for place in self._places(step, self.batch_size)],
            micro_batch_tokens=self.settings.micro_batch_tokens,
            pad_id=self.pad_id,
        )
        judgement = judge(self.memory, GuardConfig(), loss=stats.loss, grad_norm=stats.grad_norm)
        self.memory = judgement.memory
        factor = lr_factor(self.schedule, step=step, progress=step / self.steps)
        if judgement.action is Action.CONTINUE:
            self.updater.apply(lr_factor=factor)
        else:
            self.updater.discard()
        if judgement.action in (Action.ROLLBACK, Action.STOP):  # the same examples would come again
            raise RunError(
                f"step {step} of the reward model: the loss is {stats.loss:.4g}, out of all proportion for "
                f"the {GuardConfig().max_skips + 1}th step in a row; lower the learning rate, or look at the "
                "preferences of these steps."
            )
        self.num_tokens += stats.num_tokens
        return stats.metrics() | {
            "learning_rate": self.settings.optim.lr * factor,
            "num_tokens": float(self.num_tokens),
            "skipped_updates": float(judgement.action is not Action.CONTINUE),
            "step_time": time.perf_counter() - began,
        }
