"""The dense feed-forward block: SwiGLU with gate and up as one product (arXiv:2002.05202)."""

from torch import Tensor, nn

from tenth.model.ops import swiglu


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are the two halves of one matrix. (..., D) -> (..., D)"""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden, 2 * intermediate, bias=False)
        self.down = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x)))
