"""Grouped-query attention: one head at a time by hand, and decoding equal to the whole pass."""

import dataclasses

import pytest
import torch
from small_models import QWEN, PlainCache, parts_of
from twins import distance, draw

from tenth.model.attention import GroupedQueryAttention, Sequence, Step
from tenth.model.config import GqaConfig
from tenth.model.rope import apply_rope, rope_tables

TIME, BATCH = 33, 2
CONFIGS = {
    "4 heads share 2": QWEN,
    "4 heads share 1": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=1, head_dim=16)),
    "4 heads, 4 keys": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=4, head_dim=32)),
    "odd widths": dataclasses.replace(QWEN, gqa=GqaConfig(num_key_value_heads=2, head_dim=10, qkv_bias=True)),
    "normed heads": dataclasses.replace(
        QWEN, gqa=GqaConfig(num_key_value_heads=2, head_dim=16, qk_norm=True, o_bias=True)
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def build_layer(config, dtype=torch.float64):
    layer = GroupedQueryAttention(config, 0)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = 0.3 * draw(*parameter.shape, seed=seed)
    return layer.to(dtype)


def tables(config, dtype=torch.float64):
    cos, sin = rope_tables(config.rope_dim, TIME, theta=config.rope_theta, scaling=None)
    return cos[None].to(dtype), sin[None].to(dtype)


def run_whole(layer, x, config):
    cos, sin = tables(config, x.dtype)
    return layer(x, Sequence(cos=cos, sin=sin, starts=None))


def by_hand(layer, h, config):
    """Every query head with its group's key head. h (T, D) -> (T, D)"""
    width, heads, groups = config.gqa.head_dim, config.num_attention_heads, config.gqa.num_key_value_heads
    rows = h @ layer.qkv.weight.T + (layer.qkv.bias if config.gqa.qkv_bias else 0)
    parts = rows.unflatten(-1, (heads + 2 * groups, width))  # queries, then keys, then values
    cos, sin = tables(config)
    outs = []
    for head in range(heads):
        group = head // (heads // groups)
        q, k = parts[:, head], parts[:, heads + group]
        if config.gqa.qk_norm:
            q, k = (
                part * (part.square().mean(-1, keepdim=True) + config.rms_norm_eps) ** -0.5 * norm.weight
                for part, norm in ((q, layer.q_norm), (k, layer.k_norm))
            )
        q = apply_rope(q[None, :, None], cos, sin)[0, :, 0]
        k = apply_rope(k[None, :, None], cos, sin)[0, :, 0]
        v = parts[:, heads + groups + group]
        scores = (q @ k.T / width**0.5).masked_fill(~torch.ones(len(h), len(h)).tril().bool(), -torch.inf)
        outs.append(scores.softmax(-1) @ v)
    return torch.cat(outs, -1) @ layer.o.weight.T + (layer.o.bias if config.gqa.o_bias else 0)


@every_config
def test_every_head_attends_with_its_groups_keys(config):
    layer = build_layer(config)
    x = draw(1, TIME, config.hidden_size).double()
    torch.testing.assert_close(run_whole(layer, x, config)[0], by_hand(layer, x[0], config))


@every_config
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)]
)
@pytest.mark.parametrize("prompt", [0, 17])
def test_decoding_equals_the_whole_pass(config, dtype, tolerance, prompt):
    layer = build_layer(config, dtype)
    x = draw(BATCH, TIME, config.hidden_size).to(dtype)
    cos, sin = tables(config, dtype)
    cache = PlainCache(layers=1, sequences=BATCH, positions=TIME)
    outs = []
    with torch.no_grad():
        for part in parts_of(TIME, prompt):
            cache.step(torch.tensor([part] * BATCH))
            step = Step(cos=cos[0, part].repeat(BATCH, 1), sin=sin[0, part].repeat(BATCH, 1), cache=cache)
            outs.append(layer.decode(x[:, part].flatten(0, 1), step).unflatten(0, (BATCH, -1)))
        assert distance(torch.cat(outs, 1), run_whole(layer, x, config)) < tolerance
    assert cache.layers[0].shape[-1] == 2 * config.gqa.num_key_value_heads * config.gqa.head_dim


@every_config
def test_gradients_equal_float64(config):
    grads = {}
    for dtype in (torch.float32, torch.float64):
        layer = build_layer(config, dtype)
        x = draw(BATCH, TIME, config.hidden_size).to(dtype).requires_grad_()
        run_whole(layer, x, config).backward(draw(BATCH, TIME, config.hidden_size, seed=7).to(dtype))
        grads[dtype] = {"x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    for name, wanted in grads[torch.float64].items():
        assert distance(grads[torch.float32][name], wanted) < 1e-5, name
