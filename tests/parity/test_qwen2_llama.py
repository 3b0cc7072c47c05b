"""Our network computes what transformers' Qwen2 and Llama models compute, given the same weights."""

import dataclasses

import pytest
import torch
from weights import assert_gradients_match, load, randomise

from tenth.model.config import GqaConfig, ModelConfig, YarnConfig
from tenth.model.hf_config import from_hf, to_hf
from tenth.model.transformer import Transformer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

# Two float32 passes over these widths each stand about 1e-5 off a float64 one. transformers keeps RMSNorm and
# softmax (and its router) in float32 even for float64 weights, which leaves 4e-6 there.
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-5}

LLAMA = ModelConfig(
    name="llama",
    vocab_size=64,
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
CASES = {
    "llama": LLAMA,
    "llama, tied, odd widths": dataclasses.replace(
        LLAMA, hidden_size=52, gqa=GqaConfig(num_key_value_heads=1, head_dim=18), tie_word_embeddings=True
    ),
    "qwen2": QWEN,
    "qwen2, tied, heads wider than the model": dataclasses.replace(
        QWEN, gqa=GqaConfig(num_key_value_heads=4, head_dim=32, qkv_bias=True), tie_word_embeddings=True
    ),
    "qwen2 with yarn": dataclasses.replace(
        QWEN, rope_scaling=YarnConfig(factor=8.0, original_max_position_embeddings=32, mscale_all_dim=0.0)
    ),
}


def build_peer(config: ModelConfig):
    values = to_hf(config, dtype="float32")
    kinds = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM)}
    kinds["qwen2"] = (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
    config_class, model_class = kinds[values["model_type"]]
    theirs = config_class(**values)
    theirs._attn_implementation = "eager"
    peer = model_class(theirs).eval()
    randomise(peer, seed=0)
    return peer


def token_ids(*, seed: int) -> torch.Tensor:
    return torch.randint(64, (2, 96), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_logits_are_equal(config, dtype):
    peer = build_peer(config).to(dtype)
    network = Transformer(config).to(dtype)
    load(network, peer.state_dict())
    ids = token_ids(seed=1)
    with torch.no_grad():
        theirs, ours = peer(ids).logits, network.logits(network(ids))
    assert theirs.abs().max() > 1  # else a tolerance in absolute terms would mean little
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_gradients_are_equal(config):
    peer = build_peer(config)
    network = Transformer(config)
    load(network, peer.state_dict())
    ids, targets = token_ids(seed=1), token_ids(seed=2)
    for logits in (peer(ids).logits, network.logits(network(ids))):
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    assert_gradients_match(network, peer)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_transformers_reads_our_config_and_we_read_what_it_writes(config):
    theirs = build_peer(config).config.to_dict()
    assert from_hf(theirs, name=config.name) == config
