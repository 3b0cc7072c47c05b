"""Small networks of every kind, and the plainest cache that satisfies `KVCache`."""

import dataclasses

import torch
from torch import Tensor

from tenth.model.cache import Cached, Rows
from tenth.model.config import GqaConfig, Llama3RopeConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig
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
    "deepseek, yarn": dataclasses.replace(DEEPSEEK, rope_scaling=YARN),
    "deepseek, widths no kernel takes": dataclasses.replace(
        DEEPSEEK, hidden_size=30, mla=ODD_MLA, moe=dataclasses.replace(MOE, moe_intermediate_size=13)
    ),
    "qwen": QWEN,
    "one key head for all": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=1, head_dim=16)),
    "a key head for each": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=4, head_dim=10)),
    "deepseek v2": dataclasses.replace(
        DEEPSEEK,
        moe=dataclasses.replace(
            MOE, scoring_func="softmax", topk_method="group_limited_greedy", norm_topk_prob=False
        ),
    ),
    "qwen3, experts": dataclasses.replace(
        QWEN,
        gqa=GqaConfig(num_key_value_heads=2, head_dim=16, qk_norm=True),
        moe=MoeConfig(
            n_routed_experts=8,
            n_shared_experts=0,
            num_experts_per_tok=3,
            moe_intermediate_size=16,
            scoring_func="softmax",
            topk_method="greedy",
        ),
    ),
    "llama, biases": dataclasses.replace(
        QWEN,
        gqa=dataclasses.replace(QWEN.gqa, o_bias=True),
        rope_scaling=Llama3RopeConfig(
            factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=24
        ),
    ),
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


BLOCK = 8  # positions per block


class PlainCache:
    """Every sequence lies in a row of blocks of its own; all sequences bring equally many tokens per step."""

    def __init__(self, *, layers: int, sequences: int, positions: int) -> None:
        self.layers: list[Tensor | None] = [None] * layers
        self.tables = torch.arange(sequences * (positions // BLOCK + 1)).view(sequences, -1)  # (S, B)
        self.ends = torch.empty(0, dtype=torch.int64)

    def step(self, positions: Tensor) -> None:
        """The next entries are for these positions (S, T) of the sequences."""
        self.positions = positions

    def store_token(self, layer_id: int, entries: Tensor) -> Cached:
        sequences, tokens = self.positions.shape
        if self.layers[layer_id] is None:  # 9: whatever is read before it was written shows
            shape = (self.tables.numel(), BLOCK, entries.shape[-1])
            self.layers[layer_id] = torch.full(shape, 9.0, dtype=entries.dtype)
        layer = self.layers[layer_id]
        for sequence in range(sequences):
            for token, position in enumerate(self.positions[sequence].tolist()):
                block = self.tables[sequence, position // BLOCK]
                layer[block, position % BLOCK] = entries[sequence * tokens + token]
        rows = Rows(
            sequences=torch.arange(sequences),
            tokens=torch.arange(sequences * tokens).view(sequences, tokens),
            num_blocks=self.tables.shape[1],
        )
        ends = self.positions.flatten() + 1
        return Cached(buffer=layer, tables=self.tables, ends=ends, firsts=None, rows=(rows,))


@torch.no_grad()
def decode_all(network: Transformer, ids: Tensor, *, prompt: int = 0) -> Tensor:
    """Hidden states of ids (B, T): the first `prompt` tokens read at once, the others one by one."""
    sequences, time = ids.shape
    cache = PlainCache(layers=len(network.layers), sequences=sequences, positions=time)
    hidden = []
    for part in parts_of(time, prompt):
        positions = torch.tensor([part] * sequences)
        cache.step(positions)
        found = network.decode(ids[:, part].flatten(), positions.flatten(), cache)
        hidden.append(found.unflatten(0, (sequences, -1)))
    return torch.cat(hidden, 1)


def parts_of(time: int, prompt: int) -> list[list[int]]:
    """Positions that are read together: the prompt, then one by one."""
    return [list(range(prompt))] * bool(prompt) + [[position] for position in range(prompt, time)]
