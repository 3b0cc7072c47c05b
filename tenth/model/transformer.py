"""The network: embedding, blocks, final norm, head, MTP modules. One definition trains and samples.

In:  token ids.  Out: hidden states after the final norm; `logits` turns them into vocabulary scores.
Three passes over the same weights: `forward` (whole sequences), `forward_training` (the same plus balance
statistics and MTP hiddens), `decode` (any tokens whose pasts lie in a cache). Trainer and sampler cannot
disagree about the function.
Not here: losses, sampling, devices.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenth.base.errors import ConfigError
from tenth.model.attention import Sequence, Step
from tenth.model.block import Block
from tenth.model.cache import KVCache
from tenth.model.config import ModelConfig
from tenth.model.lora_linear import LowRank
from tenth.model.moe import Balance, MoE
from tenth.model.mtp import MtpModule
from tenth.model.norm import RMSNorm
from tenth.model.quantized import QuantizedMatrix
from tenth.model.rope import active_scaling, rope_tables
from tenth.model.router import Router

# Shapes: B batch, T time, D hidden, V vocabulary, N tokens of any sequences, L expert layers, E experts


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutput:
    """What pre-training needs of one pass."""

    hidden: Tensor  # (B, T, D) after the final norm
    mtp_hidden: tuple[Tensor, ...]  # depth k: (B, T, D) after its norm; position t predicts token t + k + 1
    balances: tuple[Balance, ...]  # per expert layer, MTP layers last


class Transformer(nn.Module):
    """A causal language model of any `ModelConfig`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        is_tied = config.tie_word_embeddings
        self.head = None if is_tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        depth = config.num_nextn_predict_layers
        self.mtp = nn.ModuleList(MtpModule(config, config.num_hidden_layers + k) for k in range(depth))
        scaling = active_scaling(config.rope_scaling, max_position_embeddings=config.max_position_embeddings)
        limit = config.max_position_embeddings
        cos, sin = rope_tables(config.rope_dim, limit, theta=config.rope_theta, scaling=scaling)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def head_weight(self) -> Tensor:
        """(V, D)"""
        return self.embed.weight if self.head is None else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)"""
        return F.linear(hidden, self.head_weight)

    def _sequence(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None,
        segment_ids: Tensor | None,
    ) -> Sequence:
        starts = None if segment_ids is None else segment_starts(segment_ids)
        if positions is None and starts is not None:
            positions = torch.arange(ids.shape[1], device=ids.device) - starts  # (B, T)
        if positions is None:
            time, limit = ids.shape[1], self.config.max_position_embeddings
            if time > limit:
                raise ConfigError(
                    f"model '{self.config.name}': {time} tokens in a row, but max_position_embeddings = "
                    f"{limit}; shorten the sequences or build the model with a longer context."
                )
            return Sequence(cos=self.cos[None, :time], sin=self.sin[None, :time], starts=starts)
        return Sequence(cos=self.cos[positions], sin=self.sin[positions], starts=starts)

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of whole sequences. ids (B, T) -> (B, T, D)

        segment_ids (B, T): tokens see only their own contiguous segment (packed answers, padding anywhere).
        positions (B, T): given only where they are not simply the distance from the segment's start.
        """
        sequence = self._sequence(ids, positions=positions, segment_ids=segment_ids)
        x = self.embed(ids)
        for layer in self.layers:
            x, _ = layer(x, sequence, token_mask=token_mask)
        return self.norm(x)

    def forward_training(
        self, ids: Tensor, *, token_mask: Tensor | None = None, depth: int = 0
    ) -> TrainingOutput:
        """The pass of pre-training. ids (B, T + depth): the last `depth` tokens only feed the MTP modules."""
        time = ids.shape[1] - depth
        sequence = self._sequence(ids[:, :time], positions=None, segment_ids=None)
        embedded = self.embed(ids)  # (B, T + depth, D)
        x, balances = embedded[:, :time].contiguous(), []
        for layer in self.layers:
            x, balance = layer(x, sequence, token_mask=token_mask, measure=True)
            balances += [balance] if balance else []
        hidden = self.norm(x)
        chain, mtp_hidden = hidden, []
        for k, module in enumerate(self.mtp[:depth], start=1):
            ahead = embedded[:, k : time + k]  # (B, T, D)
            chain, balance = module(chain, ahead, sequence, token_mask=token_mask, measure=True)
            balances += [balance] if balance else []
            mtp_hidden.append(cast(MtpModule, module).norm(chain))
        return TrainingOutput(hidden=hidden, mtp_hidden=tuple(mtp_hidden), balances=tuple(balances))

    def decode(self, ids: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        """Hidden states of tokens whose pasts lie in a cache: whole prompts, chunks, single tokens, of any
        sequences. ids (N,), positions (N,) -> (N, D)"""
        step = Step(cos=self.cos[positions], sin=self.sin[positions], cache=cache)
        x = self.embed(ids)
        for layer in self.layers:
            x = cast(Block, layer).decode(x, step)
        return self.norm(x)

    def decode_mtp(self, ids: Tensor, positions: Tensor, hidden: Tensor, cache: KVCache) -> Tensor:
        """What the first MTP module makes of tokens and the hidden states (N, D) one position before them.

        It predicts the token that follows each. The cache keeps its entries as those of the layer after the
        main ones, at the position of the token: one further than in training, which rotation cannot tell.
        """
        step = Step(cos=self.cos[positions], sin=self.sin[positions], cache=cache)
        return cast(MtpModule, self.mtp[0]).decode(hidden, self.embed(ids), step)

    def routers(self) -> list[Router]:
        """Every router, main layers first, in the order of `TrainingOutput.balances`."""
        return [module.router for module in self.modules() if isinstance(module, MoE)]

    def to_compute_dtype(self, dtype: torch.dtype) -> "Transformer":
        """Matrices in `dtype`; norms, routers (DeepSeek-V3 section 3.3) and adapters stay float32."""
        for module in self.modules():
            if isinstance(module, QuantizedMatrix):
                module.dtype = dtype
            if not isinstance(module, RMSNorm | Router | LowRank):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
        return self


def segment_starts(segment_ids: Tensor) -> Tensor:
    """First position of each token's segment. (B, T) -> (B, T) int32"""
    time = torch.arange(segment_ids.shape[1], device=segment_ids.device).expand_as(segment_ids)
    is_first = torch.ones_like(segment_ids, dtype=torch.bool)
    is_first[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    return torch.where(is_first, time, 0).cummax(1).values.to(torch.int32)


@torch.no_grad()
def initialise(model: Transformer, *, generator: torch.Generator) -> Transformer:
    """Every matrix normal with std `initializer_range`, norms one, biases zero (DeepSeek-V3 section 4.2)."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0.0, model.config.initializer_range, generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1.0)
    return model
