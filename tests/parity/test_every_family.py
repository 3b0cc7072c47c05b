"""What every family has to pass, given the same weights: transformers' logits, answers, gradients, config."""

import dataclasses

import pytest
import test_deepseek_v2
import test_deepseek_v3
import test_qwen3
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

from tenth.model.config import GqaConfig, ModelConfig, YarnConfig
from tenth.model.hf_config import from_hf

pytestmark = pytest.mark.parity

LLAMA = ModelConfig(
    name="llama",
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=16),
    max_position_embeddings=256,
    rope_theta=500000.0,
    rms_norm_eps=1e-5,
)
QWEN = dataclasses.replace(
    LLAMA, name="qwen2", gqa=dataclasses.replace(LLAMA.gqa, qkv_bias=True), rope_theta=1e6
)
PLAIN = {
    "llama": LLAMA,
    "llama, tied, odd widths": dataclasses.replace(
        LLAMA, hidden_size=52, gqa=GqaConfig(num_key_value_heads=1, head_dim=18), tie_word_embeddings=True
    ),
    "llama with biases": dataclasses.replace(
        LLAMA, gqa=dataclasses.replace(LLAMA.gqa, qkv_bias=True, o_bias=True)
    ),
    "qwen2": QWEN,
    "qwen2, tied, heads wider than the model": dataclasses.replace(
        QWEN, gqa=GqaConfig(num_key_value_heads=4, head_dim=32, qkv_bias=True), tie_word_embeddings=True
    ),
    "qwen2 with yarn": dataclasses.replace(
        QWEN, rope_scaling=YarnConfig(factor=8.0, original_max_position_embeddings=32, mscale_all_dim=0.0)
    ),
}
FAMILIES = {
    "deepseek v2": test_deepseek_v2.CASES,
    "deepseek v3": test_deepseek_v3.CASES,
    "llama and qwen2": PLAIN,
    "qwen3": test_qwen3.CASES,
}
every_config = pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=f"{family}: {name}")
        for family, cases in FAMILIES.items()
        for name, config in cases.items()
    ],
)


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
