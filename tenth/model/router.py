"""Which experts a token visits: scores, group-limited top-k, a bias that balances without a loss.

Why: DeepSeek-V3 (arXiv:2412.19437, section 2.1.2, eq. 12-20) balances load by nudging a bias that takes part
in the choice only, never in the weights, so no gradient pulls the network away from its task. DeepSeek-V2
(arXiv:2405.04434, section 2.1.2) and Qwen3 choose by plain softmax scores; `MoeConfig` says which rule holds.
In:  hidden states (N, D).  Out: a `Routing`. Not here: moving tokens to experts (experts.py).
"""

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenth.model.config import MoeConfig
from tenth.model.ops import is_native, kernels, pointer

# Shapes: N tokens, E experts, G groups of E/G experts, K experts per token, B sequences of T tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """One layer's decision for N tokens."""

    expert_ids: Tensor  # (N, K) int64
    weights: Tensor  # (N, K) float32, differentiable
    scores: Tensor  # (N, E) float32, unbiased


def top_k_ids(x: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row, largest first. (N, E) -> (N, K)"""
    if not is_native(x) or x.dtype != torch.float32:
        return x.topk(k, dim=-1).indices
    x = x.contiguous()
    ids = torch.empty(x.shape[0], k, dtype=torch.int64)
    rows, cols = map(ctypes.c_int64, x.shape)
    kernels().tenth_top_k(pointer(x), rows, cols, ctypes.c_int64(k), pointer(ids))
    return ids


def choose_experts(scores: Tensor, bias: Tensor, *, config: MoeConfig) -> Tensor:
    """Top-k, of the kept groups where there are groups. (N, E), (E,) -> (N, K)

    DeepSeek-V3 (section 2.1.2): by biased scores, a group being worth its best two. DeepSeek-V2 (section
    2.1.2): by the scores, a group being worth its best one.
    """
    is_biased = config.topk_method == "noaux_tc"
    choice = scores.detach() + bias if is_biased else scores.detach()  # (N, E)
    if config.n_group > 1:
        grouped = choice.unflatten(-1, (config.n_group, -1))  # (N, G, E/G)
        group_scores = grouped.topk(2 if is_biased else 1, dim=-1).values.sum(-1)  # (N, G)
        kept = group_scores.topk(config.topk_group, dim=-1).indices  # (N, kept)
        is_open = torch.zeros_like(group_scores, dtype=torch.bool).scatter(-1, kept, True)
        choice = grouped.masked_fill(~is_open.unsqueeze(-1), -torch.inf).flatten(-2)  # (N, E)
    return top_k_ids(choice, config.num_experts_per_tok)


def sequence_balance_loss(scores: Tensor, token_mask: Tensor | None, *, config: MoeConfig) -> Tensor:
    """alpha-free sum_i f_i P_i, mean over sequences (section 2.1.2, eq. 17-20). scores (B, T, E), mask (B, T)

    paper -> here: N_r -> n_routed_experts, K_r -> num_experts_per_tok, s'_{i,t} -> share.
    """
    batch, _, experts = scores.shape
    chosen = top_k_ids(scores.detach().flatten(0, 1), config.num_experts_per_tok)  # (B*T, K)
    is_chosen = torch.zeros_like(scores).flatten(0, 1).scatter(1, chosen, 1.0).view(scores.shape)  # (B, T, E)
    share = scores / scores.sum(-1, keepdim=True)  # (B, T, E)
    if token_mask is None:
        token_mask = scores.new_ones(scores.shape[:2])
    weight = token_mask.to(scores.dtype)  # (B, T)
    tokens = weight.sum(1).clamp(min=1)[:, None]  # (B, 1)
    load = torch.einsum("bte,bt->be", is_chosen, weight) * experts / (config.num_experts_per_tok * tokens)
    importance = torch.einsum("bte,bt->be", share, weight) / tokens  # (B, E)
    return (load * importance).sum() / batch


class Router(nn.Module):
    """The gate: float32 whatever the network computes in, since near-ties decide who gets a token."""

    bias: Tensor

    def __init__(self, hidden: int, config: MoeConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, hidden))
        self.register_buffer("bias", torch.zeros(config.n_routed_experts))

    def forward(self, x: Tensor) -> Routing:
        wide = x if x.dtype == torch.float64 else x.float()
        logits = F.linear(wide, self.weight.to(wide.dtype))  # (N, E)
        is_sigmoid = self.config.scoring_func == "sigmoid"
        scores = torch.sigmoid(logits) if is_sigmoid else logits.softmax(-1)
        expert_ids = choose_experts(scores, self.bias, config=self.config)  # (N, K)
        weights = scores.gather(-1, expert_ids)  # (N, K) the bias never weighs
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return Routing(
            expert_ids=expert_ids, weights=weights * self.config.routed_scaling_factor, scores=scores
        )

    @torch.no_grad()
    def update_bias(self, counts: Tensor, *, speed: float) -> None:
        """b_i += speed * sign(mean load - load_i), outside autograd (arXiv:2408.15664). counts (E,)"""
        load = counts.to(self.bias.dtype)
        self.bias += speed * torch.sign(load.mean() - load)


def max_violation(counts: Tensor) -> Tensor:
    """MaxVio = (max load - mean load) / mean load of one layer (arXiv:2408.15664). (..., E) -> (...)"""
    load = counts.float()
    mean = load.mean(-1)
    return (load.max(-1).values - mean) / mean.clamp(min=1e-9)
