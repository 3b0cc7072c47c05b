"""A whole expert layer: equation 12 term by term, its balance statistics, and where its gradients go."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from small_models import MOE
from twins import distance, draw

from tenth.model.moe import MoE
from tenth.model.router import sequence_balance_loss

HIDDEN = 32


def build_layer(config=MOE, dtype=torch.float64):
    layer = MoE(HIDDEN, config)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = 0.3 * draw(*parameter.shape, seed=seed)
    layer.router.bias.copy_(0.2 * draw(config.n_routed_experts, seed=50))
    return layer.to(dtype)


def ffn(u, gate_up, down):
    gate, up = (gate_up @ u).chunk(2)
    return down @ (F.silu(gate) * up)


def paper(layer, u, config):
    """Equations 12-16 of DeepSeek-V3 section 2.1.2 for one token. u (D,) -> (D,)"""
    scores = torch.sigmoid(layer.router.weight @ u)
    biased = scores + layer.router.bias
    per_group = config.n_routed_experts // config.n_group
    marks = [biased[g * per_group : (g + 1) * per_group].topk(2).values.sum() for g in range(config.n_group)]
    is_open = set(torch.stack(marks).topk(config.topk_group).indices.tolist())
    ranked = sorted(range(len(biased)), key=lambda i: -biased[i].item())
    chosen = [i for i in ranked if i // per_group in is_open][: config.num_experts_per_tok]
    total = sum(scores[i] for i in chosen)
    routed = sum(
        config.routed_scaling_factor * scores[i] / total * ffn(u, layer.gate_up[i], layer.down[i])
        for i in chosen
    )
    shared = ffn(u, layer.shared.gate_up.weight, layer.shared.down.weight) if layer.shared is not None else 0
    return routed + shared


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_the_layer_is_shared_experts_plus_weighted_routed_experts(shared):
    config = dataclasses.replace(MOE, n_shared_experts=shared)
    layer = build_layer(config)
    x = draw(2, 9, HIDDEN).double()
    out, _ = layer(x)
    wanted = torch.stack([paper(layer, u, config) for u in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(out, wanted)


def test_float32_equals_float64_with_every_gradient():
    grads = {}
    for dtype in (torch.float32, torch.float64):
        layer = build_layer(dtype=dtype)
        x = draw(2, 33, HIDDEN).to(dtype).requires_grad_()
        out, balance = layer(x, measure=True)
        (out * draw(2, 33, HIDDEN, seed=9).to(dtype)).sum().add(balance.loss * 10).backward()
        grads[dtype] = {"x": x.grad, "out": out, **{name: p.grad for name, p in layer.named_parameters()}}
    for name, wanted in grads[torch.float64].items():
        assert distance(grads[torch.float32][name], wanted) < 1e-5, name


def test_a_tokens_output_does_not_depend_on_its_companions():
    layer = build_layer()
    x = draw(3, 11, HIDDEN).double()
    whole, _ = layer(x)
    alone = torch.stack([layer(row[None])[0][0] for row in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(whole, alone, rtol=1e-12, atol=1e-12)


def test_no_token_is_dropped_however_lopsided_the_choice():
    layer = build_layer()
    layer.router.bias.copy_(torch.tensor([9.0, 9, 9, 0, 0, 0, 0, 0]))  # everybody wants experts 0, 1, 2
    x = draw(2, 33, HIDDEN).double()
    out, balance = layer(x, measure=True)
    assert balance.counts.tolist() == [66, 66, 66, 0, 0, 0, 0, 0]
    torch.testing.assert_close(out[1, 32], paper(layer, x[1, 32], MOE))


def test_balance_is_measured_only_when_asked():
    layer = build_layer()
    x = draw(2, 9, HIDDEN).double()
    assert layer(x)[1] is None
    _, balance = layer(x, measure=True)
    assert int(balance.counts.sum()) == 2 * 9 * 3
    scores = torch.sigmoid(x @ layer.router.weight.T)
    torch.testing.assert_close(balance.loss, sequence_balance_loss(scores, None, config=MOE))


def test_padding_tokens_are_left_out_of_the_counts():
    layer = build_layer()
    x = draw(2, 9, HIDDEN).double()
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 5:] = False
    _, balance = layer(x, token_mask=mask, measure=True)
    _, first = layer(x[:1, :5], measure=True)
    _, second = layer(x[1:], measure=True)
    assert torch.equal(balance.counts, first.counts + second.counts)
    torch.testing.assert_close(balance.loss, (first.loss + second.loss) / 2)


def test_decoding_one_token_per_row_is_the_same_layer():
    layer = build_layer()
    x = draw(5, HIDDEN).double()
    out, _ = layer(x)
    assert out.shape == (5, HIDDEN)
    torch.testing.assert_close(out, layer(x[:, None])[0][:, 0])
