"""Small networks for the engine's tests: experts with MLA, and dense with grouped queries."""

import dataclasses
import itertools

import torch
from torch import Tensor

from tenth.engine.block_pool import BLOCK
from tenth.engine.runner import Batch
from tenth.engine.torch_runner import TorchRunner
from tenth.model.config import GqaConfig, Llama3RopeConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.transformer import Transformer, initialise

VOCABULARY, CONTEXT = 24, 72

DEEPSEEK = ModelConfig(
    name="deepseek",
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=48,
    mla=MlaConfig(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16),
    moe=MoeConfig(
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        n_group=2,
        topk_group=1,
        routed_scaling_factor=1.5,
    ),
    num_nextn_predict_layers=1,
    max_position_embeddings=CONTEXT,
    rope_scaling=YarnConfig(factor=3.0, original_max_position_embeddings=24),
    initializer_range=0.3,
)
QWEN = ModelConfig(
    name="qwen",
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    max_position_embeddings=CONTEXT,
    initializer_range=0.3,
    tie_word_embeddings=True,
)
CONFIGS = {
    "deepseek": DEEPSEEK,
    "deepseek, no query latent": dataclasses.replace(
        DEEPSEEK, mla=dataclasses.replace(DEEPSEEK.mla, q_lora_rank=None), rope_scaling=None
    ),
    "qwen": QWEN,
    "deepseek v2": dataclasses.replace(
        DEEPSEEK,
        name="deepseek v2",
        moe=dataclasses.replace(
            DEEPSEEK.moe,
            scoring_func="softmax",
            topk_method="group_limited_greedy",
            norm_topk_prob=False,
            routed_scaling_factor=1.0,
        ),
        num_nextn_predict_layers=0,
    ),
    "qwen3, experts": dataclasses.replace(
        QWEN,
        name="qwen3, experts",
        gqa=GqaConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
        moe=MoeConfig(
            n_routed_experts=8,
            n_shared_experts=0,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            scoring_func="softmax",
            topk_method="greedy",
            first_k_dense_replace=0,
        ),
        tie_word_embeddings=False,
    ),
    "llama, biases": dataclasses.replace(
        QWEN,
        name="llama, biases",
        gqa=dataclasses.replace(QWEN.gqa, o_bias=True),
        rope_scaling=Llama3RopeConfig(
            factor=3.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=24
        ),
    ),
}


def build(config: ModelConfig, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Transformer:
    """A network with random weights, norms, projection biases and selection biases."""
    generator = torch.Generator().manual_seed(seed)
    network = initialise(Transformer(config), generator=generator)
    for name, parameter in network.named_parameters():
        if name.endswith((".bias", "q_norm.weight", "k_norm.weight")):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    for router in network.routers():
        router.bias.copy_(0.2 * torch.randn(router.bias.shape, generator=generator))
    return network.to(dtype)


def random_prompts(*lengths: int, seed: int = 3) -> list[list[int]]:
    """Prompts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def build_long(config: ModelConfig, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Transformer:
    """The same with a context of several blocks."""
    return build(dataclasses.replace(config, max_position_embeddings=320), dtype=dtype, seed=seed)


class WatchedRunner(TorchRunner):
    """Counts what it computes, checks that no two sequences write into one block, and can be told to give NaN
    for whoever's newest token has a certain id."""

    def __init__(self, model: Transformer, *, poison: int | None = None) -> None:
        super().__init__(model)
        self.poison, self.num_tokens, self.widths = poison, 0, []

    def forward(self, batch: Batch) -> Tensor:
        self.num_tokens += len(batch.ids)
        self.widths.append(len(batch.starts) - 1)
        check_batch(batch, self.cache.entries.shape[1])
        logits = super().forward(batch)
        if self.poison is not None:
            logits = logits.clone()
            logits[batch.ids[batch.outputs] == self.poison] = torch.nan
        return logits


def check_batch(batch: Batch, num_blocks: int) -> None:
    """Tokens of a sequence stand in a row, and no two sequences write into one block."""
    writers: dict[int, int] = {}
    for s, (start, end) in enumerate(itertools.pairwise(batch.starts.tolist())):
        positions = batch.positions[start:end].tolist()
        assert positions == list(range(positions[0], positions[0] + end - start))
        assert all(0 <= block < num_blocks for block in batch.tables[s].tolist())
        for position in positions:
            assert writers.setdefault(int(batch.tables[s, position // BLOCK]), s) == s
