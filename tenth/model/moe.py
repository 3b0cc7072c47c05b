"""DeepSeekMoE: shared experts that see every token, routed experts that see their choice of tokens.

h' = sum_shared FFN(u) + sum_i g_i FFN_i(u)   (DeepSeek-V3, arXiv:2412.19437, section 2.1.2, eq. 12)
In:  (B, T, D).  Out: (B, T, D) and the layer's `Balance`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenth.model.config import MoeConfig
from tenth.model.experts import plan_dispatch, run_experts
from tenth.model.mlp import SwiGLU
from tenth.model.quantized import QuantizedExperts
from tenth.model.router import Router, Routing, sequence_balance_loss
from tenth.model.static_experts import is_static, run_experts_static


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How evenly one layer spread its tokens."""

    counts: Tensor  # (E,) int64 tokens per expert, padding tokens left out
    loss: Tensor  # scalar, without its weight alpha


class MoE(nn.Module):
    """One expert layer."""

    def __init__(self, hidden: int, config: MoeConfig) -> None:
        super().__init__()
        self.config = config
        width = config.moe_intermediate_size
        self.router = Router(hidden, config)
        self.gate_up: Tensor | QuantizedExperts
        self.down: Tensor | QuantizedExperts
        self.gate_up = nn.Parameter(torch.empty(config.n_routed_experts, 2 * width, hidden))
        self.down = nn.Parameter(torch.empty(config.n_routed_experts, hidden, width))
        self.shared = SwiGLU(hidden, config.n_shared_experts * width) if config.n_shared_experts else None

    def forward(
        self, x: Tensor, *, token_mask: Tensor | None = None, measure: bool = False
    ) -> tuple[Tensor, Balance | None]:
        """`measure` adds the balance statistics that pre-training needs; sampling does without."""
        flat = x.flatten(0, -2)  # (N, D)
        routing = self.router(flat)
        if not measure and is_static(flat):
            return self._forward_static(flat, routing).view(x.shape), None
        dispatch = plan_dispatch(routing.expert_ids, num_experts=self.config.n_routed_experts)
        gate_up, down = _dense(self.gate_up, flat.dtype), _dense(self.down, flat.dtype)
        out = run_experts(flat, routing.weights, dispatch, gate_up, down)  # (N, D)
        if self.shared is not None:
            out = out + self.shared(flat)
        if not measure:
            return out.view(x.shape), None
        counts = dispatch.counts
        if token_mask is not None:
            kept = routing.expert_ids[token_mask.flatten()]
            counts = torch.bincount(kept.flatten(), minlength=self.config.n_routed_experts)
        scores = routing.scores.view(*x.shape[:-1], -1)  # (B, T, E)
        loss = sequence_balance_loss(scores, token_mask, config=self.config)
        return out.view(x.shape), Balance(counts=counts, loss=loss)

    def _forward_static(self, flat: Tensor, routing: Routing) -> Tensor:
        gate_up, down = _dense(self.gate_up, flat.dtype), _dense(self.down, flat.dtype)
        out = run_experts_static(flat, routing, gate_up, down)  # (N, D)
        return out if self.shared is None else out + self.shared(flat)


def _dense(weight: Tensor | QuantizedExperts, dtype: torch.dtype) -> Tensor:
    return weight.dequantised().to(dtype) if isinstance(weight, QuantizedExperts) else weight
