"""Losses as pure functions of tensors: next token, MTP, the clipped surrogate, KL, entropy.

Why: every number that is differentiated is here, small enough to check with a pencil.
In:  hidden states, logits or log-probabilities, and masks.
Out: sums and per-token values. Whoever calls decides what to divide by (grpo.py, sft.py, pretrain.py).
Precision: log-softmax runs in float32 whatever comes in (float64 stays float64); in bfloat16 the GRPO ratio
would differ from 1 before the first update.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Shapes: N tokens (any leading shape, flattened), V vocabulary, D hidden width, B rows, T answer tokens

# Logits held at once. 4 MiB in float32: pieces this small stay in the allocator's own pool and partly in the
# cache, where larger ones are mapped and zeroed afresh by the system at every call (2-4 times slower).
CHUNK_LOGITS = 1 << 20


def rows_per_chunk(vocab_size: int, chunk_logits: int = CHUNK_LOGITS) -> int:
    """How many tokens' logits to hold at once."""
    return max(1, chunk_logits // vocab_size)


def widen(values: Tensor) -> Tensor:
    """float32, unless it is already wider."""
    return values if values.dtype is torch.float64 else values.float()


def next_token_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens where `mask` is true; 0 when there are none."""
    losses = F.cross_entropy(widen(logits).flatten(0, -2), targets.flatten(), reduction="none")  # (N,)
    weights = mask.flatten().to(losses.dtype)  # (N,)
    return (losses * weights).sum() / weights.sum().clamp(min=1)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of weighted cross-entropies; gradients are made in the forward pass, while the logits exist."""

    @staticmethod
    def forward(ctx, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, chunk: int) -> Tensor:
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        total = widen(hidden.new_zeros(()))
        d_hidden = torch.empty_like(hidden) if needs_hidden else None  # (N, D)
        d_head = widen(torch.zeros_like(head)) if needs_head else None  # (V, D)
        for start in range(0, hidden.shape[0], chunk):
            piece = slice(start, start + chunk)
            log_p = torch.log_softmax(widen(hidden[piece] @ head.T), dim=-1)  # (chunk, V)
            ids = targets[piece].unsqueeze(-1)  # (chunk, 1)
            scale = weights[piece].unsqueeze(-1)  # (chunk, 1)
            total -= (log_p.gather(-1, ids) * scale).sum()
            if d_hidden is None and d_head is None:
                continue
            # d loss / d logits = weight * (softmax - one hot)
            d_logits = log_p.exp_().mul_(scale).scatter_add_(-1, ids, -scale).to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(d_logits, head, out=d_hidden[piece])
            if d_head is not None:
                d_head += d_logits.T @ hidden[piece]
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        d_hidden, d_head = ctx.saved_tensors
        return (
            d_hidden * grad.to(d_hidden.dtype) if d_hidden is not None else None,
            (d_head * grad).to(ctx.head_dtype) if d_head is not None else None,
            None,
            None,
            None,
        )


def chunked_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    chunk_logits: int = CHUNK_LOGITS,
) -> Tensor:
    """Sum over tokens of weight × cross-entropy of `hidden @ head.T`, never holding all logits at once.

    hidden (N, D) or (B, T, D); head (V, D); targets (N,) or (B, T); weights like targets, None: all one.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])  # (N, D)
    ids = targets.reshape(-1)  # (N,)
    if weights is None:
        weights = torch.ones_like(ids, dtype=widen(flat.new_empty(0)).dtype)
    weights = weights.reshape(-1).to(widen(flat.new_empty(0)).dtype)  # (N,)
    return _ChunkedCrossEntropy.apply(flat, head, ids, weights, rows_per_chunk(head.shape[0], chunk_logits))


def mtp_loss(depth_losses: list[Tensor], *, weight: float) -> Tensor:
    """L_MTP = lambda / D × sum of the D modules' cross-entropies (DeepSeek-V3, eq. 25)."""
    return torch.stack(depth_losses).sum() * (weight / len(depth_losses))


class _ChosenLogprobs(torch.autograd.Function):
    """log softmax(logits / temperature)[id]; one (N, V) tensor each way, where plain autograd makes four."""

    @staticmethod
    def forward(ctx, logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(widen(logits) / temperature, dim=-1)  # (N, V)
        ctx.save_for_backward(log_p, ids)
        ctx.temperature, ctx.logits_dtype = temperature, logits.dtype
        entropy = -torch.linalg.vecdot(log_p.exp(), log_p)  # (N,)
        ctx.mark_non_differentiable(entropy)
        return log_p.gather(-1, ids.unsqueeze(-1)).squeeze(-1), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor):
        log_p, ids = ctx.saved_tensors
        scale = grad.unsqueeze(-1) / ctx.temperature  # (N, 1)
        d_logits = log_p.exp().mul_(-scale).scatter_add_(-1, ids.unsqueeze(-1), scale)  # (N, V)
        return d_logits.to(ctx.logits_dtype), None, None


def chosen_logprobs(logits: Tensor, ids: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(log-probability of each chosen id, entropy of each distribution), both (N,), in nats.

    Only the first carries a gradient: the entropy is a metric, free where the softmax is made anyway.
    """
    return _ChosenLogprobs.apply(logits, ids, temperature)


def k3_kl(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """Unbiased, never negative estimate of KL(policy || reference): r - log r - 1, r = pi_ref / pi_theta.

    DeepSeekMath (arXiv:2402.03300) eq. 4; R1 (arXiv:2501.12948) eq. 2.
    """
    log_ratio = logp_ref - logp
    return torch.exp(log_ratio) - log_ratio - 1


def clipped_surrogate(
    log_ratio: Tensor, advantage: Tensor, *, epsilon_low: float, epsilon_high: float
) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A), to be maximised; elementwise.

    DeepSeekMath eq. 3 per token, R1 eq. 1 per sequence. paper -> here: log of pi_theta / pi_theta_old ->
    log_ratio, A_hat -> advantage, epsilon -> both epsilons (DAPO, arXiv:2503.14476, separates them).
    """
    ratio = torch.exp(log_ratio)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon_low, 1 + epsilon_high) * advantage)


def bits_per_byte(total_nats: float, *, num_bytes: int) -> float:
    """Summed cross-entropy of a text in nats -> bits per byte of it, comparable across tokenizers."""
    return total_nats / (math.log(2) * num_bytes)
