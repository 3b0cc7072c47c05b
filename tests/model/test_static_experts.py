"""Experts in shapes that do not depend on the routing, against the loop over experts."""

import pytest
import torch

from tenth.model.config import MoeConfig
from tenth.model.experts import experts_reference, plan_dispatch
from tenth.model.moe import MoE
from tenth.model.router import Routing
from tenth.model.static_experts import is_static, run_experts_static


@pytest.mark.parametrize("num_tokens", [1, 3, 4, 40])  # of 8 experts and 2 per token: picked out, and all
def test_every_token_gets_the_weighted_sum_over_its_experts(num_tokens):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, gate_up, down, weights = draw(num_tokens, 6), draw(8, 10, 6), draw(8, 6, 5), draw(num_tokens, 2)
    expert_ids = torch.stack([torch.randperm(8, generator=generator)[:2] for _ in range(num_tokens)])
    routing = Routing(expert_ids=expert_ids, weights=weights, scores=draw(num_tokens, 8))
    found = run_experts_static(x, routing, gate_up, down)
    wanted = experts_reference(x, weights, plan_dispatch(expert_ids, num_experts=8), gate_up, down)
    torch.testing.assert_close(found, wanted)


@torch.inference_mode()
def test_a_layer_is_the_same_function_either_way(monkeypatch):
    config = MoeConfig(
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        n_group=2,
        topk_group=1,
        routed_scaling_factor=1.5,
    )
    layer = MoE(32, config).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.normal_(generator=generator)
    x = torch.randn(5, 32, dtype=torch.float64, generator=generator)
    wanted, _ = layer(x)
    monkeypatch.setattr("tenth.model.moe.is_static", lambda _: True)
    torch.testing.assert_close(layer(x)[0], wanted)


def test_prompts_training_and_the_cpu_keep_the_grouped_form():
    few, many = torch.empty(256, 4, device="meta"), torch.empty(257, 4, device="meta")
    with torch.inference_mode():
        assert is_static(few)
        assert not is_static(many)
        assert not is_static(torch.empty(2, 4))
    assert not is_static(few)
