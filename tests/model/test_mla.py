"""MLA: the paper's equations written out per head, and the absorbed form equal to the expanded one."""

import dataclasses

import pytest
import torch
from small_models import DEEPSEEK, MLA, ODD_MLA, YARN, PlainCache, parts_of
from twins import distance, draw

from tenth.model.attention import Sequence, Step
from tenth.model.mla import LatentAttention
from tenth.model.rope import active_scaling, apply_rope, rope_tables

TIME, BATCH = 33, 2
CONFIGS = {
    "query latent": DEEPSEEK,
    "no query latent": dataclasses.replace(DEEPSEEK, mla=dataclasses.replace(MLA, q_lora_rank=None)),
    "yarn": dataclasses.replace(DEEPSEEK, rope_scaling=YARN),
    "odd widths": dataclasses.replace(DEEPSEEK, mla=ODD_MLA),
    "values wider than keys": dataclasses.replace(
        DEEPSEEK,
        mla=dataclasses.replace(
            MLA, qk_nope_head_dim=16, qk_rope_head_dim=32, v_head_dim=64, kv_lora_rank=24
        ),
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def build_layer(config, dtype=torch.float64):
    layer = LatentAttention(config, 0)
    for seed, (name, parameter) in enumerate(sorted(layer.named_parameters())):
        is_norm = "norm" in name
        parameter.data = (1 if is_norm else 0) + 0.3 * draw(*parameter.shape, seed=seed)
    return layer.to(dtype)


def tables(config, dtype=torch.float64):
    yarn = active_scaling(config.rope_scaling, max_position_embeddings=config.max_position_embeddings)
    cos, sin = rope_tables(config.rope_dim, TIME, theta=config.rope_theta, scaling=yarn)
    return cos[None].to(dtype), sin[None].to(dtype)


def run_expanded(layer, x, config):
    cos, sin = tables(config, x.dtype)
    return layer(x, Sequence(cos=cos, sin=sin, starts=None))


def run_absorbed(layer, x, config, *, prompt=0):
    cos, sin = tables(config, x.dtype)
    batch = len(x)
    cache = PlainCache(layers=1, sequences=batch, positions=TIME)
    outs = []
    for part in parts_of(TIME, prompt):
        cache.step(torch.tensor([part] * batch))
        step = Step(cos=cos[0, part].repeat(batch, 1), sin=sin[0, part].repeat(batch, 1), cache=cache)
        outs.append(layer.decode(x[:, part].flatten(0, 1), step).unflatten(0, (batch, -1)))
    return torch.cat(outs, 1), cache


def norm(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def paper(layer, h, config):
    """Equations 1-11 of DeepSeek-V3 section 2.1.1, one head and one query at a time. h (T, D) -> (T, D)"""
    mla, eps = config.mla, config.rms_norm_eps
    w_q, w_dkv, w_kr = layer.qkv_a.weight.split([layer.q_rows, mla.kv_lora_rank, mla.qk_rope_head_dim])
    c_kv = norm(h @ w_dkv.T, layer.kv_norm.weight, eps)  # eq. 1
    cos, sin = tables(config)

    def rope(x):
        return apply_rope(x[None, :, None], cos, sin)[0, :, 0]

    k_rope = rope(h @ w_kr.T)  # eq. 3: one for all heads
    q = h @ w_q.T
    if mla.q_lora_rank is not None:
        q = norm(q, layer.q_norm.weight, eps) @ layer.q_b.weight.T  # eq. 6-8
    heads = []
    for head in range(config.num_attention_heads):
        q_head = q[:, head * mla.qk_head_dim : (head + 1) * mla.qk_head_dim]
        q_nope, q_rope = q_head[:, : mla.qk_nope_head_dim], rope(q_head[:, mla.qk_nope_head_dim :])
        width = mla.qk_nope_head_dim + mla.v_head_dim
        w_kv = layer.kv_b.weight[head * width : (head + 1) * width]
        k_nope = c_kv @ w_kv[: mla.qk_nope_head_dim].T  # eq. 2
        values = c_kv @ w_kv[mla.qk_nope_head_dim :].T  # eq. 5
        rows = []
        for t in range(len(h)):  # eq. 10
            scores = (q_nope[t] @ k_nope[: t + 1].T + q_rope[t] @ k_rope[: t + 1].T) * layer.scale
            rows.append(scores.softmax(-1) @ values[: t + 1])
        heads.append(torch.stack(rows))
    return torch.cat(heads, -1) @ layer.o.weight.T  # eq. 11


@every_config
def test_the_expanded_form_is_the_papers(config):
    layer = build_layer(config)
    x = draw(1, TIME, config.hidden_size).double()
    torch.testing.assert_close(run_expanded(layer, x, config)[0], paper(layer, x[0], config))


@every_config
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)]
)
@pytest.mark.parametrize("prompt", [0, 17])
def test_absorbed_decoding_equals_the_expanded_pass(config, dtype, tolerance, prompt):
    layer = build_layer(config, dtype)
    x = draw(BATCH, TIME, config.hidden_size).to(dtype)
    with torch.no_grad():
        absorbed, _ = run_absorbed(layer, x, config, prompt=prompt)
        assert distance(absorbed, run_expanded(layer, x, config)) < tolerance


@every_config
def test_gradients_of_the_expanded_form_equal_float64(config):
    grads = {}
    for dtype in (torch.float32, torch.float64):
        layer = build_layer(config, dtype)
        x = draw(BATCH, TIME, config.hidden_size).to(dtype).requires_grad_()
        run_expanded(layer, x, config).backward(draw(BATCH, TIME, config.hidden_size, seed=7).to(dtype))
        grads[dtype] = {"x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    for name, wanted in grads[torch.float64].items():
        assert distance(grads[torch.float32][name], wanted) < 1e-5, name


def test_a_position_costs_the_latent_and_one_rotary_key():
    layer = build_layer(DEEPSEEK)
    x = draw(BATCH, TIME, 32).double()
    _, cache = run_absorbed(layer, x, DEEPSEEK, prompt=5)
    assert cache.layers[0].shape[-1] == 16 + 16  # kv_lora_rank + qk_rope_head_dim, however many heads


def test_prompts_and_tokens_leave_the_same_entries_behind():
    layer = build_layer(DEEPSEEK)
    x = draw(BATCH, TIME, 32).double()
    _, one_by_one = run_absorbed(layer, x, DEEPSEEK)
    _, at_once = run_absorbed(layer, x, DEEPSEEK, prompt=TIME)
    torch.testing.assert_close(one_by_one.layers[0], at_once.layers[0], rtol=1e-12, atol=1e-12)


def test_the_cached_latent_is_the_normed_one():
    layer = build_layer(DEEPSEEK)
    x = draw(1, TIME, 32).double()
    _, cache = run_absorbed(layer, x, DEEPSEEK, prompt=TIME)
    latent = x @ layer.qkv_a.weight[24:40].T  # after the 24 rows of the query latent
    cached = cache.layers[0].flatten(0, 1)[None, :TIME, :16]
    torch.testing.assert_close(cached, norm(latent, layer.kv_norm.weight, 1e-6))
