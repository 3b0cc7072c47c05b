"""The terms of the objectives as pure functions: log-probabilities, entropy, clipped surrogate, KL.

Why: every number that is differentiated is here, small enough to check with a pencil.
In:  logits or log-probabilities.
Out: per-token values. Whoever calls decides what to sum and divide by (grpo_loss.py, sft.py).
Not here: pre-training's cross-entropy, which needs no per-token values (model/ops.py).
Precision: log-softmax runs in float32 whatever comes in (float64 stays float64); in bfloat16 the GRPO ratio
would differ from 1 before the first update.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Shapes: N tokens, V vocabulary


def widen(values: Tensor) -> Tensor:
    """float32, unless it is already wider."""
    return values if values.dtype is torch.float64 else values.float()


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
