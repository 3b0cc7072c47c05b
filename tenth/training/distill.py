"""Distillation by distributions: a student's next-token probabilities are moved to a teacher's.

Why: an answer says which token came, the teacher's distribution also how likely the others were (Hinton et
al., arXiv:1503.02531). Forward KL is the teacher's mean of what the student gives too little; reverse KL, the
student's mean of what it gives too much, lets a small student leave modes out (MiniLLM, arXiv:2306.08543).
On-policy, the tokens are those that the student itself sampled (GKD, arXiv:2306.13649, eq. 4).
In:  sequences with a loss mask, a student; a teacher, or what `teacher_top_k` kept of it.
Out: gradients and `DistillStats`; divergences in nats per token.
What was kept of a distribution are its K likeliest tokens and the mass of all others together. The divergence
is then that of K + 1 outcomes, never above the true one, and 0 exactly where the student gives the same to
each of the K and to the rest; how the rest is divided teaches nothing.
Not here: SFT on a teacher's words (sft.py), files (top_k_files.py), sampling.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tenth.base.errors import ConfigError, DataError
from tenth.training.batch_plan import plan_micro_batches
from tenth.training.batches import TrainedSequence, collate
from tenth.training.logprobs import CHUNK_TOKENS, KEPT_CHUNKS, LanguageModel, trained_rows
from tenth.training.losses import widen
from tenth.training.optim import WeightUpdater
from tenth.training.sft import SftStats

# Shapes: N trained tokens, D hidden width, V vocabulary, K kept tokens


class Direction(StrEnum):
    """Whose mean it is."""

    FORWARD = "forward"  # KL(teacher || student)
    REVERSE = "reverse"  # KL(student || teacher)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The objective. The divergence is between softmax(logits / temperature), times temperature squared so
    that gradients keep their size (arXiv:1503.02531, section 2)."""

    direction: Direction = Direction.FORWARD
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(
                f"distill temperature = {self.temperature} must be above 0; 1 is the usual one."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """A teacher's distributions over the trained tokens of some sequences, in their order."""

    ids: Tensor  # (N, K) int32, likeliest first
    logp: Tensor  # (N, K + 1) natural log at the temperature it was asked for; last: all other tokens

    def of(self, lengths: Sequence[int]) -> "list[TopK]":
        """One for each sequence, by how many tokens it trains."""
        pairs = zip(self.ids.split(list(lengths)), self.logp.split(list(lengths)), strict=True)
        return [TopK(ids=ids, logp=logp) for ids, logp in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtSequence:
    """A sequence and what the teacher would have said at each of its trained tokens."""

    sequence: TrainedSequence
    teacher: TopK


class CutHead:
    """A model without the rows of its head that stand for no token: some pad their vocabulary, each to its
    own size."""

    def __init__(self, model: LanguageModel, *, vocab_size: int) -> None:
        self.model, self.vocab_size = model, vocab_size

    def __call__(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """See `LanguageModel`."""
        return self.model(ids, positions=positions, segment_ids=segment_ids, token_mask=token_mask)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `LanguageModel`."""
        return self.model.logits(hidden)[..., : self.vocab_size]


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension, from log-probabilities; an outcome that p never has adds 0."""
    never = log_p == -torch.inf
    # Both replaced: a -inf that is only multiplied by 0 would still make gradients of NaN.
    p, q = log_p.masked_fill(never, 0.0), log_q.masked_fill(never, 0.0)
    return (p.exp().masked_fill(never, 0.0) * (p - q)).sum(-1)


def divergence(student: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """Per token, from log-probabilities of the same outcomes: (N, V) or (N, K + 1), twice -> (N,)."""
    pair = (teacher, student) if config.direction is Direction.FORWARD else (student, teacher)
    return kl(*pair) * config.temperature**2


def with_rest(logits: Tensor, ids: Tensor, *, temperature: float) -> Tensor:
    """Log-probabilities of these tokens and of all others together: (N, V), (N, K) -> (N, K + 1)."""
    scaled = widen(logits) / temperature  # (N, V)
    total = scaled.logsumexp(-1, keepdim=True)  # (N, 1)
    kept = scaled.gather(-1, ids) - total  # (N, K)
    if ids.shape[-1] == scaled.shape[-1]:
        return torch.cat([kept, torch.full_like(total, -torch.inf)], dim=-1)
    # Summed up and not taken from 1, where a small rest would be lost.
    others = torch.zeros_like(scaled, dtype=torch.bool).scatter_(-1, ids, True)
    rest = scaled.masked_fill(others, -torch.inf).logsumexp(-1, keepdim=True) - total  # (N, 1)
    return torch.cat([kept, rest], dim=-1)


@torch.no_grad()
def teacher_top_k(
    teacher: LanguageModel,
    sequences: Sequence[TrainedSequence],
    *,
    k: int,
    temperature: float,
    micro_batch_tokens: int,
    pad_id: int = 0,
) -> list[TopK]:
    """The teacher's `k` likeliest tokens and the rest, at every trained token of every sequence."""
    found: dict[int, TopK] = {}
    lengths = [len(sequence.ids) for sequence in sequences]
    for part in plan_micro_batches(lengths, budget_tokens=micro_batch_tokens):
        batch = collate([sequences[index] for index in part], pad_id=pad_id)
        pieces = [
            _top_k(teacher.logits(rows), k, temperature)
            for rows in trained_rows(teacher, batch).split(CHUNK_TOKENS)
        ]
        whole = TopK(
            ids=torch.cat([each.ids for each in pieces]), logp=torch.cat([each.logp for each in pieces])
        )
        found |= dict(zip(part, whole.of([sum(sequences[index].trained) for index in part]), strict=True))
    return [found[index] for index in range(len(sequences))]


def _top_k(logits: Tensor, k: int, temperature: float) -> TopK:
    ids = logits.topk(min(k, logits.shape[-1]), dim=-1).indices
    return TopK(ids=ids.int(), logp=with_rest(logits, ids, temperature=temperature))


def distill_gradients(
    student: LanguageModel,
    updater: WeightUpdater,
    examples: Sequence[TaughtSequence],
    config: DistillConfig,
    *,
    micro_batch_tokens: int,
    pad_id: int = 0,
) -> SftStats:
    """Gradients of the mean divergence from stored distributions, gathered and clipped: apply or discard."""
    sums = _stored_sums(student, examples, config, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id)
    return _backward(sums, updater, [each.sequence for each in examples])


def live_gradients(
    student: LanguageModel,
    teacher: LanguageModel,
    updater: WeightUpdater,
    sequences: Sequence[TrainedSequence],
    config: DistillConfig,
    *,
    micro_batch_tokens: int,
    pad_id: int = 0,
) -> SftStats:
    """The same with the teacher at hand, over the whole vocabulary: for what the student just sampled.

    As in GKD no gradient goes through the sampling.
    """
    sums = _live_sums(
        student, teacher, sequences, config, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id
    )
    return _backward(sums, updater, sequences)


@torch.no_grad()
def distill_loss(
    student: LanguageModel,
    examples: Sequence[TaughtSequence],
    config: DistillConfig,
    *,
    micro_batch_tokens: int,
    pad_id: int = 0,
) -> float:
    """Mean divergence per trained token from stored distributions."""
    sums = _stored_sums(student, examples, config, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id)
    return sum(map(float, sums)) / _num_trained([each.sequence for each in examples])


@torch.no_grad()
def live_loss(
    student: LanguageModel,
    teacher: LanguageModel,
    sequences: Sequence[TrainedSequence],
    config: DistillConfig,
    *,
    micro_batch_tokens: int,
    pad_id: int = 0,
) -> float:
    """Mean divergence per trained token with the teacher at hand."""
    sums = _live_sums(
        student, teacher, sequences, config, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id
    )
    return sum(map(float, sums)) / _num_trained(sequences)


def _stored_sums(
    student: LanguageModel,
    examples: Sequence[TaughtSequence],
    config: DistillConfig,
    *,
    micro_batch_tokens: int,
    pad_id: int,
) -> Iterator[Tensor]:
    """Summed divergence of one micro-batch after the other."""

    def score(rows: Tensor, ids: Tensor, logp: Tensor) -> Tensor:
        own = with_rest(student.logits(rows), ids.long(), temperature=config.temperature)  # (n, K + 1)
        return divergence(own, logp.to(own.dtype), config).sum()

    lengths = [len(each.sequence.ids) for each in examples]
    for part in plan_micro_batches(lengths, budget_tokens=micro_batch_tokens):
        chosen = [examples[index] for index in part]
        batch = collate([each.sequence for each in chosen], pad_id=pad_id)
        # A batch lists its trained tokens sequence by sequence.
        ids = torch.cat([each.teacher.ids for each in chosen])  # (N, K)
        logp = torch.cat([each.teacher.logp for each in chosen])  # (N, K + 1)
        yield _summed(score, trained_rows(student, batch), ids, logp)


def _live_sums(
    student: LanguageModel,
    teacher: LanguageModel,
    sequences: Sequence[TrainedSequence],
    config: DistillConfig,
    *,
    micro_batch_tokens: int,
    pad_id: int,
) -> Iterator[Tensor]:
    def score(rows: Tensor, taught: Tensor) -> Tensor:
        own = (widen(student.logits(rows)) / config.temperature).log_softmax(-1)  # (n, V)
        with torch.no_grad():
            other = (widen(teacher.logits(taught)) / config.temperature).log_softmax(-1)  # (n, V)
        return divergence(own, other, config).sum()

    lengths = [len(sequence.ids) for sequence in sequences]
    for part in plan_micro_batches(lengths, budget_tokens=micro_batch_tokens):
        batch = collate([sequences[index] for index in part], pad_id=pad_id)
        with torch.no_grad():
            taught = trained_rows(teacher, batch)
        yield _summed(score, trained_rows(student, batch), taught)


def _summed(score: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """The sum over chunks of rows, so that few logits exist at a time."""
    pieces = list(zip(*(column.split(CHUNK_TOKENS) for column in columns), strict=True))
    if torch.is_grad_enabled() and len(pieces) > KEPT_CHUNKS:
        return torch.stack([checkpoint(score, *piece, use_reentrant=False) for piece in pieces]).sum()
    return torch.stack([score(*piece) for piece in pieces]).sum()


def _backward(
    sums: Iterator[Tensor], updater: WeightUpdater, sequences: Sequence[TrainedSequence]
) -> SftStats:
    total, num_trained = 0.0, _num_trained(sequences)
    for summed in sums:
        (summed / num_trained).backward()
        updater.collect()
        total += float(summed.detach()) / num_trained
    return SftStats(
        loss=total,
        grad_norm=updater.gather(),
        num_tokens=sum(len(sequence.ids) for sequence in sequences),
        num_trained=num_trained,
    )


def _num_trained(sequences: Sequence[TrainedSequence]) -> int:
    total = sum(sum(sequence.trained) for sequence in sequences)
    if not total:
        raise DataError(f"none of {len(sequences)} sequences has a token to train on; check the loss mask.")
    return total
