"""Muon for many matrices at once: momentum, then Newton-Schulz on whole stacks of equal shape.

Why: Muon (Jordan 2024; "Muon is Scalable for LLM Training", arXiv:2502.16982) replaces a matrix's update by
the nearest orthogonal matrix. `torch.optim.Muon` does that for one 2-D matrix after another, which on a small
network is all overhead, and it refuses stacked experts. Here every matrix of one shape, tall or wide, single
or in an expert stack, joins one batch: the iteration is fifteen batched products per shape.
In:  2-D weights (rows, columns) and 3-D stacks of them (experts, rows, columns), with gradients.
Out: the weights, changed in place; the momentum is the only state.
Not here: embeddings, head, norms, router. They stay with AdamW (optim.py).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# Quintic coefficients that maximise the slope at zero; Jordan, kellerjordan.github.io/posts/muon.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7  # same floor as torch.optim.Muon

# Shapes: M matrices in the stack, of m rows and n columns, m <= n


def orthogonalise(stack: Tensor, *, num_steps: int = 5) -> Tensor:
    """Push every singular value of every matrix towards 1, keeping its singular vectors."""
    a, b, c = NEWTON_SCHULZ
    norm = torch.linalg.vector_norm(stack, dim=(-2, -1), keepdim=True)  # (M, 1, 1)
    x = stack / norm.clamp(min=SMALLEST_NORM)  # (M, m, n)
    for _ in range(num_steps):
        gram = torch.bmm(x, x.mT)  # (M, m, m)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # (M, m, m)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # (M, m, n)
    return x


def rms_matched_scale(rows: int, columns: int) -> float:
    """Gives an orthogonal update the size of a typical AdamW one (arXiv:2502.16982, section 2.2)."""
    return 0.2 * math.sqrt(max(rows, columns))


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, batched, for 2-D and stacked weights.

    `newton_schulz_dtype`: bfloat16 is what the method was designed with, and by far the fastest here.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        num_steps: int = 5,
        newton_schulz_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.num_steps = num_steps
        self.newton_schulz_dtype = newton_schulz_dtype
        for group in self.param_groups:
            for param in group["params"]:
                if param.ndim not in (2, 3):
                    raise ValueError(
                        f"Muon orthogonalises matrices and stacks of them, not shape {tuple(param.shape)}."
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients before the step.")
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step_group(params, group)

    def _step_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [param.grad for param in params if param.grad is not None]
        buffers = [self._momentum_of(param) for param in params]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, buffers, group["momentum"])  # Nesterov's look ahead
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for members in _same_shape(params):
            stack = torch.cat([_as_wide_stack(updates[i]) for i in members])  # (M, m, n)
            stack = orthogonalise(stack.to(self.newton_schulz_dtype), num_steps=self.num_steps)
            chosen = [params[i] for i in members]
            step_size = group["lr"] * rms_matched_scale(*stack.shape[-2:])
            torch._foreach_add_(chosen, _unstack(stack, chosen), alpha=-step_size)

    def _momentum_of(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        return state["momentum_buffer"]


def _same_shape(params: Sequence[Tensor]) -> list[list[int]]:
    """Indices of params whose matrices have equal shape once the tall ones lie on their side."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for index, param in enumerate(params):
        short, long = sorted(param.shape[-2:])
        buckets.setdefault((short, long), []).append(index)
    return list(buckets.values())


def _is_tall(param: Tensor) -> bool:
    return param.shape[-2] > param.shape[-1]


def _as_wide_stack(matrix: Tensor) -> Tensor:
    # The iteration squares the row side, so rows must be the short side; the result transposes back exactly.
    wide = matrix.mT if _is_tall(matrix) else matrix
    return wide if wide.ndim == 3 else wide.unsqueeze(0)  # (experts or 1, m, n)


def _unstack(stack: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """The piece of the stack that belongs to each param, in the param's own shape."""
    pieces = stack.split([param.shape[0] if param.ndim == 3 else 1 for param in params])
    return [
        (piece.mT if _is_tall(param) else piece).reshape(param.shape)
        for piece, param in zip(pieces, params, strict=True)
    ]
