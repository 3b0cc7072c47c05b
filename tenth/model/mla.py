"""Multi-head latent attention: keys and values live as one small latent per token.

Why: the cache holds kv_lora_rank + rope numbers per token and layer instead of two full heads times H
(DeepSeek-V2, arXiv:2405.04434, section 2.1; DeepSeek-V3 section 2.1.1, eq. 1-11).
Two forms of the same function, tested equal: *expanded* (training, prompts) builds every key and value from
the latents; *absorbed* (decoding) folds W_UK into the query and W_UV into the output and attends over latents
directly.
paper -> here: W_DQ, W_DKV, W_KR -> rows of `qkv_a` (or `q` and `kv_a` rows when there is no query latent);
W_UQ, W_QR -> `q_b`; W_UK, W_UV -> rows of `kv_b`, per head nope then value; W_O -> `o`.
"""

import torch
from torch import Tensor, nn

from tenth.model.attention import Sequence, Step
from tenth.model.attention_core import causal_attention
from tenth.model.cache import decode_attention
from tenth.model.config import ModelConfig
from tenth.model.norm import RMSNorm
from tenth.model.rope import apply_rope, softmax_scale

# The released inference code and transformers norm the latents with this, whatever rms_norm_eps says.
LATENT_EPS = 1e-6

# Shapes: B batch, T time, H heads, D hidden, N tokens of any sequences;
# widths: q latent, kv latent, nope, rope, value


class LatentAttention(nn.Module):
    """MLA of one layer."""

    def __init__(self, config: ModelConfig, layer_id: int) -> None:
        super().__init__()
        mla = config.mla
        assert mla is not None
        self.mla, self.layer_id, self.heads = mla, layer_id, config.num_attention_heads
        # One product makes everything that is read off the hidden state.
        self.q_rows = mla.q_lora_rank if mla.q_lora_rank is not None else self.heads * mla.qk_head_dim
        rows = self.q_rows + mla.kv_lora_rank + mla.qk_rope_head_dim
        self.qkv_a = nn.Linear(config.hidden_size, rows, bias=False)
        if mla.q_lora_rank is not None:
            self.q_norm = RMSNorm(mla.q_lora_rank, LATENT_EPS)
            self.q_b = nn.Linear(mla.q_lora_rank, self.heads * mla.qk_head_dim, bias=False)
        self.kv_norm = RMSNorm(mla.kv_lora_rank, LATENT_EPS)
        rows = self.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        self.kv_b = nn.Linear(mla.kv_lora_rank, rows, bias=False)
        self.o = nn.Linear(self.heads * mla.v_head_dim, config.hidden_size, bias=False)
        self.scale = softmax_scale(mla.qk_head_dim, config.rope_scaling, config.max_position_embeddings)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., D) -> q (..., H, nope + rope), normed latent (..., kv), rope key (..., rope); unrotated."""
        mla = self.mla
        q, latent, k_rope = self.qkv_a(x).split([self.q_rows, mla.kv_lora_rank, mla.qk_rope_head_dim], dim=-1)
        if mla.q_lora_rank is not None:
            q = self.q_b(self.q_norm(q))
        return q.unflatten(-1, (self.heads, mla.qk_head_dim)), self.kv_norm(latent), k_rope

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        """Expanded form over whole sequences. (B, T, D) -> (B, T, D)"""
        mla = self.mla
        q, latent, k_rope = self._project(x)
        k_rope = k_rope.unsqueeze(-2)  # (B, T, 1, rope)
        kv = self.kv_b(latent).unflatten(-1, (self.heads, -1))  # (B, T, H, nope + value)
        k_nope, v = kv.split([mla.qk_nope_head_dim, mla.v_head_dim], dim=-1)
        out = causal_attention(
            q, k_nope, k_rope, v, sequence.cos, sequence.sin, scale=self.scale, starts=sequence.starts
        )
        return self.o(out.flatten(-2))

    def decode(self, x: Tensor, step: Step) -> Tensor:
        """Absorbed form, tokens over a cache. (N, D) -> (N, D)"""
        mla = self.mla
        q, latent, k_rope = self._project(x)  # (N, H, nope + rope), (N, kv), (N, rope)
        k_rope = apply_rope(k_rope.unsqueeze(1), step.cos, step.sin).squeeze(1)
        q_nope, q_rope = q.split([mla.qk_nope_head_dim, mla.qk_rope_head_dim], dim=-1)
        q_rope = apply_rope(q_rope, step.cos, step.sin)  # (N, H, rope)
        w_up = self.kv_b.weight.view(self.heads, -1, mla.kv_lora_rank)  # (H, nope + value, kv)
        w_uk, w_uv = w_up.split([mla.qk_nope_head_dim, mla.v_head_dim], dim=1)
        q_latent = torch.bmm(q_nope.transpose(0, 1), w_uk).transpose(0, 1)  # (N, H, kv)
        cached = step.cache.store_token(self.layer_id, torch.cat((latent, k_rope), -1))
        entries = cached.buffer.unsqueeze(2)  # (C, b, 1, kv + rope)
        query = torch.cat((q_latent, q_rope), -1)  # (N, H, kv + rope)
        values = entries[..., : mla.kv_lora_rank]  # (C, b, 1, kv)
        context = decode_attention(query, entries, values, cached, scale=self.scale)  # (N, H, kv)
        out = torch.bmm(context.transpose(0, 1), w_uv.transpose(1, 2)).transpose(0, 1)  # (N, H, value)
        return self.o(out.flatten(-2))
