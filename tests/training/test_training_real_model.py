"""The invariances of the tiny stand-in, once more with the real network: experts, latent attention, RoPE."""

import math

import pytest
import torch
from test_training_grpo import some_rollouts

from tenth.model.config import MlaConfig, ModelConfig, MoeConfig
from tenth.model.transformer import Transformer, initialise
from tenth.training.batches import Layout
from tenth.training.grpo import grpo_gradients, weigh_rollouts
from tenth.training.grpo_loss import GrpoConfig
from tenth.training.optim import OptimConfig, WeightUpdater, split_parameters

SMALL = ModelConfig(
    name="small",
    vocab_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    mla=MlaConfig(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16),
    moe=MoeConfig(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16),
    num_nextn_predict_layers=1,
    max_position_embeddings=64,
    initializer_range=0.2,
)


def build(*, seed=0):
    return initialise(Transformer(SMALL), generator=torch.Generator().manual_seed(seed)).double()


def gradients(items, *, micro_batch_tokens, layout):
    policy = build()
    updater = WeightUpdater(policy, OptimConfig(max_grad_norm=math.inf))
    config = GrpoConfig(beta=0.1)
    grpo_gradients(
        policy, build(seed=1), updater, items, config, micro_batch_tokens=micro_batch_tokens, layout=layout
    )
    return {name: param.grad for name, param in policy.named_parameters()}


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("micro_batch_tokens", [1, 30, 1000])
def test_gradients_of_the_real_network_do_not_know_how_the_minibatch_was_laid_out(layout, micro_batch_tokens):
    items = weigh_rollouts(some_rollouts(11), GrpoConfig(beta=0.1))
    whole = gradients(items, micro_batch_tokens=10_000, layout=Layout.PAD_RIGHT)
    cut = gradients(items, micro_batch_tokens=micro_batch_tokens, layout=layout)
    for name, grad in whole.items():
        if name.startswith("mtp."):
            assert grad is None  # nothing asks the draft module during RL, so nothing moves it
        else:
            torch.testing.assert_close(cut[name], grad, rtol=1e-9, atol=1e-12)


def test_the_real_networks_parameters_fall_into_the_groups_they_belong_to():
    groups = split_parameters(build().named_parameters())
    tables = {name for name in groups.tables if not name.endswith("router.weight")}
    assert tables == {"embed.weight", "head.weight"}
    assert sum(name.endswith("router.weight") for name in groups.tables) == 2  # one main layer, one MTP layer
    assert all(name.endswith("norm.weight") for name in groups.vectors)
    assert any(param.ndim == 3 for param in groups.matrices.values())
