"""All experts of a layer in shapes that do not depend on the routing: for few tokens on a GPU.

Why: `run_experts` must know how many tokens each expert got before it can ask for the products, so it waits
for the device in every layer, and such a step cannot be recorded. Sampling reads weights more than it
computes: up to a few hundred tokens it costs little to give every expert every token, once most experts are
wanted anyway; while fewer are wanted than there are, theirs are picked out.
In:  x (N, D), a Routing, gate_up (E, 2F, D), down (E, D, F).  Out: (N, D).
Not here: training, prompts, the CPU (experts.py).
"""

import torch
from torch import Tensor

from tenth.model.ops import swiglu_reference
from tenth.model.router import Routing

# Shapes: N tokens, K experts per token, E experts, D hidden, F expert width

MAX_TOKENS = 256  # about as many products per weight as a GPU makes while it reads one


def is_static(x: Tensor) -> bool:
    """Whether a layer should be computed this way. x (N, D)"""
    return x.device.type != "cpu" and len(x) <= MAX_TOKENS and not torch.is_grad_enabled()


def run_experts_static(x: Tensor, routing: Routing, gate_up: Tensor, down: Tensor) -> Tensor:
    """Every token's weighted sum over its experts. -> (N, D)"""
    is_few = routing.expert_ids.numel() < len(gate_up)
    outputs = (_picked if is_few else _all)(x, routing.expert_ids, gate_up, down)  # (N, K, D)
    return (outputs * routing.weights.unsqueeze(-1).to(outputs.dtype)).sum(1)


def _picked(x: Tensor, expert_ids: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The weights of each pair's expert, copied."""
    tokens, k = expert_ids.shape
    flat = expert_ids.flatten()
    rows = x.repeat_interleave(k, 0, output_size=tokens * k).unsqueeze(1)  # (N * K, 1, D)
    inner = swiglu_reference(torch.bmm(rows, gate_up[flat].transpose(1, 2)))  # (N * K, 1, F)
    return torch.bmm(inner, down[flat].transpose(1, 2)).view(tokens, k, -1)


def _all(x: Tensor, expert_ids: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Every expert over every token."""
    inner = swiglu_reference(torch.matmul(x, gate_up.transpose(1, 2)))  # (E, N, F)
    outputs = torch.bmm(inner, down.transpose(1, 2))  # (E, N, D)
    return outputs[expert_ids, torch.arange(len(x), device=x.device)[:, None]]
