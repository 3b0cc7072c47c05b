"""Our network computes what transformers' DeepseekV2ForCausalLM computes, given the same weights."""

import dataclasses

import pytest
import torch
from peers import VOCABULARY, build_pair, token_ids

from tenth.model.config import MlaConfig, ModelConfig, MoeConfig, YarnConfig

pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

# DeepSeek-V2: a query latent, groups marked by their best expert, a large scaling factor, YaRN past its
# threshold.
V2 = ModelConfig(
    name="v2",
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    mla=MlaConfig(q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=32),
    moe=MoeConfig(
        n_routed_experts=16,
        n_shared_experts=2,
        num_experts_per_tok=4,
        moe_intermediate_size=32,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=16.0,
        norm_topk_prob=False,
        scoring_func="softmax",
        topk_method="group_limited_greedy",
    ),
    max_position_embeddings=256,
    rope_scaling=YarnConfig(
        factor=8.0, original_max_position_embeddings=32, mscale=0.707, mscale_all_dim=0.707
    ),
)
CASES = {
    "v2": V2,
    "v2-lite": dataclasses.replace(
        V2,
        mla=dataclasses.replace(V2.mla, q_lora_rank=None),
        moe=dataclasses.replace(
            V2.moe, n_group=1, topk_group=1, topk_method="greedy", routed_scaling_factor=1.0
        ),
    ),
    "tied, no yarn": dataclasses.replace(V2, tie_word_embeddings=True, rope_scaling=None),
}


def test_the_comparison_would_notice_the_groups_and_v3s_way_to_mark_them():
    ids = token_ids()
    pair = build_pair(V2)
    for other in (
        dataclasses.replace(V2.moe, n_group=1, topk_group=1, topk_method="greedy"),
        dataclasses.replace(V2.moe, topk_method="noaux_tc"),
    ):
        with torch.no_grad():
            before = pair.network(ids)
            for router in pair.network.routers():
                router.config = other
                router.bias.zero_()
            assert (pair.network(ids) - before).abs().max() > 0.01
        pair = build_pair(V2)
