"""Our network computes what transformers' DeepseekV3ForCausalLM computes, given the same weights."""

import dataclasses

import pytest
import torch
from peers import (
    TOKENS,
    VOCABULARY,
    assert_generation_matches,
    assert_logits_match,
    build_pair,
    build_peer,
    token_ids,
)
from weights import load, randomise

from tenth.model.config import MlaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.router import choose_experts
from tenth.model.transformer import Transformer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

WIDE = MlaConfig(q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=32)
MOE = MoeConfig(
    n_routed_experts=16,
    n_shared_experts=2,
    num_experts_per_tok=4,
    moe_intermediate_size=24,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
)
# Everything at once: query latent, YaRN past its threshold, a dense first layer, groups, a selection bias.
FULL = ModelConfig(
    name="full",
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    mla=WIDE,
    moe=MOE,
    max_position_embeddings=256,
    rope_scaling=YarnConfig(factor=8.0, original_max_position_embeddings=32),
)
CASES = {
    "full": FULL,
    "no query latent": dataclasses.replace(FULL, mla=dataclasses.replace(WIDE, q_lora_rank=None)),
    "no yarn": dataclasses.replace(FULL, rope_scaling=None),
    "v2 mscale": dataclasses.replace(
        FULL, rope_scaling=dataclasses.replace(FULL.rope_scaling, mscale=0.707, mscale_all_dim=0.707)
    ),
    "one group, plain weights": dataclasses.replace(
        FULL, moe=dataclasses.replace(MOE, n_group=1, topk_group=1, norm_topk_prob=False)
    ),
    "odd widths": dataclasses.replace(  # none of which the native kernels take
        FULL,
        hidden_size=50,
        mla=MlaConfig(q_lora_rank=7, kv_lora_rank=5, qk_nope_head_dim=9, qk_rope_head_dim=6, v_head_dim=11),
        moe=dataclasses.replace(MOE, moe_intermediate_size=13),
    ),
    "dense": dataclasses.replace(FULL, moe=None),
    "tied": dataclasses.replace(FULL, tie_word_embeddings=True),
    "an epsilon that only the wide norms have": dataclasses.replace(FULL, rms_norm_eps=0.1),
}


def build_ours(config: ModelConfig, peer) -> Transformer:
    network = Transformer(config)
    load(network, peer.state_dict())
    return network


def our_logits(config: ModelConfig, peer, ids: torch.Tensor) -> torch.Tensor:
    network = build_ours(config, peer)
    with torch.no_grad():
        return network.logits(network(ids))


def test_rotary_rows_can_lie_in_halves_there_too():
    pair = build_pair(FULL, is_interleaved=False)
    assert not pair.peer.config.rope_interleave
    assert_logits_match(pair)
    assert_generation_matches(pair)


@pytest.mark.parametrize(
    "without",
    [
        dataclasses.replace(FULL, rope_scaling=None),
        dataclasses.replace(FULL, rope_scaling=dataclasses.replace(FULL.rope_scaling, factor=4.0)),
        dataclasses.replace(FULL, moe=dataclasses.replace(MOE, n_group=1, topk_group=1)),
        dataclasses.replace(FULL, moe=dataclasses.replace(MOE, routed_scaling_factor=1.0)),
        dataclasses.replace(FULL, moe=dataclasses.replace(MOE, norm_topk_prob=False)),
    ],
    ids=["yarn", "yarn factor", "groups", "scaling factor", "renormalisation"],
)
def test_the_comparison_would_notice_a_missing_part(without):
    peer, ids = build_peer(FULL), token_ids()
    difference = our_logits(without, peer, ids) - our_logits(FULL, peer, ids)
    assert difference.abs().max() > 0.01


def test_the_selection_bias_decides_some_choices():
    scores = torch.sigmoid(torch.randn(TOKENS, 16, generator=torch.Generator().manual_seed(2)))
    bias = build_ours(FULL, build_peer(FULL)).routers()[0].bias
    with_bias, without = (choose_experts(scores, b, config=MOE).sort().values for b in (bias, bias * 0))
    assert (with_bias != without).any()


def test_the_mtp_module_equals_transformers_mtp_layer():
    modeling = transformers.models.deepseek_v3.modeling_deepseek_v3
    config = dataclasses.replace(FULL, num_nextn_predict_layers=1)
    peer = build_peer(config)
    layer = transformers.modeling_layers.MtpLayer(
        peer.config, modeling.DeepseekV3DecoderLayer, modeling.DeepseekV3RMSNorm, config.num_hidden_layers
    ).eval()
    randomise(layer, seed=5)
    network = Transformer(config)
    load(network, {**peer.state_dict(), **{f"mtp.0.{k}": v for k, v in layer.state_dict().items()}})

    ids = token_ids()
    positions = torch.arange(TOKENS - 1)[None]
    causal = torch.full((TOKENS - 1, TOKENS - 1), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        hidden = peer.model(ids[:, :-1]).last_hidden_state
        theirs = layer(
            peer.model.embed_tokens(ids[:, 1:]),
            hidden,
            position_embeddings=peer.model.rotary_emb(hidden, positions),
            attention_mask=causal,
            position_ids=positions,
            past_key_values=None,
        )
        ours = network.forward_training(ids, depth=1)
    torch.testing.assert_close(ours.hidden, hidden, atol=5e-5, rtol=0)
    torch.testing.assert_close(ours.mtp_hidden[0], theirs, atol=5e-5, rtol=0)
