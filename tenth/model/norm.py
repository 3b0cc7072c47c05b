"""RMSNorm as a module: one weight per channel, kept in float32 whatever the network computes in."""

import torch
from torch import Tensor, nn

from tenth.model.ops import rms_norm


class RMSNorm(nn.Module):
    """y = x / rms(x) * weight over the last dimension (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
