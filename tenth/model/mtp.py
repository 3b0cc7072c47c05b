"""Multi-token prediction: a module that guesses one token further, with the main model's embedding and head.

DeepSeek-V3 section 2.2, eq. 21-25: h'_i^k = M_k [norm(h_i^{k-1}); norm(Emb(t_{i+k}))], then one transformer
block. The released weights concatenate (embedding, hidden), the other order than eq. 21 prints; we keep the
weights' order, so that checkpoints load. h^0 is the main model's output after its final norm, as the released
weights expect.
Not here: the loss (training/pretrain.py), what is done with drafts (engine/).
"""

import torch
from torch import Tensor, nn

from tenth.model.attention import Sequence, Step
from tenth.model.block import Block
from tenth.model.config import ModelConfig
from tenth.model.moe import Balance
from tenth.model.norm import RMSNorm


class MtpModule(nn.Module):
    """Depth k of the chain: hidden (B, T, D) and embedded tokens k further (B, T, D) -> (B, T, D)."""

    def __init__(self, config: ModelConfig, layer_id: int) -> None:
        super().__init__()
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = Block(config, layer_id)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        embedded: Tensor,
        sequence: Sequence,
        *,
        token_mask: Tensor | None = None,
        measure: bool = False,
    ) -> tuple[Tensor, Balance | None]:
        joined = self._join(hidden, embedded)  # (B, T, D)
        return self.block(joined, sequence, token_mask=token_mask, measure=measure)

    def decode(self, hidden: Tensor, embedded: Tensor, step: Step) -> Tensor:
        """The same for tokens over a cache, through the norm. (N, D) twice -> (N, D)"""
        return self.norm(self.block.decode(self._join(hidden, embedded), step))

    def _join(self, hidden: Tensor, embedded: Tensor) -> Tensor:
        return self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(hidden)), -1))
