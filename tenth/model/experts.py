"""All experts of a layer as grouped matrix products: one autograd node, no token dropped.

Why: one small product per expert leaves a CPU idle, and worse: each new row count makes the matrix library prepare
itself again (20 times slower, benchmarks/results/grouped_mm.md). So rows are sorted by expert and every group is
padded to a multiple of a bucket, which leaves few shapes; padding rows are computed and never read.
In:  x (N, D), a Routing, gate_up (E, 2F, D), down (E, D, F).  Out: (N, D), counts (E,).
Not here: the choice of experts (router.py); expert parallelism, which will replace `plan_dispatch`.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.model.ops import is_native, kernels, pointer, swiglu_grad_native, swiglu_native, swiglu_reference

# Shapes: N tokens, K experts per token, E experts, R padded rows, D hidden, F expert width


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Where each (token, choice) pair goes."""

    counts: Tensor                       # (E,) int64 rows per expert, without padding
    offsets: Tensor                      # (E,) int32 end of each expert's padded rows
    slots: Tensor                        # (N, K) int64 row of each pair
    sources: Tensor                      # (R,) int64 token of each row; padding rows say 0


def bucket_size(pairs: int, num_experts: int) -> int:
    """Rows a group is padded to: about an eighth of the mean group, a power of two between 8 and 256."""
    return min(256, max(8, 1 << max(pairs // (num_experts * 8), 1).bit_length() - 1))


def plan_dispatch(expert_ids: Tensor, *, num_experts: int) -> Dispatch:
    """Sort pairs by expert. (N, K) -> Dispatch"""
    tokens, k = expert_ids.shape
    bucket = bucket_size(tokens * k, num_experts)
    if expert_ids.device.type == "cpu" and is_native():
        return _plan_native(expert_ids.contiguous(), num_experts=num_experts, bucket=bucket)
    flat = expert_ids.flatten()
    counts = torch.bincount(flat, minlength=num_experts)                                  # (E,)
    ends = ((counts + bucket - 1) // bucket * bucket).cumsum(0)                           # (E,)
    order = flat.argsort(stable=True)                                                     # (N*K,)
    first = ends - (counts + bucket - 1) // bucket * bucket                               # (E,) padded starts
    rank = torch.arange(flat.numel(), device=flat.device) - (counts.cumsum(0) - counts)[flat[order]]
    slots = torch.empty_like(flat).scatter_(0, order, first[flat[order]] + rank)          # (N*K,)
    sources = torch.zeros(int(ends[-1]), dtype=torch.int64, device=flat.device)
    sources[slots] = torch.arange(flat.numel(), device=flat.device) // k
    return Dispatch(counts=counts, offsets=ends.to(torch.int32), slots=slots.view(tokens, k), sources=sources)


def _plan_native(expert_ids: Tensor, *, num_experts: int, bucket: int) -> Dispatch:
    tokens, k = expert_ids.shape
    counts = torch.empty(num_experts, dtype=torch.int64)
    offsets = torch.empty(num_experts, dtype=torch.int32)
    slots = torch.empty_like(expert_ids)
    sources = torch.empty(tokens * k + num_experts * bucket, dtype=torch.int64)
    plan = kernels().tenth_plan_dispatch
    plan.restype = ctypes.c_int64
    rows = plan(
        pointer(expert_ids), ctypes.c_int64(tokens), ctypes.c_int64(k), ctypes.c_int64(num_experts), ctypes.c_int64(bucket),
        pointer(counts), pointer(offsets), pointer(slots), pointer(sources),
    )  # fmt: skip
    return Dispatch(counts=counts, offsets=offsets, slots=slots, sources=sources[:rows])


def experts_reference(x: Tensor, weights: Tensor, dispatch: Dispatch, gate_up: Tensor, down: Tensor) -> Tensor:
    """The obvious loop over experts, any dtype: the twin of `run_experts`, and what float64 runs."""
    rows = x[dispatch.sources]                                                            # (R, D)
    outputs, start = [], 0
    for expert_id, end in enumerate(dispatch.offsets.tolist()):
        hidden = swiglu_reference(rows[start:end] @ gate_up[expert_id].t())
        outputs.append(hidden @ down[expert_id].t())
        start = end
    y = torch.cat(outputs)[dispatch.slots]                                                # (N, K, D)
    return (y * weights.unsqueeze(-1).to(y.dtype)).sum(1)


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, dispatch: Dispatch) -> Tensor:
        weights = weights.contiguous()
        rows = x.index_select(0, dispatch.sources)                                        # (R, D)
        hidden = F.grouped_mm(rows, gate_up.transpose(1, 2), offs=dispatch.offsets)       # (R, 2F)
        inner = swiglu_native(hidden)                                                     # (R, F)
        y = F.grouped_mm(inner, down.transpose(1, 2), offs=dispatch.offsets)              # (R, D)
        tokens, k = dispatch.slots.shape
        out = torch.empty_like(x)
        kernels().tenth_combine(
            int(x.dtype == torch.bfloat16), pointer(y), pointer(dispatch.slots), pointer(weights), pointer(out),
            ctypes.c_int64(tokens), ctypes.c_int64(k), ctypes.c_int64(x.shape[1]),
        )  # fmt: skip
        ctx.save_for_backward(rows, weights, hidden, inner, y, gate_up, down)
        ctx.dispatch = dispatch
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        rows, weights, hidden, inner, y, gate_up, down = ctx.saved_tensors
        dispatch: Dispatch = ctx.dispatch
        grad = grads[0].contiguous()                                                      # (N, D)
        sizes = [ctypes.c_int64(n) for n in (*dispatch.slots.shape, grad.shape[1])]
        is_bf16 = int(grad.dtype == torch.bfloat16)
        dy, dweights = torch.zeros_like(y), torch.empty_like(weights)                     # padding rows stay zero
        kernels().tenth_combine_backward(
            is_bf16, pointer(y), pointer(dispatch.slots), pointer(weights), pointer(grad), pointer(dy), pointer(dweights), *sizes
        )
        dinner = F.grouped_mm(dy, down, offs=dispatch.offsets)                            # (R, F)
        ddown = F.grouped_mm(dy.t(), inner, offs=dispatch.offsets)                        # (E, D, F)
        dhidden = swiglu_grad_native(hidden, dinner)                                      # (R, 2F)
        dgate_up = F.grouped_mm(dhidden.t(), rows, offs=dispatch.offsets)                 # (E, 2F, D)
        drows = F.grouped_mm(dhidden, gate_up, offs=dispatch.offsets)                     # (R, D)
        dx = torch.empty_like(grad)
        kernels().tenth_gather_sum(is_bf16, pointer(drows), pointer(dispatch.slots), pointer(dx), *sizes)
        return dx, dweights, dgate_up, ddown, None


def _is_grouped(x: Tensor, gate_up: Tensor) -> bool:
    width = 16 // x.element_size()                       # grouped_mm wants 16-byte-aligned inner strides
    aligned = all(size % width == 0 for size in (x.shape[-1], gate_up.shape[1] // 2))
    return is_native(x, gate_up) and aligned


def run_experts(x: Tensor, weights: Tensor, dispatch: Dispatch, gate_up: Tensor, down: Tensor) -> Tensor:
    """Every token's weighted sum over its experts. x (N, D), weights (N, K) -> (N, D)"""
    if _is_grouped(x, gate_up):
        return _Experts.apply(x.contiguous(), weights.float(), gate_up, down, dispatch)
    return experts_reference(x, weights, dispatch, gate_up, down)
