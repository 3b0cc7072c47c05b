"""Rotary position embedding: frequency tables, the ways of stretching them, and the rotation itself.

Why: attention compares positions by rotating pairs of query and key entries; one convention, kept here,
means that training, sampling and checkpoint reading cannot disagree about which entries form a pair.
Ours is *half-split*: entry j turns with entry j + dim/2, two contiguous halves. DeepSeek's checkpoints are
*interleaved*: entry 2j turns with entry 2j + 1. Queries and keys may be permuted together without changing
any score, so a reader permutes the rows of the projections that make the rotated entries once
(`interleaved_to_half`). Qwen2 and Llama checkpoints, as Hugging Face stores them, are half-split already.
In:  widths, theta, an optional RopeScaling; heads (B, T, H, D).
Out: (cos, sin) tables in float32; rotated heads in the dtype they came in.
Not here: which part of a head is rotated (mla.py, attention.py).
"""

import math

import torch
from torch import Tensor

from tenth.model.config import LinearRopeConfig, Llama3RopeConfig, RopeScaling, YarnConfig

_PIECE = 1 << 16  # positions whose angles are computed at once

# Shapes: B sequences, T tokens, H heads, D width of the rotated part, P positions in the table


def rope_frequencies(dim: int, *, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Radians per position of each of the dim/2 pairs, (D/2,) float32."""
    plain = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # (D/2,)
    if scaling is None:
        return plain.float()
    if isinstance(scaling, LinearRopeConfig):
        return (plain / scaling.factor).float()
    if isinstance(scaling, Llama3RopeConfig):
        slowed = _llama3_slowed(plain, scaling)
    else:
        low, high = yarn_ramp(dim, theta=theta, yarn=scaling)
        slowed = ((torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
    return (plain * (1 - slowed) + plain / scaling.factor * slowed).float()


def _llama3_slowed(plain: Tensor, llama3: Llama3RopeConfig) -> Tensor:
    """How far each pair is slowed, (D/2,): 0 keep, 1 divide by the factor.

    Pairs that turn more than `high_freq_factor` times within the original context keep their frequency, pairs
    that turn less than `low_freq_factor` times are slowed by the factor, in between linearly in the turns.
    """
    turns = plain * llama3.original_max_position_embeddings / (2 * math.pi)  # (D/2,)
    width = llama3.high_freq_factor - llama3.low_freq_factor
    return 1 - ((turns - llama3.low_freq_factor) / width).clamp(0, 1)


def yarn_ramp(dim: int, *, theta: float, yarn: YarnConfig) -> tuple[float, float]:
    """The ramp's ends: the last pair that keeps its frequency, the first that is slowed by the factor.

    YaRN (arXiv:2309.00071, section 3.2, "NTK-by-parts"; constants: DeepSeek-V3 section 4.3): pairs that turn
    more than `beta_fast` times within the original context keep their frequency, pairs that turn less than
    `beta_slow` times are slowed by `factor`, a linear ramp over the pairs lies between.
    paper -> here: s -> factor, L -> original_max_position_embeddings, alpha -> beta_slow, beta -> beta_fast.
    """

    def pair_that_turns(times: float) -> float:
        radians_per_token = times * 2 * math.pi / yarn.original_max_position_embeddings
        return -dim / 2 * math.log(radians_per_token) / math.log(theta)  # theta^(-2j/D) solved for j

    low, high = pair_that_turns(yarn.beta_fast), pair_that_turns(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, dim - 1)


def rope_tables(
    dim: int,
    max_positions: int,
    *,
    theta: float,
    scaling: RopeScaling | None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position, each (P, D/2) float32. Give `active_scaling(...)` as `scaling`."""
    frequencies = rope_frequencies(dim, theta=theta, scaling=scaling).to(device, torch.float64)  # (D/2,)
    size = rotation_size(scaling) if isinstance(scaling, YarnConfig) else 1.0
    cos = torch.empty(max_positions, len(frequencies), device=device)
    sin = torch.empty_like(cos)
    # The product is taken in float64: in float32 position 100,000 would be off by thousandths of a radian.
    # In pieces, since of a context of millions the float64 angles would take gigabytes.
    for start in range(0, max_positions, _PIECE):
        end = min(start + _PIECE, max_positions)
        angles = torch.outer(torch.arange(start, end, dtype=torch.float64, device=device), frequencies)
        cos[start:end], sin[start:end] = angles.cos() * size, angles.sin() * size
    return cos, sin


def rotation_size(yarn: YarnConfig) -> float:
    """What YaRN multiplies cosine and sine by; 1 for DeepSeek: its two mscales cancel, and its correction
    sits in `softmax_scale`."""
    if yarn.attention_factor is not None:
        return yarn.attention_factor
    return mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate every head of x (B, T, H, D) by its token's angles; cos and sin are (B or 1, T, D/2).

    Computed in float32 at least (the tables promote bf16), returned in x's dtype. A rotation is relative: a
    query at position m times a key at n depends on m - n alone (RoFormer, arXiv:2104.09864, section 3.2).
    """
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # (B or 1, T, 1, D/2)
    first, second = x.chunk(2, dim=-1)  # (B, T, H, D/2) each
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def active_scaling(scaling: RopeScaling | None, *, max_position_embeddings: int) -> RopeScaling | None:
    """`scaling`, unless it is YaRN and the configured maximum does not lie past the original context.

    DeepSeek-V3's inference code applies YaRN by the configured maximum, never by the current length.
    """
    if (
        isinstance(scaling, YarnConfig)
        and max_position_embeddings <= scaling.original_max_position_embeddings
    ):
        return None
    return scaling


def softmax_scale(qk_head_dim: int, scaling: RopeScaling | None, max_position_embeddings: int) -> float:
    """What attention scores are multiplied by: 1/sqrt(qk_head_dim), times mscale^2 where YaRN is active.

    mscale = 0.1 mscale_all_dim ln(factor) + 1. DeepSeek-V3: 192^-0.5 * 1.36889^2 = 0.135234.
    """
    plain = qk_head_dim**-0.5
    active = active_scaling(scaling, max_position_embeddings=max_position_embeddings)
    # The weights were trained with this square; without it short prompts look fine, long answers fall apart.
    return (
        plain * mscale(active.factor, active.mscale_all_dim) ** 2 if isinstance(active, YarnConfig) else plain
    )


def mscale(factor: float, weight: float) -> float:
    """YaRN's 0.1 weight ln(factor) + 1, by which longer contexts are attended to more sharply."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def interleaved_to_half(weight: Tensor, rope_dim: int, *, head_dim: int | None = None) -> Tensor:
    """The rows of a projection from DeepSeek's interleaved order to ours.

    weight: (heads * head_dim, ...), a matrix or a bias whose rows come head by head, the last `rope_dim` rows
    of each head being rotated: q_b_proj has head_dim 192 and rope_dim 64, kv_a_proj_with_mqa is one head of
    512 + 64 rows. head_dim None: every row is rotated.
    """
    order = torch.arange(rope_dim, device=weight.device).view(-1, 2).t().flatten()  # 0, 2, 4, ..., 1, 3, 5
    return _permute_rope_rows(weight, order, head_dim=head_dim or rope_dim)


def half_to_interleaved(weight: Tensor, rope_dim: int, *, head_dim: int | None = None) -> Tensor:
    """The inverse of `interleaved_to_half`: our rows in the order DeepSeek's checkpoints have."""
    order = torch.arange(rope_dim, device=weight.device).view(2, -1).t().flatten()  # 0, D/2, 1, D/2 + 1, ...
    return _permute_rope_rows(weight, order, head_dim=head_dim or rope_dim)


def _permute_rope_rows(weight: Tensor, order: Tensor, *, head_dim: int) -> Tensor:
    heads = weight.unflatten(0, (-1, head_dim))  # (H, head_dim, ...)
    kept = head_dim - len(order)
    return torch.cat((heads[:, :kept], heads[:, kept:][:, order]), dim=1).flatten(0, 1)
