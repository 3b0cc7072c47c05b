"""Small networks of every kind, and the plainest cache that satisfies `KVCache`."""

import dataclasses

import torch
from torch import Tensor

from tenth.model.cache import Cached
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.transformer import Transformer, initialise

MLA = MlaConfig(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16)
ODD_MLA = MlaConfig(q_lora_rank=None, kv_lora_rank=5, qk_nope_head_dim=9, qk_rope_head_dim=6, v_head_dim=7)
MOE = MoeConfig(
    n_routed_experts=8,
    n_shared_experts=1,
    num_experts_per_tok=3,
    moe_intermediate_size=16,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
)
DEEPSEEK = ModelConfig(
    name="deepseek",
    vocab_size=40,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=48,
    mla=MLA,
    moe=MOE,
    num_nextn_predict_layers=1,
    max_position_embeddings=96,
    initializer_range=0.2,
)
QWEN = ModelConfig(
    name="qwen",
    vocab_size=40,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    max_position_embeddings=96,
    initializer_range=0.2,
    tie_word_embeddings=True,
)
YARN = YarnConfig(factor=4.0, original_max_position_embeddings=24)
CONFIGS = {
    "deepseek": DEEPSEEK,
    "deepseek, no query latent": dataclasses.replace(
        DEEPSEEK, mla=dataclasses.replace(MLA, q_lora_rank=None)
    ),
    "deepseek, yarn": dataclasses.replace(DEEPSEEK, yarn=YARN),
    "deepseek, widths no kernel takes": dataclasses.replace(
        DEEPSEEK, hidden_size=30, mla=ODD_MLA, moe=dataclasses.replace(MOE, moe_intermediate_size=13)
    ),
    "qwen": QWEN,
    "one key head for all": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=1, head_dim=16)),
    "a key head for each": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=4, head_dim=10)),
}


def build(config: ModelConfig, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Transformer:
    """A network with random weights, selection biases and projection biases included."""
    generator = torch.Generator().manual_seed(seed)
    network = initialise(Transformer(config), generator=generator)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:  # norms around one, biases around zero
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            parameter.data = noise + (0 if name.endswith("bias") else 1)
    for router in network.routers():
        router.bias.copy_(0.3 * torch.randn(router.bias.shape, generator=generator))
    return network.to(dtype)


def random_ids(*shape: int, vocabulary: int = 40, seed: int = 1) -> Tensor:
    """Token ids."""
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


class PlainCache:
    """Slot r belongs to sequence r; prompts are stored from position 0, tokens one after the other."""

    def __init__(self, *, layers: int, sequences: int, positions: int, filled: int = 0) -> None:
        self.layers: list[Tensor | None] = [None] * layers
        self.shape = (sequences, positions)
        self.filled = filled

    def _layer(self, layer_id: int, entries: Tensor) -> Tensor:
        found = self.layers[layer_id]
        if found is None:  # 9: whatever is read before it was written shows
            found = torch.full((*self.shape, entries.shape[-1]), 9.0, dtype=entries.dtype)
            self.layers[layer_id] = found
        return found

    def store_prompt(self, layer_id: int, entries: Tensor) -> None:
        self._layer(layer_id, entries)[:, : entries.shape[1]] = entries

    def store_token(self, layer_id: int, entries: Tensor) -> Cached:
        layer = self._layer(layer_id, entries)
        layer[:, self.filled] = entries
        sequences = self.shape[0]
        return Cached(
            buffer=layer, slots=torch.arange(sequences), lengths=torch.full((sequences,), self.filled + 1)
        )


@torch.no_grad()
def decode_all(network: Transformer, ids: Tensor, *, prompt: int = 0) -> Tensor:
    """Hidden states of ids (B, T): the first `prompt` tokens read at once, the others one by one."""
    sequences, time = ids.shape
    cache = PlainCache(layers=len(network.layers), sequences=sequences, positions=time + 3)
    hidden = [network(ids[:, :prompt], cache=cache)] if prompt else []
    for position in range(prompt, time):
        cache.filled = position
        where = torch.full((sequences,), position)
        hidden.append(network.decode(ids[:, position], where, cache)[:, None])
    return torch.cat(hidden, 1)
