"""Supervised fine-tuning: examples with a loss mask -> one optimizer step.

Why: cold start, rejection-sampled sets, distillation and the controls of an RL run all train on written
answers. Every trained token of the minibatch counts the same, so the loss does not depend on micro-batches.
In:  `TrainedSequence` (ids, mask), a model, an updater.
Out: changed weights and `SftStats`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tenth.base.errors import DataError
from tenth.training.batch_plan import plan_micro_batches
from tenth.training.batches import Layout, TrainedSequence, collate
from tenth.training.logprobs import LanguageModel, answer_logprobs
from tenth.training.optim import WeightUpdater


@dataclass(frozen=True, slots=True, kw_only=True)
class SftStats:
    """What one step saw."""

    loss: float  # nats per trained token
    grad_norm: float  # before clipping
    num_tokens: int  # all tokens fed, padding left out
    num_trained: int  # tokens with a loss

    def metrics(self) -> dict[str, float]:
        """By the names of metrics.jsonl; `num_tokens` is this step's."""
        return {"loss": self.loss, "grad_norm": self.grad_norm, "num_tokens": float(self.num_tokens)}


def sft_gradients(
    model: LanguageModel,
    updater: WeightUpdater,
    examples: Sequence[TrainedSequence],
    *,
    micro_batch_tokens: int,
    pad_id: int = 0,
    layout: Layout = Layout.PAD_RIGHT,
) -> SftStats:
    """Gradients of the mean loss over all trained tokens, gathered and clipped: apply or discard them."""
    num_trained = sum(sum(example.trained) for example in examples)
    if num_trained == 0:
        raise DataError(
            f"none of the {len(examples)} examples of this step has a token to train on; check the loss mask."
        )
    total = 0.0
    for part in plan_micro_batches(
        [len(example.ids) for example in examples], budget_tokens=micro_batch_tokens
    ):
        batch = collate([examples[index] for index in part], pad_id=pad_id, layout=layout)
        loss = -answer_logprobs(model, batch).logp.sum() / num_trained
        loss.backward()
        updater.collect()
        total += float(loss.detach())
    return SftStats(
        loss=total,
        grad_norm=updater.gather(),
        num_tokens=sum(len(example.ids) for example in examples),
        num_trained=num_trained,
    )


def sft_update(
    model: LanguageModel,
    updater: WeightUpdater,
    examples: Sequence[TrainedSequence],
    *,
    micro_batch_tokens: int,
    lr_factor: float = 1.0,
    pad_id: int = 0,
) -> SftStats:
    """`sft_gradients`, then the step, unless the gradient is not finite."""
    stats = sft_gradients(model, updater, examples, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id)
    if math.isfinite(stats.loss) and math.isfinite(stats.grad_norm):
        updater.apply(lr_factor=lr_factor)
    else:
        updater.discard()
    return stats


@torch.no_grad()
def sft_loss(
    model: LanguageModel, examples: Sequence[TrainedSequence], *, micro_batch_tokens: int, pad_id: int = 0
) -> float:
    """Mean nats per trained token of held-out examples."""
    total, num_trained = 0.0, sum(sum(example.trained) for example in examples)
    for part in plan_micro_batches(
        [len(example.ids) for example in examples], budget_tokens=micro_batch_tokens
    ):
        batch = collate([examples[index] for index in part], pad_id=pad_id)
        total -= float(answer_logprobs(model, batch).logp.sum())
    return total / max(num_trained, 1)
