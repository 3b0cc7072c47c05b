"""Every kind of rope scaling turns as transformers turns it: frequencies, sizes, the network around."""

import dataclasses

import pytest
import torch
from peers import (
    VOCABULARY,
    assert_generation_matches,
    assert_logits_match,
    build_pair,
    build_peer,
    token_ids,
)

from tenth.model.config import GqaConfig, LinearRopeConfig, Llama3RopeConfig, ModelConfig, YarnConfig
from tenth.model.hf_config import from_hf
from tenth.model.rope import rope_frequencies

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

PLAIN = ModelConfig(
    name="llama",
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=32),
    max_position_embeddings=256,
    rope_theta=10000.0,
)
YARN = YarnConfig(factor=8.0, original_max_position_embeddings=32, mscale_all_dim=0.0)
SCALINGS = {
    "linear": LinearRopeConfig(factor=4.0),
    "llama 3": Llama3RopeConfig(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    ),
    "yarn": YARN,
    "yarn, a size of its own": dataclasses.replace(YARN, attention_factor=0.8),
    "yarn, other turns": dataclasses.replace(YARN, beta_fast=8.0, beta_slow=0.5),
    "yarn, not truncated": dataclasses.replace(YARN, truncate=False),
}
every_scaling = pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())


@every_scaling
def test_logits_and_generation_are_equal_past_the_original_context(scaling):
    pair = build_pair(dataclasses.replace(PLAIN, rope_scaling=scaling))
    assert_logits_match(pair)
    assert_generation_matches(pair)


@every_scaling
def test_the_comparison_would_notice_a_missing_scaling(scaling):
    scaled, plain = (build_pair(dataclasses.replace(PLAIN, rope_scaling=s)) for s in (scaling, None))
    ids = token_ids()
    with torch.no_grad():
        assert (scaled.network(ids) - plain.network(ids)).abs().max() > 0.01


@every_scaling
def test_both_spellings_of_the_file_read_as_the_same(scaling):
    config = dataclasses.replace(PLAIN, rope_scaling=scaling)
    later = build_peer(config).config.to_dict()
    assert "rope_parameters" in later
    assert "rope_theta" not in later
    assert from_hf(later, name=config.name) == config


@pytest.mark.parametrize(
    ("theta", "scaling"),
    [
        (
            500000.0,  # Llama-3.1
            Llama3RopeConfig(
                factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
            ),
        ),
        (1e6, YarnConfig(factor=4.0, original_max_position_embeddings=32768, mscale_all_dim=0.0)),  # Qwen2.5
        (1e4, LinearRopeConfig(factor=2.0)),
    ],
    ids=["llama 3", "yarn", "linear"],
)
def test_published_frequencies_are_equal(theta, scaling):
    config = dataclasses.replace(
        PLAIN,
        gqa=GqaConfig(num_key_value_heads=2, head_dim=128),
        max_position_embeddings=131072,
        rope_theta=theta,
        rope_scaling=scaling,
    )
    theirs = build_peer(config).model.rotary_emb.inv_freq
    ours = rope_frequencies(128, theta=theta, scaling=scaling)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=0)


def test_scores_of_grouped_queries_are_not_corrected_by_mscale():
    # With both mscales a file sizes the rotation by their ratio; only MLA corrects its softmax as well.
    keys = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
    peer = build_peer(PLAIN, rope_scaling={**keys, "mscale": 1.0, "mscale_all_dim": 0.707})
    config = from_hf(peer.config.to_dict(), name="llama")
    assert config.rope_scaling.attention_factor == pytest.approx(peer.model.rotary_emb.attention_scaling)
    assert config.rope_scaling.mscale_all_dim == 0.0
