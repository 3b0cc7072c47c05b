"""The GRPO objective as a pure function of log-probabilities and advantages, with its published variants.

Why: DeepSeekMath (arXiv:2402.03300, section 4.1) prints the ratio per token, R1 (arXiv:2501.12948, section
2.1) per sequence, and later papers change the denominators; all of it is decided here, checkable by hand.
In:  log-probabilities of the policy, of the policy that sampled and of the reference, padded to rows.
Out: this part's share of the minibatch's loss, and sums for the metrics.
Not here: forward passes and batching (grpo.py); advantages (advantages.py).
"""

from dataclasses import dataclass, fields
from enum import StrEnum

import torch
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.training.advantages import RewardScale
from tenth.training.losses import clipped_surrogate, k3_kl

# Shapes: R rollouts, A tokens of the longest answer among them


class LossType(StrEnum):
    """How per-token terms become one number."""

    GRPO = "grpo"  # mean over a sequence's tokens, then over sequences (DeepSeekMath eq. 3)
    DAPO = "dapo"  # mean over all tokens of the minibatch (arXiv:2503.14476 eq. 8)
    DR_GRPO = "dr_grpo"  # sum over tokens / (sequences × max length) (arXiv:2503.20783)
    SEQUENCE = "sequence"  # ratio and KL of whole sequences, mean over sequences (R1 eq. 1-2)


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """The loss and who counts in it. Names are TRL's where TRL has one."""

    beta: float = 0.001  # KL weight; 0: no reference model is needed
    epsilon: float = 0.2  # the ratio is clipped below 1 - epsilon ...
    epsilon_high: float | None = None  # ... and above 1 + epsilon_high; None: the same (DAPO: 0.28)
    num_iterations: int = 1  # passes over the same rollouts
    loss_type: LossType = LossType.GRPO
    scale_rewards: RewardScale = RewardScale.GROUP
    mask_truncated_completions: bool = False
    overlong_buffer: int | None = None  # soft overlong punishment over the last so many tokens; None: off
    max_completion_length: int = 512

    def __post_init__(self) -> None:
        if self.beta < 0 or self.epsilon <= 0 or self.num_iterations < 1 or self.max_completion_length < 1:
            raise ConfigError(
                f"grpo: beta = {self.beta}, epsilon = {self.epsilon}, num_iterations = "
                f"{self.num_iterations}, max_completion_length = {self.max_completion_length}; beta must "
                "not be negative, the others must be positive."
            )
        if self.overlong_buffer is not None and not 0 < self.overlong_buffer <= self.max_completion_length:
            raise ConfigError(
                f"grpo.overlong_buffer = {self.overlong_buffer} must be between 1 and max_completion_length "
                f"= {self.max_completion_length}; leave it out to turn the punishment off."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """Denominators of the whole minibatch, known before the first micro-batch."""

    num_sequences: float
    num_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSums:
    """Sums over trained tokens that add up over micro-batches."""

    loss: float = 0.0
    tokens: float = 0.0
    kl: float = 0.0
    mismatch: float = 0.0
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    entropy: float = 0.0

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(
            **{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        )


def grpo_loss(
    logp: Tensor,
    logp_old: Tensor,
    logp_ref: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    config: GrpoConfig,
    *,
    normaliser: Normaliser,
) -> tuple[Tensor, TokenSums]:
    """The loss of some sequences of a minibatch; the minibatch's loss is the sum over its parts.

    logp, logp_old, logp_ref, mask are (R, A), advantages (R,). paper -> here: pi_theta -> logp,
    pi_theta_old -> logp_old, pi_ref -> logp_ref, A_hat -> advantages, |o_i| -> mask.sum(-1).
    """
    weights = mask.to(logp.dtype)  # (R, A)
    log_ratio = (logp - logp_old) * weights  # (R, A)
    log_ref = None if logp_ref is None else (logp_ref - logp) * weights  # (R, A)
    if config.loss_type is LossType.SEQUENCE:
        log_ratio = log_ratio.sum(-1, keepdim=True)  # (R, 1) log of R1's ratio
        log_ref = None if log_ref is None else log_ref.sum(-1, keepdim=True)
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    gain = clipped_surrogate(
        log_ratio, advantages.unsqueeze(-1), epsilon_low=config.epsilon, epsilon_high=high
    )  # (R, A) or (R, 1)
    terms = -gain
    if log_ref is not None and config.beta > 0:
        terms = terms + config.beta * k3_kl(torch.zeros_like(log_ref), log_ref)
    loss = (terms * _term_weights(weights, config, normaliser)).sum()
    with torch.no_grad():
        sums = _token_sums(logp, logp_old, logp_ref, log_ratio, advantages, weights, config)
    return loss, sums + TokenSums(loss=float(loss.detach()))


def _term_weights(weights: Tensor, config: GrpoConfig, normaliser: Normaliser) -> Tensor:
    """What each term counts in the minibatch's loss: (R, A), or (R, 1) for whole sequences."""
    lengths = weights.sum(-1, keepdim=True)  # (R, 1)
    if config.loss_type is LossType.GRPO:
        return weights / (lengths.clamp(min=1) * normaliser.num_sequences)
    if config.loss_type is LossType.DAPO:
        return weights / max(normaliser.num_tokens, 1)
    if config.loss_type is LossType.DR_GRPO:
        return weights / (normaliser.num_sequences * config.max_completion_length)
    return (lengths > 0).to(weights.dtype) / normaliser.num_sequences


def _token_sums(
    logp: Tensor,
    logp_old: Tensor,
    logp_ref: Tensor | None,
    log_ratio: Tensor,
    advantages: Tensor,
    weights: Tensor,
    config: GrpoConfig,
) -> TokenSums:
    """TRL's metrics: a token is clipped where the surrogate has lost its gradient."""
    ratio = torch.exp(log_ratio)  # (R, A) or (R, 1)
    sign = advantages.unsqueeze(-1)  # (R, 1)
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    low_clip = (ratio < 1 - config.epsilon) & (sign < 0)
    high_clip = (ratio > 1 + high) & (sign > 0)
    return TokenSums(
        tokens=float(weights.sum()),
        kl=0.0 if logp_ref is None else float((k3_kl(logp, logp_ref) * weights).sum()),
        mismatch=float((k3_kl(logp_old, logp) * weights).sum()),
        clipped_low=float((low_clip * weights).sum()),
        clipped_high=float((high_clip * weights).sum()),
    )
