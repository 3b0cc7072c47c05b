"""Compare an operation in float32 or bfloat16, forward and backward, with its obvious form in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def distance(found: Tensor, wanted: Tensor, *, floor: float = 0.0) -> float:
    """Largest difference, as a share of the largest wanted entry, or of `floor` where that is larger."""
    assert found.shape == wanted.shape
    if not found.numel():
        return 0.0
    found, wanted = found.detach().double(), wanted.detach().double()
    size = max(float(wanted.abs().max()), floor)
    return float((found - wanted).abs().max()) / (size or 1.0)


def assert_twins(
    function: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    tolerance: float | None = None,
) -> None:
    """`function` on the inputs as they lie equals `reference` on float64 copies; gradients too."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    allowed = tolerance or TOLERANCE[inputs[0].dtype]
    found, wanted = function(*leaves), reference(*wide)
    assert distance(found, wanted) < allowed
    upstream = draw(*wanted.shape, seed=99).to(found.dtype)
    found.backward(upstream)
    wanted.backward(upstream.double())
    for number, (leaf, twin) in enumerate(zip(leaves, wide, strict=True)):
        assert leaf.grad is not None
        assert leaf.grad.dtype == leaf.dtype
        error = distance(leaf.grad, twin.grad, floor=0.1)  # of one key the softmax's gradient is zero
        assert error < allowed, f"gradient of input {number} is {error:.1e} off"
