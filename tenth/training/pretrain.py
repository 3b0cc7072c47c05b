"""Pre-training: next-token and MTP cross-entropy, the balance loss, the router's bias, one step at a time.

DeepSeek-V3 (arXiv:2412.19437): losses section 2.1.2 (balance), 2.2 (MTP, eq. 24-25), schedule section 4.2.
In:  a Transformer, windows of tokens (B, T + 1 + depth).  Out: changed weights and one row of metrics per
    step.
Not here: where windows come from (data/), files and resuming (pipeline/).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tenth.model.counts import flops_per_token
from tenth.model.ops import head_cross_entropy
from tenth.model.router import max_violation
from tenth.model.transformer import Transformer
from tenth.training.guard import Action, GuardConfig, GuardMemory, Judgement, judge
from tenth.training.losses import bits_per_byte
from tenth.training.optim import WeightUpdater
from tenth.training.schedules import LrSchedule, bias_speed, lr_factor, mtp_weight

# Shapes: B windows, T trained positions, depth of MTP, E experts


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """What a step needs to know beside its tokens."""

    total_tokens: int
    schedule: LrSchedule
    mtp_weights: tuple[float, float]  # lambda before and after the switch, section 4.2
    matmul_peak: float  # FLOP/s of this machine in the compute dtype, for `peak_share`


class Pretrainer:
    """Owns the model, its updater and what has been read so far."""

    def __init__(self, model: Transformer, updater: WeightUpdater, plan: PretrainPlan) -> None:
        self.model, self.updater, self.plan = model, updater, plan
        self.depth = model.config.num_nextn_predict_layers
        self.num_tokens = 0
        self.guard_memory = GuardMemory()

    def step(self, step: int, windows: Tensor) -> tuple[dict[str, float], Judgement]:
        """One optimizer step on windows (B, T + 1 + depth); returns its metrics and what the guard says."""
        began = time.perf_counter()
        count, time_steps = windows.shape[0], windows.shape[1] - 1 - self.depth
        progress = self.num_tokens / self.plan.total_tokens
        output = self.model.forward_training(windows[:, : time_steps + self.depth], depth=self.depth)
        weights = torch.full((count * time_steps,), 1.0 / (count * time_steps), device=windows.device)
        losses = [
            head_cross_entropy(
                hidden.flatten(0, 1), self.model.head_weight, _targets(windows, time_steps, k), weights
            )
            for k, hidden in enumerate((output.hidden, *output.mtp_hidden))
        ]
        weight = mtp_weight(progress, first=self.plan.mtp_weights[0], second=self.plan.mtp_weights[1])
        mtp = torch.stack(losses[1:]).mean() if self.depth else torch.zeros(())
        moe = self.model.config.moe
        balance = (
            torch.stack([each.loss for each in output.balances]).sum() if output.balances else torch.zeros(())
        )
        total = losses[0] + weight * mtp + (moe.sequence_balance_weight if moe else 0.0) * balance
        total.backward()
        grad_norm = self.updater.gather()
        judgement = judge(self.guard_memory, GuardConfig(), loss=float(total.detach()), grad_norm=grad_norm)
        self.guard_memory = judgement.memory
        is_good = judgement.action is Action.CONTINUE
        factor = lr_factor(self.plan.schedule, step=step, progress=progress)
        rate = self.updater.apply(lr_factor=factor) if is_good else self.updater.config.lr * factor
        if not is_good:
            self.updater.discard()
        counts = torch.stack([each.counts for each in output.balances]) if output.balances else None
        if moe and counts is not None and is_good:
            for router, load in zip(self.model.routers(), counts, strict=True):
                router.update_bias(load, speed=bias_speed(progress, speed=moe.bias_update_speed))
        self.num_tokens += count * time_steps
        seconds = time.perf_counter() - began
        rate_of_tokens = count * time_steps / seconds
        flops = flops_per_token(self.model.config, context_tokens=time_steps).training * rate_of_tokens
        metrics = {
            "loss": float(losses[0].detach()),
            "mtp_loss": float(mtp.detach()),
            "balance_loss": float(balance.detach()),
            "max_vio": float(max_violation(counts).mean()) if counts is not None else 0.0,
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "num_tokens": float(self.num_tokens),
            "batch_tokens": float(count * time_steps),
            "tokens_per_second": rate_of_tokens,
            "flops_per_second": flops,
            "peak_share": flops / self.plan.matmul_peak,
            "step_time": seconds,
        }
        return metrics, judgement


def _targets(windows: Tensor, time_steps: int, depth: int) -> Tensor:
    """Position t of depth k predicts token t + k + 1. (B, T + 1 + D) -> (B * T,)"""
    return windows[:, 1 + depth : 1 + depth + time_steps].flatten()


@torch.no_grad()
def held_out_bits_per_byte(model: Transformer, batches: Iterable[Tensor], *, tokens_per_byte: float) -> float:
    """Mean next-token loss on held-out windows (B, T + 1), as bits per byte of text."""
    nats, tokens = 0.0, 0
    for windows in batches:
        hidden = model(windows[:, :-1])
        targets = windows[:, 1:].flatten()
        weights = torch.ones(targets.shape[0], device=windows.device)
        nats += float(head_cross_entropy(hidden.flatten(0, 1), model.head_weight, targets, weights))
        tokens += targets.shape[0]
    return bits_per_byte(nats, num_bytes=max(1, round(tokens / tokens_per_byte)))
