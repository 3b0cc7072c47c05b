"""From scores to a token: temperature, the three filters, and the log-probability that training needs.

Why inverse-CDF with given uniforms: a sequence draws from its own stream of numbers, so it gets the same
tokens whatever else is in the batch.

The rule, per row: scores are divided by the temperature (0: the best is taken); min_p keeps ids at least that
fraction as likely as the likeliest; top_k the k likeliest of these; top_p the fewest of these whose share of
the mass left reaches it (vLLM's order). Of equal scores the lower id is the likelier. The id is the first, in
the vocabulary's order, at which the running sum of what was kept passes uniform * its total.

In:  logits (R, V), uniforms (R,) in [0, 1), DrawSettings.  Out: Drawn.
Not here: penalties, biases and masks, which change the scores before (penalties.py).
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenth.engine.request import SamplingParams, TopLogprobs
from tenth.model.ops import is_native, kernels, pointer

# Shapes: R rows, V vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawSettings:
    """How each row is drawn; made once for as long as the batch has the same rows. All (R,), on the CPU."""

    temperature: Tensor  # float32; 0: the best id
    top_p: Tensor  # float32; 1: all
    top_k: Tensor  # int32; 0: all
    min_p: Tensor  # float32; 0: all

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> "DrawSettings":
        """One row for each."""
        return cls(
            temperature=torch.tensor([p.temperature for p in params], dtype=torch.float32),
            top_p=torch.tensor([p.top_p for p in params], dtype=torch.float32),
            top_k=torch.tensor([p.top_k or 0 for p in params], dtype=torch.int32),
            min_p=torch.tensor([p.min_p for p in params], dtype=torch.float32),
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """One id per row; -1 and NaN for a row with a NaN or +inf in it, or with nothing above -inf."""

    ids: Tensor  # (R,) int64
    logprobs: Tensor  # (R,) natural log, of the temperature-1 distribution before any filter


def sample(logits: Tensor, uniforms: Tensor, rows: DrawSettings) -> Drawn:
    """Draw one id per row."""
    if not is_native(logits):
        return sample_reference(logits, uniforms, rows)
    logits, uniforms = logits.contiguous(), uniforms.float().contiguous()
    count, vocabulary = logits.shape
    ids, logprobs = torch.empty(count, dtype=torch.int64), torch.empty(count, dtype=torch.float32)
    kernels().tenth_sample(
        int(logits.dtype == torch.bfloat16), pointer(logits), pointer(uniforms), ctypes.c_int64(count),
        ctypes.c_int64(vocabulary), pointer(rows.temperature), pointer(rows.top_p), pointer(rows.top_k),
        pointer(rows.min_p), pointer(ids), pointer(logprobs),
    )  # fmt: skip
    return Drawn(ids, logprobs)


def sample_reference(logits: Tensor, uniforms: Tensor, rows: DrawSettings) -> Drawn:
    """The obvious form: sorts everything. float64 stays float64."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logp = wide.log_softmax(-1)  # (R, V)
    is_broken = logp.isnan().any(-1)  # (R,)
    p = kept_probabilities(wide, rows)
    cdf = p.cumsum(-1)  # (R, V)
    target = uniforms.to(wide) * cdf[:, -1]
    ids = torch.searchsorted(cdf, target[:, None], right=True).squeeze(-1)
    last = wide.shape[-1] - 1 - (p > 0).flip(-1).int().argmax(-1)
    ids = ids.minimum(last)  # rounding may point past the last possible id
    logprobs = logp.gather(-1, ids[:, None]).squeeze(-1)
    return Drawn(ids.masked_fill(is_broken, -1), logprobs.masked_fill(is_broken, torch.nan))


def kept_probabilities(wide: Tensor, rows: DrawSettings) -> Tensor:
    """What each id weighs in the draw: softmax at the temperature, 0 where filtered out. -> (R, V)"""
    temperature, top_p, top_k, min_p = (
        each.to(wide.device)[:, None] for each in (rows.temperature, rows.top_p, rows.top_k, rows.min_p)
    )
    vocabulary = wide.shape[-1]
    ranked, order = wide.sort(dim=-1, descending=True, stable=True)  # (R, V)
    divisor = torch.where(temperature > 0, temperature, 1).clamp(min=torch.finfo(torch.float32).tiny).to(wide)
    z = (ranked - ranked[:, :1]) / divisor
    rank = torch.arange(vocabulary, device=wide.device)
    limit = torch.where(temperature > 0, torch.where(top_k > 0, top_k, vocabulary), 1)
    p = z.softmax(-1) * ((rank < limit) & (z >= min_p.to(wide).log()))
    mass = p.cumsum(-1)
    p = p * ((mass - p < top_p * mass[:, -1:]) | (top_p >= 1))  # the mass before this one falls short
    return torch.zeros_like(p).scatter(-1, order, p)


def logprobs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of an id per row at temperature 1, where adjusted scores were drawn from. -> (R,)"""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.gather(-1, ids.clamp(min=0)[:, None]).squeeze(-1) - wide.logsumexp(-1)


def top_logprobs(logits: Tensor, k: int) -> list[TopLogprobs]:
    """The k likeliest ids of each row and their log-probabilities at temperature 1, best first."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    k = min(k, wide.shape[-1])
    totals = wide.logsumexp(-1)  # (R,)
    worst = wide.topk(k, dim=-1).values[:, -1]  # (R,)
    found: list[TopLogprobs] = []
    for row, total, bar in zip(wide, totals, worst, strict=True):
        # topk picks among equals as it likes: take every id at the bar, lower ids first
        ids = (row >= bar).nonzero().squeeze(-1)  # ascending
        ids = ids[row[ids].sort(descending=True, stable=True).indices[:k]]
        found.append(tuple(zip(ids.tolist(), (row[ids] - total).tolist(), strict=True)))
    return found
