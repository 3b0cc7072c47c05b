"""Log-probabilities of the trained tokens, with the head applied to those tokens only.

Why: prompts and padding need no logits; at 128k vocabulary entries the logits are the largest tensor of RL.
In:  a model (the Protocol below) and a `TokenBatch`.
Out: `AnswerLogprobs`, flat over the batch's trained tokens, float32 (float64 stays float64).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tenth.training.batches import TokenBatch
from tenth.training.losses import chosen_logprobs

# Rows of logits made at once. Tensors of a few MiB stay in the allocator's own pool and partly in the cache;
# larger ones are mapped and zeroed afresh by the system at every call (2-4 times slower, measured).
CHUNK_TOKENS = 1024
KEPT_CHUNKS = 16  # more chunks than this are made again in the backward pass, not kept

# Shapes: B rows, T tokens, D hidden width, V vocabulary, N trained tokens


class LanguageModel(Protocol):
    """What training asks of a network."""

    def __call__(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, T) ids -> (B, T, D) hidden states, final norm applied."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLogprobs:
    """Per trained token, in nats."""

    logp: Tensor  # (N,) carries the gradient
    entropy: Tensor  # (N,) of the distribution the token was drawn from; a metric


def trained_rows(model: LanguageModel, batch: TokenBatch) -> Tensor:
    """Hidden states where a token is trained: (N, D)."""
    hidden = model(
        batch.ids, positions=batch.positions, segment_ids=batch.segment_ids, token_mask=batch.token_mask
    )  # (B, T, D)
    return hidden.flatten(0, 1).index_select(0, batch.answer_index)


def answer_logprobs(
    model: LanguageModel,
    batch: TokenBatch,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
    kept_chunks: int = KEPT_CHUNKS,
) -> AnswerLogprobs:
    """Run the network once; apply the head chunk by chunk where a token is trained."""
    rows = trained_rows(model, batch)  # (N, D)

    def score(piece: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return chosen_logprobs(model.logits(piece), ids, temperature=temperature)

    pieces = list(zip(rows.split(chunk_tokens), batch.answer_ids.split(chunk_tokens), strict=True))
    if torch.is_grad_enabled() and len(pieces) > kept_chunks:
        scored = [checkpoint(score, piece, ids, use_reentrant=False) for piece, ids in pieces]
    else:
        scored = [score(piece, ids) for piece, ids in pieces]
    return AnswerLogprobs(
        logp=torch.cat([logp for logp, _ in scored]), entropy=torch.cat([entropy for _, entropy in scored])
    )
