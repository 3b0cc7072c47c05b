"""Matrices stored as small integers: every `group` columns of a row share one scale, w ~ scale * code.

Why: sampling one token reads every weight once, so weights of 8 or 4 bits are read in half or a quarter of
the time that bfloat16 takes, and need that much less memory.
In:  codes and scales, made by quantize.py or read from a model directory.
Out: modules that stand where nn.Linear, nn.Embedding and an expert layer's parameters stood, computing with
the dequantised matrix in the dtype of their input. Exact: a float16 scale times an 8-bit code fits float32.
Layout: codes of 8 bits are int8 in [-127, 127]; codes of 4 bits lie in [-8, 7] and are stored plus 8, two per
byte, the even column in the low half. Scales are float16, of either sign.
Not here: choosing codes and scales (quantize.py); fast kernels.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Shapes: N rows, K columns, E experts; `group` columns share a scale


def pack(codes: Tensor, *, bits: int) -> Tensor:
    """Whole numbers as they are stored. (..., K) -> (..., K) int8 or (..., K / 2) uint8"""
    if bits == 8:
        return codes.to(torch.int8)
    low, high = (codes.to(torch.int8) + 8).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return low | (high << 4)


def unpack(stored: Tensor, *, bits: int) -> Tensor:
    """The opposite of `pack`. -> (..., K) int8"""
    if bits == 8:
        return stored
    return torch.stack((stored & 15, stored >> 4), -1).flatten(-2).to(torch.int8) - 8


class QuantizedMatrix(nn.Module):
    """A matrix (N, K), or one per expert (E, N, K). `dtype` is what it computes in where no input decides."""

    codes: Tensor
    scales: Tensor

    def __init__(self, *shape: int, bits: int, group: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.bits, self.group, self.dtype = bits, group, dtype
        *leading, width = shape
        codes = torch.zeros(shape, dtype=torch.int8)
        self.register_buffer("codes", pack(codes, bits=bits))
        self.register_buffer("scales", torch.zeros(*leading, width // group, dtype=torch.float16))

    @property
    def weight(self) -> Tensor:
        """The dequantised matrix in `dtype`, made anew at every call."""
        return self.dequantised().to(self.dtype)

    def dequantised(self) -> Tensor:
        """The whole matrix in float32."""
        return self._values(self.codes, self.scales)

    def _values(self, codes: Tensor, scales: Tensor) -> Tensor:
        grouped = unpack(codes, bits=self.bits).unflatten(-1, (-1, self.group))  # (..., K / group, group)
        return (grouped.float() * scales.float().unsqueeze(-1)).flatten(-2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to(dtype)` changes what is computed in; the stored numbers only ever move."""
        scales = self.scales
        super()._apply(fn, recurse)
        device = self.scales.device
        self.scales = torch.empty_like(scales, device=device) if scales.is_meta else scales.to(device)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


class QuantizedLinear(QuantizedMatrix):
    """In place of nn.Linear. x (..., K) -> (..., N)"""

    def __init__(
        self,
        *shape: int,
        bits: int,
        group: int,
        dtype: torch.dtype = torch.float32,
        bias: nn.Parameter | None = None,
    ) -> None:
        super().__init__(*shape, bits=bits, group=group, dtype=dtype)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantised().to(x.dtype), self.bias)


class QuantizedEmbedding(QuantizedMatrix):
    """In place of nn.Embedding; a tied head reads the same numbers. ids (...) -> (..., K)"""

    def forward(self, ids: Tensor) -> Tensor:
        return self._values(self.codes[ids], self.scales[ids]).to(self.dtype)


class QuantizedExperts(QuantizedMatrix):
    """One matrix per expert (E, N, K), in place of an expert layer's parameter."""
