"""The few operations whose cost decides training on a CPU, each with a fast native form and an obvious torch
twin.

Why: at small widths a step is passes over memory, not arithmetic. Every function here picks the C++ kernel
(tenth/native) for contiguous float32/bfloat16 CPU tensors and otherwise its `*_reference` twin, which is
also what the tests compare against in float64.
In/out: tensors. Not here: attention (attention_core.py) and expert products (experts.py).
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.native.build import library


def is_native(*tensors: Tensor) -> bool:
    """Whether the C++ kernels can take these tensors: CPU, float32 or bfloat16, a compiler at hand."""
    return all(t.device.type == "cpu" and t.dtype in (torch.float32, torch.bfloat16) for t in tensors) and (
        library() is not None
    )


def kernels() -> ctypes.CDLL:
    """The native library; call only after `is_native`."""
    found = library()
    assert found is not None
    return found


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """The address of a tensor's first element."""
    return ctypes.c_void_p(tensor.data_ptr())


def _is_bf16(tensor: Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)


# RMSNorm: (..., D) -> (..., D); Zhang and Sennrich, arXiv:1910.07467


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """float32 inside (float64 stays float64): in bfloat16 the mean of squares alone would lose the small
    rows."""
    wide = x if x.dtype == torch.float64 else x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (scaled * weight.to(wide.dtype)).to(x.dtype)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        cols = x.shape[-1]
        rows = x.numel() // cols
        if not (x.stride(-1) == 1 and _rows_are_regular(x)):
            x = x.contiguous()
        # By contiguity first: a dimension of size 1 may carry any stride.
        stride = cols if x.is_contiguous() else x.stride(-2)
        wide = weight.float()
        y = torch.empty(x.shape, dtype=x.dtype)
        inverse = torch.empty(rows, dtype=torch.float32)
        kernels().tenth_rms_forward(
            _is_bf16(x),
            pointer(x),
            pointer(wide),
            pointer(y),
            pointer(inverse),
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
            ctypes.c_int64(stride),
            ctypes.c_float(eps),
        )
        ctx.save_for_backward(x, wide, inverse)
        ctx.weight_dtype, ctx.stride = weight.dtype, stride
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        grad = grads[0].contiguous()
        cols = x.shape[-1]
        dx = torch.empty(x.shape, dtype=x.dtype)
        dweight = torch.empty(cols, dtype=torch.float32)
        kernels().tenth_rms_backward(
            _is_bf16(x),
            pointer(x),
            pointer(weight),
            pointer(inverse),
            pointer(grad),
            pointer(dx),
            pointer(dweight),
            ctypes.c_int64(x.numel() // cols),
            ctypes.c_int64(cols),
            ctypes.c_int64(ctx.stride),
            torch.get_num_threads(),
        )
        return dx, dweight.to(ctx.weight_dtype), None


def _rows_are_regular(x: Tensor) -> bool:
    """Whether all rows of x lie one fixed stride apart (a slice of columns is; a transpose is not)."""
    stride = x.stride(-2) if x.dim() > 1 else 0
    for size, step in zip(reversed(x.shape[1:-1]), reversed(x.stride()[:-2]), strict=True):
        stride *= size
        if step != stride:
            return False
    return True


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    if is_native(x, weight):
        return _RmsNorm.apply(x, weight, eps)
    return rms_norm_reference(x, weight, eps)


# SwiGLU on [gate, up] side by side: (..., 2F) -> (..., F); Shazeer, arXiv:2002.05202


def swiglu_reference(gate_up: Tensor) -> Tensor:
    """silu(gate) * up."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        return swiglu_native(gate_up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return swiglu_grad_native(ctx.saved_tensors[0], grads[0])


def swiglu_native(gate_up: Tensor) -> Tensor:
    """The kernel alone, without a graph; experts.py calls it inside its own node."""
    cols = gate_up.shape[-1] // 2
    y = torch.empty(*gate_up.shape[:-1], cols, dtype=gate_up.dtype)
    kernels().tenth_swiglu_forward(
        _is_bf16(gate_up),
        pointer(gate_up),
        pointer(y),
        ctypes.c_int64(y.numel() // max(cols, 1)),
        ctypes.c_int64(cols),
    )
    return y


def swiglu_grad_native(gate_up: Tensor, grad: Tensor) -> Tensor:
    """d loss / d [gate, up] from d loss / d y."""
    grad = grad.contiguous()
    cols = grad.shape[-1]
    dx = torch.empty_like(gate_up)
    kernels().tenth_swiglu_backward(
        _is_bf16(gate_up),
        pointer(gate_up),
        pointer(grad),
        pointer(dx),
        ctypes.c_int64(grad.numel() // max(cols, 1)),
        ctypes.c_int64(cols),
    )
    return dx


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up for the two halves of the last dimension."""
    return _Swiglu.apply(gate_up) if is_native(gate_up) else swiglu_reference(gate_up)


# Weighted cross-entropy of rows: (N, V) logits, (N,) targets, (N,) weights -> scalar sum


def cross_entropy_reference(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum_n weights[n] * -log softmax(logits[n])[targets[n]]; float32 inside."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return (F.cross_entropy(wide, targets, reduction="none") * weights).sum()


def head_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, *, chunk_rows: int = 4096
) -> Tensor:
    """Weighted sum of next-token losses in nats without ever holding all logits.

    hidden (N, D), head (V, D), targets (N,), weights (N,) -> scalar float32. Where gradients are wanted they
    are made chunk by chunk in the forward pass, so a chunk's logits are the only ones alive.
    """
    if hidden.dtype == torch.float64:
        return cross_entropy_reference(hidden @ head.t(), targets, weights)
    return _HeadCrossEntropy.apply(hidden, head, targets, weights, chunk_rows)


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, chunk_rows: int
    ) -> Tensor:
        wants_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        dhidden = torch.empty_like(hidden) if wants_grad else None
        dhead: Tensor | None = None
        for start in range(0, hidden.shape[0], chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits = F.linear(hidden[rows], head)  # (n, V)
            loss, grad = _row_losses(logits, targets[rows], weights[rows])
            total += loss
            if dhidden is not None:
                torch.mm(grad, head, out=dhidden[rows])
                part = torch.mm(grad.t(), hidden[rows])  # (V, D)
                dhead = part if dhead is None else dhead.float().add_(part)  # one chunk needs no float32 sum
        if dhidden is not None:
            ctx.save_for_backward(dhidden, torch.zeros_like(head) if dhead is None else dhead.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        dhidden, dhead = ctx.saved_tensors
        scale = grads[0]
        if scale.device.type == "cpu" and float(scale) == 1.0:  # the usual case: nothing to multiply
            return dhidden, dhead, None, None, None
        return dhidden * scale.to(dhidden.dtype), dhead * scale.to(dhead.dtype), None, None, None


def _row_losses(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of weighted losses, their gradient by logits)."""
    if is_native(logits):
        rows, cols = logits.shape
        loss = torch.empty(rows, dtype=torch.float32)
        targets, weights = targets.contiguous(), weights.float().contiguous()
        kernels().tenth_cross_entropy(
            _is_bf16(logits),
            pointer(logits),
            pointer(targets),
            pointer(weights),
            pointer(loss),
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
        )
        return loss.sum(), logits
    logp = logits.float().log_softmax(-1)
    loss = -(logp.gather(1, targets[:, None]).squeeze(1) * weights).sum()
    grad = logp.exp() * weights[:, None]
    grad.scatter_add_(1, targets[:, None], -weights[:, None].to(grad.dtype))
    return loss, grad.to(logits.dtype)
