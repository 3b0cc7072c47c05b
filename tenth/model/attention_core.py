"""Causal attention over whole sequences: rotation, scores, mask, softmax, values; one call for MLA and GQA.

Why: torch's CPU attention runs far below the machine's peak and wants equal head widths, and MLA's keys (a
plain part per head, one rotary part for all) would have to be concatenated and expanded for it. The native
kernel reads the parts where they lie and rotates on the way; the twin below says the same in six obvious
lines.
In:  q (B, T, H, nope + rope) unrotated; k_nope (B, T, G, nope); k_rope (B, T, G or 1, rope) unrotated;
     v (B, T, G, Dv); cos, sin (B or 1, T, rope / 2); starts (B, T) int32, the first key each query may see,
     or None for 0.
Out: (B, T, H, Dv).     Not here: cached decoding (mla.py, attention.py).
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.model.ops import is_native, kernels, pointer
from tenth.model.rope import apply_rope

# Shapes: B batch, T time, H query heads, G key/value heads


def attention_reference(
    q: Tensor,
    k_nope: Tensor,
    k_rope: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    scale: float,
    starts: Tensor | None,
) -> Tensor:
    """The obvious form, any device and dtype."""
    nope = k_nope.shape[-1]
    heads, groups = q.shape[2], v.shape[2]
    q_full = torch.cat([q[..., :nope], apply_rope(q[..., nope:], cos, sin)], -1)  # (B, T, H, dq)
    rotated = apply_rope(k_rope, cos, sin).expand(-1, -1, groups, -1)  # (B, T, G, rope)
    k_full = torch.cat([k_nope, rotated], -1).repeat_interleave(heads // groups, 2)  # (B, T, H, dq)
    v_full = v.repeat_interleave(heads // groups, 2)  # (B, T, H, Dv)
    mask = None if starts is None else causal_mask(starts)  # (B, 1, T, T)
    out = F.scaled_dot_product_attention(
        q_full.transpose(1, 2), k_full.transpose(1, 2), v_full.transpose(1, 2),
        attn_mask=mask, is_causal=mask is None, scale=scale,
    )  # fmt: skip
    return out.transpose(1, 2)  # (B, T, H, Dv)


def causal_mask(starts: Tensor) -> Tensor:
    """True where query t may see key j: starts[t] <= j <= t. (B, T) -> (B, 1, T, T)"""
    time = torch.arange(starts.shape[1], device=starts.device)
    is_inside = time[None, None, :] >= starts[:, :, None]  # (B, T, T)
    return (is_inside & (time[None, None, :] <= time[None, :, None])).unsqueeze(1)


def causal_attention(
    q: Tensor,
    k_nope: Tensor,
    k_rope: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    scale: float,
    starts: Tensor | None = None,
) -> Tensor:
    """Attention of every position to itself and what came before; see the module's text for shapes."""
    widths = (q.shape[-1], v.shape[-1])
    if is_native(q, v) and all(width % 16 == 0 for width in widths):
        return _Attention.apply(q, k_nope, k_rope, v, cos.float(), sin.float(), scale, starts)
    return attention_reference(q, k_nope, k_rope, v, cos, sin, scale=scale, starts=starts)


class _View(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("time", ctypes.c_int64),
        ("head", ctypes.c_int64),
    ]


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("batch", "time", "heads", "kv_heads", "nope", "rope", "value", "rope_kv_heads")
    ] + [("scale", ctypes.c_float)]


def _views(*tensors: Tensor) -> ctypes.Array:
    return (_View * len(tensors))(
        *(_View(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2)) for t in tensors)
    )


def _dense_last(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k_nope: Tensor,
        k_rope: Tensor,
        v: Tensor,
        cos: Tensor,
        sin: Tensor,
        scale: float,
        starts: Tensor | None,
    ) -> Tensor:
        q, k_nope, k_rope, v = map(_dense_last, (q, k_nope, k_rope, v))
        cos, sin = cos.contiguous(), sin.contiguous()
        starts = None if starts is None else starts.to(torch.int32).contiguous()
        batch, time, heads, _ = q.shape
        out = torch.empty(batch, time, heads, v.shape[-1], dtype=q.dtype)
        lse = torch.empty(batch, heads, time, dtype=torch.float32)
        widths = (k_nope.shape[-1], k_rope.shape[-1], v.shape[-1])
        shape = _Shape(batch, time, heads, v.shape[2], *widths, k_rope.shape[2], scale)
        kernels().tenth_attention_forward(
            int(q.dtype == torch.bfloat16), ctypes.byref(shape), _views(q, k_nope, k_rope, v, out),
            pointer(cos), pointer(sin), ctypes.c_int64(0 if cos.shape[0] == 1 else cos.stride(0)),
            None if starts is None else pointer(starts), pointer(lse),
        )  # fmt: skip
        ctx.save_for_backward(q, k_nope, k_rope, v, out, cos, sin, starts, lse)
        ctx.shape = shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k_nope, k_rope, v, out, cos, sin, starts, lse = ctx.saved_tensors
        grad = _dense_last(grads[0])
        # torch.empty of the shape, not empty_like: the inputs may be slices with strides of their parent
        dq, dk, dr, dv = (torch.empty(t.shape, dtype=t.dtype) for t in (q, k_nope, k_rope, v))
        kernels().tenth_attention_backward(
            int(q.dtype == torch.bfloat16), ctypes.byref(ctx.shape), _views(q, k_nope, k_rope, v, out),
            pointer(cos), pointer(sin), ctypes.c_int64(0 if cos.shape[0] == 1 else cos.stride(0)),
            None if starts is None else pointer(starts), pointer(lse), _views(grad, dq, dk, dr, dv),
        )  # fmt: skip
        return dq, dk, dr, dv, None, None, None, None
