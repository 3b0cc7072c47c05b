"""Fitting the MTP module to a finished model, so that its guesses come true more often.

Why: reinforcement moves the network and leaves the MTP module where pre-training put it. A guess is accepted
when it equals what the network itself draws one step later, so the network's own distribution there is what
to learn, on the network's own answers: the loss is KL(network || module), which on sampled answers has the
same minimum as their cross-entropy and far less noise. Embedding, head and every layer stay as they are, so
no token can change; only how many steps they take.
In:  a Transformer with an MTP module, answers as `TrainedSequence`.  Out: a fitted module, `DraftStats`.
Not here: sampling the answers (engine/), guessing and checking (engine/drafts.py).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenth.base.errors import ConfigError, DataError
from tenth.base.seeds import stream_random
from tenth.model.transformer import Transformer
from tenth.training.batch_plan import plan_micro_batches
from tenth.training.batches import TrainedSequence
from tenth.training.losses import widen
from tenth.training.optim import OptimConfig, WeightUpdater
from tenth.training.schedules import LrSchedule, lr_factor

# Shapes: B sequences, L their greatest length, V vocabulary, N positions with a loss


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPlan:
    """How long and how fast."""

    steps: int
    sequences_per_step: int
    optim: OptimConfig
    schedule: LrSchedule
    micro_batch_tokens: int = 8192

    def __post_init__(self) -> None:
        if self.steps < 1 or self.sequences_per_step < 1:
            raise ConfigError(
                f"steps = {self.steps} and sequences_per_step = {self.sequences_per_step} must be at least 1."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftStats:
    """What one step, or a look at held-out answers, saw."""

    loss: float  # KL(network || module), nats per position
    agreement: float  # share of positions where both find the same token likeliest: acceptance when greedy
    num_positions: int


def fit_mtp(
    model: Transformer, examples: Sequence[TrainedSequence], plan: DraftPlan, *, seed: int
) -> Iterator[DraftStats]:
    """Train the first MTP module in place, one step per item; the same examples and seed, the same module."""
    _require_module(model)
    usable = [example for example in examples if any(example.trained[2:])]
    if not usable:
        raise DataError(
            f"none of the {len(examples)} answers has a trained token after its first two; sample answers."
        )
    order = _endless(len(usable), seed=seed)
    updater = WeightUpdater(model.mtp[0], plan.optim)
    for step in range(plan.steps):
        batch = [usable[next(order)] for _ in range(plan.sequences_per_step)]
        with _frozen_but_for(model, model.mtp[0]):
            stats = _look(model, batch, micro_batch_tokens=plan.micro_batch_tokens, updater=updater)
        if math.isfinite(stats.loss) and math.isfinite(updater.gather()):
            updater.apply(lr_factor=lr_factor(plan.schedule, step=step, progress=step / plan.steps))
        else:
            updater.discard()
        yield stats


@torch.no_grad()
def draft_stats(
    model: Transformer, examples: Sequence[TrainedSequence], *, micro_batch_tokens: int = 8192
) -> DraftStats:
    """The same numbers for answers that are not trained on."""
    _require_module(model)
    return _look(model, examples, micro_batch_tokens=micro_batch_tokens, updater=None)


def _look(
    model: Transformer,
    examples: Sequence[TrainedSequence],
    *,
    micro_batch_tokens: int,
    updater: WeightUpdater | None,
) -> DraftStats:
    """Over all examples; with an updater, gradients too."""
    count = sum(sum(example.trained[2:]) for example in examples)
    total, same = 0.0, 0
    lengths = [len(example.ids) for example in examples]
    for part in plan_micro_batches(lengths, budget_tokens=micro_batch_tokens):
        guess, truth = _guesses(model, [examples[index] for index in part])
        loss = F.kl_div(guess, truth, log_target=True, reduction="sum") / max(count, 1)
        if updater is not None:
            loss.backward()
            updater.collect()
        total += float(loss.detach())
        same += int((guess.argmax(-1) == truth.argmax(-1)).sum())
    return DraftStats(loss=total, agreement=same / max(count, 1), num_positions=count)


def _guesses(model: Transformer, examples: Sequence[TrainedSequence]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the module and of the network for the same trained tokens, both (N, V)."""
    device = model.embed.weight.device
    ids = _padded([example.ids for example in examples]).to(device)  # (B, L)
    is_trained = _padded([example.trained for example in examples]).bool().to(device)  # (B, L)
    output = model.forward_training(ids, depth=1)
    # The module at t and the network at t + 1 both predict token t + 2; the first two have no guess.
    chosen = is_trained[:, 2:]  # (B, L - 2)
    guess = model.logits(output.mtp_hidden[0][:, :-1][chosen])
    truth = model.logits(output.hidden[:, 1:][chosen].detach())
    return widen(guess).log_softmax(-1), widen(truth).log_softmax(-1)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Zeros to the right, which no position with a loss can see."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)


def _endless(count: int, *, seed: int) -> Iterator[int]:
    """All indices in a new order, again and again."""
    epoch = 0
    while True:
        order = list(range(count))
        stream_random(seed, "draft-order", epoch).shuffle(order)
        yield from order
        epoch += 1


@contextmanager
def _frozen_but_for(model: Transformer, module: nn.Module) -> Iterator[None]:
    """Only `module` gathers gradients; afterwards everything is as it was."""
    kept = set(module.parameters())
    frozen = [each for each in model.parameters() if each.requires_grad and each not in kept]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _require_module(model: Transformer) -> None:
    if not len(model.mtp):
        raise ConfigError(
            f"model '{model.config.name}' has no MTP module to fit; train one with "
            "num_nextn_predict_layers = 1."
        )
