"""Reward models: pairs or labels -> one optimizer step, and scores.

Why: R1's helpful reward model learns from pairs, its safe one from answers that are labelled one by one
(DeepSeek-R1, arXiv:2501.12948v2, section 3.1: batch 256, peak rate 6e-6, one epoch, 8,192 tokens).
In:  token ids of whole conversations that end with the answer, a `RewardModel`, an updater.
Out: changed weights and `RewardStats`; scores.
Not here: what of an answer a model gets to see and what its score means (pipeline/reward_scorer.py).

The losses, with s for the score and all in float32:
    pairwise   -log sigmoid(s(chosen) - s(rejected))         Bradley and Terry (1952)
    pointwise  -log sigmoid(s) where safe, -log sigmoid(-s) where not
Every pair (or label) of a minibatch counts the same, however it is cut into micro-batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.base.errors import DataError
from tenth.model.scalar_head import RewardModel
from tenth.training.batch_plan import plan_micro_batches
from tenth.training.batches import TrainedSequence, collate
from tenth.training.optim import WeightUpdater

Ids = tuple[int, ...]

# Shapes: P pairs, S sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class IdPair:
    """Two conversations of which the first was preferred."""

    chosen: Ids
    rejected: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledIds:
    """One conversation, safe or not."""

    ids: Ids
    is_safe: bool


Example = IdPair | LabelledIds


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardStats:
    """What one step saw."""

    loss: float  # nats per pair or label; ln 2 is a coin's
    accuracy: float  # pairs in the right order, or labels on the right side of 0
    margin: float  # mean of chosen minus rejected; of a label's side minus the other
    grad_norm: float  # before clipping
    num_tokens: int

    def metrics(self) -> dict[str, float]:
        """By the names of metrics.jsonl; `num_tokens` is this step's."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "margin": self.margin,
            "grad_norm": self.grad_norm,
            "num_tokens": float(self.num_tokens),
        }


def margin_loss(margins: Tensor) -> Tensor:
    """-log sigmoid, per example, in nats: Bradley-Terry for s(chosen) - s(rejected), logistic regression for
    a label's side of s. (P,) -> (P,)"""
    return -F.logsigmoid(margins.float())


def reward_gradients(
    model: RewardModel,
    updater: WeightUpdater,
    examples: Sequence[Example],
    *,
    micro_batch_tokens: int,
    pad_id: int = 0,
) -> RewardStats:
    """Gradients of the mean loss of all examples, gathered and clipped: apply or discard them."""
    if not examples:
        raise DataError("a step of a reward model has no examples; give it at least one pair or label.")
    margins: list[Tensor] = []
    for part in _plan(examples, micro_batch_tokens):
        margin = _margins(model, [examples[index] for index in part], pad_id=pad_id)  # (P,)
        (margin_loss(margin).sum() / len(examples)).backward()
        updater.collect()
        margins.append(margin.detach())
    every = torch.cat(margins)
    return RewardStats(
        loss=float(margin_loss(every).mean()),
        accuracy=_accuracy(every),
        margin=float(every.mean()),
        grad_norm=updater.gather(),
        num_tokens=sum(map(_num_tokens, examples)),
    )


@torch.no_grad()
def reward_margins(
    model: RewardModel, examples: Sequence[Example], *, micro_batch_tokens: int, pad_id: int = 0
) -> list[float]:
    """By how much each example is judged right: above 0 it is. In the order given."""
    found = [0.0] * len(examples)
    for part in _plan(examples, micro_batch_tokens):
        margin = _margins(model, [examples[index] for index in part], pad_id=pad_id)
        for index, value in zip(part, margin.tolist(), strict=True):
            found[index] = value
    return found


@torch.no_grad()
def reward_scores(
    model: RewardModel, sequences: Sequence[Ids], *, micro_batch_tokens: int, pad_id: int = 0
) -> list[float]:
    """The score of each conversation, in the order given."""
    found = [0.0] * len(sequences)
    for part in plan_micro_batches(list(map(len, sequences)), budget_tokens=micro_batch_tokens):
        scores = _read(model, [sequences[index] for index in part], pad_id=pad_id)
        for index, value in zip(part, scores.tolist(), strict=True):
            found[index] = value
    return found


@torch.no_grad()
def reward_features(
    model: RewardModel, sequences: Sequence[Ids], *, micro_batch_tokens: int, pad_id: int = 0
) -> Tensor:
    """What the head sees of each conversation, in the order given. (S, D) float32"""
    found = torch.empty(len(sequences), model.body.config.hidden_size)
    for part in plan_micro_batches(list(map(len, sequences)), budget_tokens=micro_batch_tokens):
        found[part] = _read(model.features, [sequences[index] for index in part], pad_id=pad_id)
    return found


def accuracy_of(margins: Sequence[float]) -> float:
    """The share that is judged right; a tie is a coin."""
    return _accuracy(torch.tensor(margins))


def _accuracy(margins: Tensor) -> float:
    return float((margins.sign() / 2 + 0.5).mean())


def _margins(model: RewardModel, examples: Sequence[Example], *, pad_id: int) -> Tensor:
    """What `margin_loss` takes. (P,)"""
    pairs = [each for each in examples if isinstance(each, IdPair)]
    labelled = [each for each in examples if isinstance(each, LabelledIds)]
    if pairs and labelled:
        raise DataError("pairs and labels in one step; train a helpful and a safe model one by one.")
    if pairs:
        sequences = [each.chosen for each in pairs] + [each.rejected for each in pairs]
        chosen, rejected = _read(model, sequences, pad_id=pad_id).chunk(2)
        return chosen - rejected
    scores = _read(model, [each.ids for each in labelled], pad_id=pad_id)
    return torch.where(torch.tensor([each.is_safe for each in labelled]), scores, -scores)


def _read(network: Callable[..., Tensor], sequences: Sequence[Ids], *, pad_id: int) -> Tensor:
    """(S, ...). A score is read where the token after the last would be predicted."""
    marked = [TrainedSequence(ids=(*ids, pad_id), trained=(*(False,) * len(ids), True)) for ids in sequences]
    batch = collate(marked, pad_id=pad_id)
    return network(
        batch.ids,
        last_index=batch.answer_index,
        positions=batch.positions,
        segment_ids=batch.segment_ids,
        token_mask=batch.token_mask,
    )


def _plan(examples: Sequence[Example], budget_tokens: int) -> list[list[int]]:
    """Both answers of a pair go together, since their difference is what is learnt."""
    widths = [_width(each) for each in examples]
    return plan_micro_batches(widths, budget_tokens=budget_tokens)


def _width(example: Example) -> int:
    if isinstance(example, IdPair):
        return 2 * max(len(example.chosen), len(example.rejected))
    return len(example.ids)


def _num_tokens(example: Example) -> int:
    if isinstance(example, IdPair):
        return len(example.chosen) + len(example.rejected)
    return len(example.ids)
