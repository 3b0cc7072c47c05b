"""GRPO: groups of scored answers -> one optimizer step. Published variants are named options.

Why: reinforcement learning with verifiable rewards as DeepSeekMath (arXiv:2402.03300, section 4.1) and R1
(arXiv:2501.12948, section 2.1) do it: group-relative advantage, clipped ratio, k3 KL inside the loss.
In:  `Rollout` records, whoever sampled them; a policy, a reference or none, an updater.
Out: gradients or changed weights, and `GrpoStats`. Cutting a minibatch into micro-batches, padding it left or
right or packing it changes nothing but memory and rounding.
Not here: the objective (grpo_loss.py); sampling, rewards, dynamic sampling (rollout/); refreshing the
reference (pipeline/).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.base.records import Finish, Rollout
from tenth.training.advantages import advantages_by_group, overlong_penalty
from tenth.training.batch_plan import plan_micro_batches
from tenth.training.batches import Layout, TokenBatch, TrainedSequence, collate
from tenth.training.grpo_loss import GrpoConfig, Normaliser, TokenSums, grpo_loss
from tenth.training.logprobs import LanguageModel, answer_logprobs
from tenth.training.optim import WeightUpdater

# Shapes: R rollouts of a micro-batch, A tokens of its longest answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRollout:
    """A rollout and what GRPO makes of its reward."""

    rollout: Rollout
    advantage: float
    is_masked: bool  # counts in the denominators, moves no weight

    @property
    def num_tokens(self) -> int:
        """Trained tokens."""
        return 0 if self.is_masked else len(self.rollout.answer_ids)


def weigh_rollouts(rollouts: Sequence[Rollout], config: GrpoConfig) -> list[TrainedRollout]:
    """Advantages from rewards, whole groups at a time. A rollout whose verifier failed is masked."""
    rewards = [None if rollout.error else _shaped_reward(rollout, config) for rollout in rollouts]
    advantages = advantages_by_group(
        rewards, [rollout.group_id for rollout in rollouts], scale=config.scale_rewards
    )
    return [
        TrainedRollout(
            rollout=rollout,
            advantage=advantage,
            is_masked=rollout.error is not None
            or not rollout.answer_ids
            or (config.mask_truncated_completions and rollout.finish is not Finish.STOP),
        )
        for rollout, advantage in zip(rollouts, advantages, strict=True)
    ]


def _shaped_reward(rollout: Rollout, config: GrpoConfig) -> float:
    if config.overlong_buffer is None:
        return rollout.reward
    return rollout.reward + overlong_penalty(
        len(rollout.answer_ids), max_length=config.max_completion_length, buffer=config.overlong_buffer
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoStats:
    """What one minibatch did. Means over the tokens that were computed."""

    sums: TokenSums
    num_silent: int  # rollouts left out because they could not move a weight
    grad_norm: float  # before clipping; 0 where nothing could move a weight
    has_gradient: bool

    @property
    def is_broken(self) -> bool:
        """Whether the loss or the gradient is not a number, so that applying it would ruin the weights."""
        return not (math.isfinite(self.sums.loss) and math.isfinite(self.grad_norm))

    def metrics(self) -> dict[str, float]:
        """By TRL's names; what has no tokens to average over is absent."""
        named = {"loss": self.sums.loss, "grad_norm": self.grad_norm}
        if self.sums.tokens == 0:
            return named
        per_token = {
            "kl": self.sums.kl,
            "mismatch_kl": self.sums.mismatch,
            "entropy": self.sums.entropy,
            "clip_ratio/low_mean": self.sums.clipped_low,
            "clip_ratio/high_mean": self.sums.clipped_high,
            "clip_ratio/region_mean": self.sums.clipped_low + self.sums.clipped_high,
        }
        return named | {name: total / self.sums.tokens for name, total in per_token.items()}


def step_metrics(stats: Sequence[GrpoStats]) -> dict[str, float]:
    """One round as one row: means over its minibatches, `mismatch_kl` of the first, broken ones only counted.

    Only there do sampler and trainer hold the same weights, so that any difference is the machinery's fault.
    """
    rows = [each.metrics() for each in stats if not each.is_broken]
    names = sorted({name for row in rows for name in row})
    merged: dict[str, float] = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        merged[name] = values[0] if name == "mismatch_kl" else sum(values) / len(values)
    merged["skipped_updates"] = float(len(stats) - len(rows))
    return merged


def grpo_gradients(
    policy: LanguageModel,
    reference: LanguageModel | None,
    updater: WeightUpdater,
    minibatch: Sequence[TrainedRollout],
    config: GrpoConfig,
    *,
    micro_batch_tokens: int,
    share: float = 1.0,
    pad_id: int = 0,
    layout: Layout = Layout.PAD_RIGHT,
) -> GrpoStats:
    """Gradients of the minibatch's loss, gathered and clipped in `updater`: apply or discard them.

    `share`: the minibatch's size as a share of a full one, so that a rollout weighs the same in either.
    """
    if config.beta > 0 and reference is None:
        raise ConfigError(
            f"grpo.beta = {config.beta} asks for a KL term but there is no reference model; "
            "set beta = 0 or give one."
        )
    normaliser = Normaliser(
        num_sequences=len(minibatch) / share,
        num_tokens=sum(item.num_tokens for item in minibatch) / share,
    )
    active = [item for item in minibatch if _can_move_weights(item, config)]
    sums = TokenSums()
    for part in _micro_batches(active, micro_batch_tokens):
        sums = sums + _backward(
            policy, reference, part, config, normaliser=normaliser, pad_id=pad_id, layout=layout
        )
        updater.collect()
    return GrpoStats(
        sums=sums,
        num_silent=len(minibatch) - len(active),
        grad_norm=updater.gather() if active else 0.0,
        has_gradient=bool(active),
    )


def grpo_update(
    policy: LanguageModel,
    reference: LanguageModel | None,
    updater: WeightUpdater,
    minibatch: Sequence[TrainedRollout],
    config: GrpoConfig,
    *,
    micro_batch_tokens: int,
    share: float = 1.0,
    lr_factor: float = 1.0,
    pad_id: int = 0,
) -> GrpoStats:
    """`grpo_gradients`, then the step, unless nothing could move a weight or the gradient is not finite."""
    stats = grpo_gradients(
        policy, reference, updater, minibatch, config,
        micro_batch_tokens=micro_batch_tokens, share=share, pad_id=pad_id,
    )  # fmt: skip
    if stats.has_gradient and not stats.is_broken:
        updater.apply(lr_factor=lr_factor)
    else:
        updater.discard()
    return stats


def _can_move_weights(item: TrainedRollout, config: GrpoConfig) -> bool:
    # Without a KL term an advantage of 0 makes every term of the sequence 0. Late in a run most groups agree,
    # so leaving them out saves most of the work and changes no gradient.
    return not item.is_masked and (item.advantage != 0 or config.beta > 0)


def _micro_batches(items: Sequence[TrainedRollout], budget_tokens: int) -> Iterator[list[TrainedRollout]]:
    lengths = [len(item.rollout.prompt_ids) + len(item.rollout.answer_ids) - 1 for item in items]
    for part in plan_micro_batches(lengths, budget_tokens=budget_tokens):
        yield [items[index] for index in part]


def _backward(
    policy: LanguageModel,
    reference: LanguageModel | None,
    part: Sequence[TrainedRollout],
    config: GrpoConfig,
    *,
    normaliser: Normaliser,
    pad_id: int,
    layout: Layout,
) -> TokenSums:
    """Forward, loss and backward of one micro-batch."""
    batch = collate([_sequence(item.rollout) for item in part], pad_id=pad_id, layout=layout)
    scored = answer_logprobs(policy, batch)
    logp_ref = None
    if reference is not None and config.beta > 0:
        with torch.no_grad():
            logp_ref = batch.to_rows(answer_logprobs(reference, batch).logp)  # (R, A)
    logp = batch.to_rows(scored.logp)  # (R, A)
    loss, sums = grpo_loss(
        logp,
        _old_logprobs(part, batch, logp),
        logp_ref,
        logp.new_tensor([item.advantage for item in part]),
        batch.to_rows(torch.ones_like(batch.answer_ids)).bool(),
        config,
        normaliser=normaliser,
    )
    loss.backward()
    return sums + TokenSums(entropy=float(scored.entropy.sum()))


def _sequence(rollout: Rollout) -> TrainedSequence:
    return TrainedSequence(
        ids=(*rollout.prompt_ids, *rollout.answer_ids),
        trained=(False,) * len(rollout.prompt_ids) + (True,) * len(rollout.answer_ids),
    )


def _old_logprobs(part: Sequence[TrainedRollout], batch: TokenBatch, like: Tensor) -> Tensor:
    """The sampler's own log-probabilities, (R, A): the policy that acted is the one the ratio is against."""
    flat = [value for item in part for value in item.rollout.answer_logprobs]
    return batch.to_rows(like.new_tensor(flat))
