"""Our network computes what transformers' Qwen3 models, dense and with experts, compute."""

import dataclasses

import pytest
import torch
from peers import (
    VOCABULARY,
    assert_generation_matches,
    assert_logits_match,
    assert_padded_logits_match,
    build_pair,
    build_peer,
    token_ids,
)
from weights import assert_gradients_match

from tenth.model.config import GqaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.hf_config import from_hf

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

every_config = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@every_config
def test_logits_are_equal(config, dtype):
    assert_logits_match(build_pair(config, dtype=dtype))


@pytest.mark.parametrize("is_left", [True, False], ids=["left", "right"])
@every_config
def test_logits_are_equal_in_padded_batches(config, is_left):
    assert_padded_logits_match(build_pair(config), is_left=is_left)


@every_config
def test_greedy_generation_is_equal_and_its_cached_steps_are_the_whole_pass(config):
    assert_generation_matches(build_pair(config))


@every_config
def test_gradients_are_equal(config):
    pair = build_pair(config)
    ids, targets = token_ids(seed=1), token_ids(seed=2)
    for logits in (pair.peer(ids).logits, pair.network.logits(pair.network(ids))):
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    assert_gradients_match(pair.network, pair.peer)


@every_config
def test_transformers_reads_our_config_and_we_read_what_it_writes(config):
    assert from_hf(build_peer(config).config.to_dict(), name=config.name) == config


@pytest.mark.parametrize("part", ["q_norm", "k_norm"])
def test_the_comparison_would_notice_a_missing_norm(part):
    pair, ids = build_pair(QWEN3), token_ids()
    with torch.no_grad():
        before = pair.network(ids)
        for layer in pair.network.layers:
            getattr(layer.attention, part).weight.fill_(1.0)
        assert (pair.network(ids) - before).abs().max() > 0.01
