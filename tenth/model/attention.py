"""Grouped-query attention: the Qwen and Llama shapes (arXiv:2305.13245).

Query, key and value rows are one product. Rotation is half-split, as Hugging Face stores these families.
Qwen3 norms every query and key head before it is rotated, one weight per channel shared by the heads.
In:  (B, T, D) or, when decoding, (N, D) with a cache.  Out: the same shape.
Not here: scores and softmax (attention_core.py, cache.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenth.model.attention_core import causal_attention
from tenth.model.cache import KVCache, decode_attention
from tenth.model.config import ModelConfig
from tenth.model.norm import RMSNorm
from tenth.model.rope import apply_rope, softmax_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Where the tokens of a whole-sequence pass stand."""

    cos: Tensor  # (B or 1, T, rope / 2) float32
    sin: Tensor
    starts: Tensor | None  # (B, T) int32 first key a query may see; None: 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where the N tokens of a decode step stand, whichever sequences they belong to."""

    cos: Tensor  # (N, rope / 2) float32
    sin: Tensor
    cache: KVCache


class GroupedQueryAttention(nn.Module):
    """H query heads share G key/value heads."""

    def __init__(self, config: ModelConfig, layer_id: int) -> None:
        super().__init__()
        assert config.gqa is not None
        self.heads, self.kv_heads = config.num_attention_heads, config.gqa.num_key_value_heads
        self.head_dim, self.layer_id = config.gqa.head_dim, layer_id
        rows = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = nn.Linear(config.hidden_size, rows, bias=config.gqa.qkv_bias)
        self.o = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=config.gqa.o_bias)
        self.has_qk_norm = config.gqa.qk_norm
        if self.has_qk_norm:
            self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.scale = softmax_scale(self.head_dim, config.rope_scaling, config.max_position_embeddings)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x).unflatten(-1, (self.heads + 2 * self.kv_heads, self.head_dim))
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=-2)
        if self.has_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        q, k, v = self._split(x)  # (B, T, H|G|G, head_dim)
        out = causal_attention(
            q, k[..., :0], k, v, sequence.cos, sequence.sin, scale=self.scale, starts=sequence.starts
        )  # (B, T, H, head_dim)
        return self.o(out.flatten(-2))

    def decode(self, x: Tensor, step: Step) -> Tensor:
        """Tokens over a cache. (N, D) -> (N, D)"""
        q, k, v = self._split(x)  # (N, H|G|G, head_dim)
        q, k = apply_rope(q, step.cos, step.sin), apply_rope(k, step.cos, step.sin)
        cached = step.cache.store_token(self.layer_id, torch.cat((k, v), dim=-2).flatten(-2))
        entries = cached.buffer.unflatten(-1, (2 * self.kv_heads, self.head_dim))
        keys, values = entries.split(self.kv_heads, dim=2)  # (C, b, G, head_dim)
        return self.o(decode_attention(q, keys, values, cached, scale=self.scale).flatten(-2))
