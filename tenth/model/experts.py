"""All experts of a layer as grouped matrix products: one autograd node, no token dropped.

Why: one small product per expert leaves a CPU idle, and worse: each new row count makes the matrix library
prepare itself again. So rows are sorted by expert and go through kernels of our own (native/grouped.cpp).
Where these do not take the widths or the type, torch's grouped_mm does: for it every group is padded to a
multiple of a bucket, which leaves few shapes; padding rows are never read.
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

    counts: Tensor  # (E,) int64 rows per expert, without padding
    offsets: Tensor  # (E,) int32 end of each expert's padded rows
    slots: Tensor  # (N, K) int64 row of each pair
    sources: Tensor  # (R,) int64 token of each row; padding rows say 0


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
    counts = torch.bincount(flat, minlength=num_experts)  # (E,)
    ends = ((counts + bucket - 1) // bucket * bucket).cumsum(0)  # (E,)
    order = flat.argsort(stable=True)  # (N*K,)
    first = ends - (counts + bucket - 1) // bucket * bucket  # (E,) padded starts
    rank = torch.arange(flat.numel(), device=flat.device) - (counts.cumsum(0) - counts)[flat[order]]
    slots = torch.empty_like(flat).scatter_(0, order, first[flat[order]] + rank)  # (N*K,)
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
        pointer(expert_ids),
        ctypes.c_int64(tokens),
        ctypes.c_int64(k),
        ctypes.c_int64(num_experts),
        ctypes.c_int64(bucket),
        pointer(counts),
        pointer(offsets),
        pointer(slots),
        pointer(sources),
    )
    return Dispatch(counts=counts, offsets=offsets, slots=slots, sources=sources[:rows])


def experts_reference(
    x: Tensor, weights: Tensor, dispatch: Dispatch, gate_up: Tensor, down: Tensor
) -> Tensor:
    """The obvious loop over experts, any dtype: the twin of `run_experts`, and what float64 runs."""
    rows = x[dispatch.sources]  # (R, D)
    outputs, start = [], 0
    for expert_id, end in enumerate(dispatch.offsets.tolist()):
        hidden = swiglu_reference(rows[start:end] @ gate_up[expert_id].t())
        outputs.append(hidden @ down[expert_id].t())
        start = end
    y = torch.cat(outputs)[dispatch.slots]  # (N, K, D)
    return (y * weights.unsqueeze(-1).to(y.dtype)).sum(1)


class _Products:
    """The three products of a grouped linear map, by our kernels where they take the widths, else by torch's
    grouped_mm.

    weight (E, M, K); rows of `x` are given by themselves (R, K) or as tokens (N, K) with `sources` (R,).
    """

    def __init__(self, dispatch: Dispatch, *, is_ours: bool) -> None:
        self.dispatch, self.is_ours = dispatch, is_ours

    def forward(self, x: Tensor, weight: Tensor, *, sources: Tensor | None = None) -> Tensor:
        """x @ weight[e].T for every row's expert e. -> (R, M)"""
        if self.is_ours:
            return self._multiply(x, sources, weight, is_turned=False)
        return F.grouped_mm(self._gathered(x, sources), weight.transpose(1, 2), offs=self.dispatch.offsets)

    def input_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """grad (R, M) -> grad @ weight[e] (R, K)"""
        if self.is_ours:
            return self._multiply(grad, None, weight, is_turned=True)
        return F.grouped_mm(grad, weight, offs=self.dispatch.offsets)

    def weight_gradient(self, grad: Tensor, x: Tensor, *, sources: Tensor | None = None) -> Tensor:
        """grad (R, M), x -> (E, M, K)"""
        if not self.is_ours:
            return F.grouped_mm(grad.t(), self._gathered(x, sources), offs=self.dispatch.offsets)
        out = torch.empty(len(self.dispatch.counts), grad.shape[1], x.shape[1], dtype=x.dtype)
        kernels().tenth_grouped_gradient(
            int(x.dtype == torch.bfloat16),
            pointer(grad),
            pointer(x),
            _optional(sources),
            *self._groups(),
            pointer(out),
            *map(ctypes.c_int64, out.shape),
        )
        return out

    def _multiply(self, x: Tensor, sources: Tensor | None, weight: Tensor, *, is_turned: bool) -> Tensor:
        width = weight.shape[2] if is_turned else weight.shape[1]
        out = torch.empty(len(self.dispatch.sources), width, dtype=x.dtype)
        kernels().tenth_grouped_product(
            int(x.dtype == torch.bfloat16),
            pointer(x),
            _optional(sources),
            pointer(weight),
            *self._groups(),
            pointer(out),
            ctypes.c_int64(len(weight)),
            ctypes.c_int64(x.shape[1]),
            ctypes.c_int64(width),
            int(is_turned),
        )
        return out

    def _groups(self) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        return pointer(self.dispatch.offsets), pointer(self.dispatch.counts)

    @staticmethod
    def _gathered(x: Tensor, sources: Tensor | None) -> Tensor:
        return x if sources is None else x.index_select(0, sources)


def _optional(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None) if tensor is None else pointer(tensor)


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, products: _Products
    ) -> Tensor:
        dispatch = products.dispatch
        weights, gate_up, down = weights.contiguous(), gate_up.contiguous(), down.contiguous()
        hidden = products.forward(x, gate_up, sources=dispatch.sources)  # (R, 2F)
        inner = swiglu_native(hidden)  # (R, F)
        y = products.forward(inner, down)  # (R, D)
        tokens, k = dispatch.slots.shape
        out = torch.empty_like(x)
        kernels().tenth_combine(
            int(x.dtype == torch.bfloat16),
            pointer(y),
            pointer(dispatch.slots),
            pointer(weights),
            pointer(out),
            ctypes.c_int64(tokens),
            ctypes.c_int64(k),
            ctypes.c_int64(x.shape[1]),
        )
        ctx.save_for_backward(x, weights, hidden, inner, y, gate_up, down)
        ctx.products = products
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, None]:
        x, weights, hidden, inner, y, gate_up, down = ctx.saved_tensors
        products: _Products = ctx.products
        dispatch = products.dispatch
        grad = grads[0].contiguous()  # (N, D)
        sizes = [ctypes.c_int64(n) for n in (*dispatch.slots.shape, grad.shape[1])]
        is_bf16 = int(grad.dtype == torch.bfloat16)
        dy, dweights = torch.zeros_like(y), torch.empty_like(weights)  # padding rows stay zero
        kernels().tenth_combine_backward(
            is_bf16,
            pointer(y),
            pointer(dispatch.slots),
            pointer(weights),
            pointer(grad),
            pointer(dy),
            pointer(dweights),
            *sizes,
        )
        dinner = products.input_gradient(dy, down)  # (R, F)
        _, _, learns_gate_up, learns_down, _ = ctx.needs_input_grad  # frozen under adapters
        ddown = products.weight_gradient(dy, inner) if learns_down else None  # (E, D, F)
        dhidden = swiglu_grad_native(hidden, dinner)  # (R, 2F)
        dgate_up = None
        if learns_gate_up:
            dgate_up = products.weight_gradient(dhidden, x, sources=dispatch.sources)  # (E, 2F, D)
        drows = products.input_gradient(dhidden, gate_up)  # (R, D)
        dx = torch.empty_like(grad)
        kernels().tenth_gather_sum(is_bf16, pointer(drows), pointer(dispatch.slots), pointer(dx), *sizes)
        return dx, dweights, dgate_up, ddown, None


def _are_ours(x: Tensor, gate_up: Tensor) -> bool:
    """Whether our kernels take these widths and this type."""
    widths = (x.shape[-1], gate_up.shape[1] // 2)
    return all(width % 32 == 0 for width in widths) and (
        x.dtype == torch.float32 or bool(kernels().tenth_has_bf16_products())
    )


def _are_aligned(x: Tensor, gate_up: Tensor) -> bool:
    width = 16 // x.element_size()  # grouped_mm wants 16-byte-aligned inner strides
    return all(size % width == 0 for size in (x.shape[-1], gate_up.shape[1] // 2))


def run_experts(x: Tensor, weights: Tensor, dispatch: Dispatch, gate_up: Tensor, down: Tensor) -> Tensor:
    """Every token's weighted sum over its experts. x (N, D), weights (N, K) -> (N, D)"""
    if is_native(x, gate_up) and (_are_ours(x, gate_up) or _are_aligned(x, gate_up)):
        products = _Products(dispatch, is_ours=_are_ours(x, gate_up))
        return _Experts.apply(x.contiguous(), weights.float(), gate_up, down, products)
    return experts_reference(x, weights, dispatch, gate_up, down)
