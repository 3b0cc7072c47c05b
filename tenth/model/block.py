"""One transformer block: pre-norm attention and pre-norm feed-forward, dense or with experts."""

from torch import Tensor, nn

from tenth.model.attention import GroupedQueryAttention, Sequence, Step
from tenth.model.config import ModelConfig
from tenth.model.mla import LatentAttention
from tenth.model.mlp import SwiGLU
from tenth.model.moe import Balance, MoE
from tenth.model.norm import RMSNorm


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig, layer_id: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention: LatentAttention | GroupedQueryAttention = (
            LatentAttention(config, layer_id) if config.mla else GroupedQueryAttention(config, layer_id)
        )
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn: SwiGLU | MoE
        if config.is_moe_layer(layer_id):
            assert config.moe is not None
            self.ffn = MoE(config.hidden_size, config.moe)
        else:
            self.ffn = SwiGLU(config.hidden_size, config.intermediate_size)

    def _feed_forward(
        self, x: Tensor, *, token_mask: Tensor | None, measure: bool
    ) -> tuple[Tensor, Balance | None]:
        normed = self.ffn_norm(x)
        if isinstance(self.ffn, MoE):
            out, balance = self.ffn(normed, token_mask=token_mask, measure=measure)
            return x + out, balance
        return x + self.ffn(normed), None

    def forward(
        self, x: Tensor, sequence: Sequence, *, token_mask: Tensor | None = None, measure: bool = False
    ) -> tuple[Tensor, Balance | None]:
        """(B, T, D) -> (B, T, D) and, when asked to measure, this layer's balance."""
        x = x + self.attention(self.attention_norm(x), sequence)
        return self._feed_forward(x, token_mask=token_mask, measure=measure)

    def decode(self, x: Tensor, step: Step) -> Tensor:
        """(N, D) -> (N, D), tokens over a cache."""
        x = x + self.attention.decode(self.attention_norm(x), step)
        return self._feed_forward(x, token_mask=None, measure=False)[0]
