"""Our network computes what transformers' Qwen3 models, dense and with experts, compute."""

import dataclasses

import pytest
import torch
from peers import VOCABULARY, build_pair, token_ids

from tenth.model.config import GqaConfig, ModelConfig, MoeConfig, YarnConfig

pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

QWEN3 = ModelConfig(
    name="qwen3",
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
    max_position_embeddings=256,
    rope_theta=1e6,
)
EXPERTS = dataclasses.replace(
    QWEN3,
    name="qwen3_moe",
    moe=MoeConfig(
        n_routed_experts=16,
        n_shared_experts=0,
        num_experts_per_tok=4,
        moe_intermediate_size=32,
        scoring_func="softmax",
        topk_method="greedy",
        first_k_dense_replace=0,
    ),
)
YARN = YarnConfig(factor=8.0, original_max_position_embeddings=32, mscale_all_dim=0.0)
CASES = {
    "qwen3": QWEN3,
    "qwen3, tied, yarn, another epsilon": dataclasses.replace(
        QWEN3, tie_word_embeddings=True, rope_scaling=YARN, rms_norm_eps=0.1
    ),
    "qwen3, biases, odd widths": dataclasses.replace(
        QWEN3,
        hidden_size=52,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=18, qkv_bias=True, o_bias=True, qk_norm=True),
    ),
    "experts": EXPERTS,
    "experts, plain weights, tied, yarn": dataclasses.replace(
        EXPERTS,
        moe=dataclasses.replace(EXPERTS.moe, norm_topk_prob=False),
        tie_word_embeddings=True,
        rope_scaling=YARN,
    ),
}


@pytest.mark.parametrize("part", ["q_norm", "k_norm"])
def test_the_comparison_would_notice_a_missing_norm(part):
    pair, ids = build_pair(QWEN3), token_ids()
    with torch.no_grad():
        before = pair.network(ids)
        for layer in pair.network.layers:
            getattr(layer.attention, part).weight.fill_(1.0)
        assert (pair.network(ids) - before).abs().max() > 0.01
