"""Attention over whole sequences: the kernel against float64 with gradients; what masks let through."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import assert_twins, distance, draw

from tenth.model.attention_core import attention_reference, causal_attention, causal_mask
from tenth.model.rope import rope_tables

# Shapes: B batch, T time, H query heads, G key/value heads
MLA_LIKE = {"heads": 3, "groups": 3, "nope": 16, "rope": 16, "value": 32, "rope_heads": 1}
SHAPES = {
    "mla": MLA_LIKE,
    "mla, one head": {**MLA_LIKE, "heads": 1, "groups": 1},
    "gqa": {"heads": 6, "groups": 2, "nope": 0, "rope": 16, "value": 16, "rope_heads": 2},
    "mqa": {"heads": 4, "groups": 1, "nope": 0, "rope": 32, "value": 16, "rope_heads": 1},
    "mha": {"heads": 2, "groups": 2, "nope": 0, "rope": 48, "value": 48, "rope_heads": 2},
    "odd widths, no kernel": {"heads": 4, "groups": 2, "nope": 3, "rope": 6, "value": 5, "rope_heads": 2},
}
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def make_inputs(*, time, batch=2, heads, groups, nope, rope, value, rope_heads, dtype=torch.float32):
    return [
        draw(batch, time, heads, nope + rope, seed=1, dtype=dtype),
        draw(batch, time, groups, nope, seed=2, dtype=dtype),
        draw(batch, time, rope_heads, rope, seed=3, dtype=dtype),
        draw(batch, time, groups, value, seed=4, dtype=dtype),
    ]


def tables(time, rope):
    cos, sin = rope_tables(rope, time, theta=100.0, scaling=None)
    return cos[None], sin[None]


def random_starts(batch, time, *, seed=0):
    """Segments of random lengths, the way packed documents lie."""
    is_first = torch.rand(batch, time, generator=torch.Generator().manual_seed(seed)) < 0.1
    return torch.where(is_first, torch.arange(time), 0).cummax(1).values.to(torch.int32)


def check(inputs, cos, sin, *, starts=None, tolerance=None):
    scale = inputs[0].shape[-1] ** -0.5
    assert_twins(
        functools.partial(causal_attention, cos=cos, sin=sin, scale=scale, starts=starts),
        functools.partial(
            attention_reference, cos=cos.double(), sin=sin.double(), scale=scale, starts=starts
        ),
        inputs,
        tolerance=tolerance,
    )


@BOTH
@pytest.mark.parametrize("time", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_attention_equals_float64(shape, time, dtype):
    inputs = make_inputs(time=time, dtype=dtype, **shape)
    check(inputs, *tables(time, shape["rope"]), tolerance=None if dtype is torch.float32 else 2e-2)


@BOTH
@pytest.mark.parametrize("shape", [SHAPES["mla"], SHAPES["gqa"]], ids=["mla", "gqa"])
def test_segments_equal_float64(shape, dtype):
    inputs = make_inputs(time=70, dtype=dtype, **shape)
    starts = random_starts(2, 70)
    assert len(starts.unique()) > 6
    tolerance = None if dtype is torch.float32 else 2e-2
    check(inputs, *tables(70, shape["rope"]), starts=starts, tolerance=tolerance)


@settings(max_examples=15, deadline=None)
@given(time=st.integers(1, 80), seed=st.integers(0, 99), name=st.sampled_from(["mla", "gqa", "mqa"]))
def test_any_segments_at_any_length_equal_float64(time, seed, name):
    inputs = make_inputs(time=time, batch=1, **SHAPES[name])
    check(inputs, *tables(time, SHAPES[name]["rope"]), starts=random_starts(1, time, seed=seed))


def test_every_row_may_have_its_own_angles():
    shape = SHAPES["mla"]
    cos, sin = (table[0][torch.tensor([range(33), range(5, 38)])] for table in tables(40, shape["rope"]))
    assert cos.shape[0] == 2
    check(make_inputs(time=33, **shape), cos, sin)
    # tables that are slices of bigger ones
    wide_cos, wide_sin = (torch.cat([t, t], -1)[..., : t.shape[-1]] for t in (cos, sin))
    check(make_inputs(time=33, **shape), wide_cos, wide_sin)


@BOTH
def test_slices_of_one_product_are_read_where_they_lie(dtype):
    # as GQA makes them: [6 query, 2 key, 2 value] heads of 16
    rows = draw(2, 33, 10, 16, dtype=dtype)
    q, k, v = rows.split([6, 2, 2], dim=2)
    tolerance = None if dtype is torch.float32 else 2e-2
    check([q, k[..., :0], k, v], *tables(33, 16), tolerance=tolerance)
    # as MLA makes them: keys and values side by side, the rotary key a column block
    q, kv, k_rope = (
        draw(2, 33, 3, 48, dtype=dtype),
        draw(2, 33, 3, 48, seed=1, dtype=dtype),
        draw(2, 33, 40, seed=2, dtype=dtype),
    )
    k_nope, v = kv.split([16, 32], dim=-1)
    check([q[..., :32], k_nope, k_rope[..., None, 8:24], v], *tables(33, 16), tolerance=tolerance)


def test_other_strides():
    shape = SHAPES["mla"]
    q, k, r, v = make_inputs(time=33, **shape)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, r, v)]  # heads before time
    check(turned, *tables(33, 16))
    spread = [x.repeat_interleave(2, -1)[..., ::2] for x in (q, k, r, v)]  # last dimension not dense
    check(spread, *tables(33, 16))
    one = [x[:1].expand(2, -1, -1, -1) for x in (q, k, r, v)]  # a batch of stride 0
    check(one, *tables(33, 16))


def test_a_gradient_that_is_one_number_everywhere():
    inputs = [x.requires_grad_() for x in make_inputs(time=33, **SHAPES["mla"])]
    cos, sin = tables(33, 16)
    causal_attention(*inputs, cos, sin, scale=0.2).sum().backward()  # an expanded scalar as gradient
    found = [x.grad.clone() for x in inputs]
    for x in inputs:
        x.grad = None
    attention_reference(*inputs, cos, sin, scale=0.2, starts=None).sum().backward()
    for gradient, x in zip(found, inputs, strict=True):
        assert distance(gradient, x.grad) < 1e-5


def test_scores_far_apart_stay_finite():
    q, k, r, v = make_inputs(time=33, **SHAPES["mla"])
    check([q * 100, k * 10, r * 10, v], *tables(33, 16), tolerance=1e-3)  # thousands, so a choice, almost


def test_with_equal_keys_the_output_is_the_mean_of_the_values_so_far():
    v = draw(1, 4, 1, 16)
    none = torch.zeros(1, 4, 1, 16)
    out = causal_attention(draw(1, 4, 1, 32), none, none, v, *tables(4, 16), scale=1.0)
    wanted = v.cumsum(1) / torch.arange(1, 5).view(1, 4, 1, 1)
    torch.testing.assert_close(out, wanted)


def test_the_mask_by_hand():
    seen = causal_mask(torch.tensor([[0, 0, 2, 2]], dtype=torch.int32))
    wanted = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert seen.int().tolist() == [[wanted]]


def test_a_token_alone_in_its_segment_sees_itself_only():
    inputs = make_inputs(time=40, batch=1, **SHAPES["mla"])
    starts = torch.arange(40, dtype=torch.int32)[None]
    out = causal_attention(*inputs, *tables(40, 16), scale=0.2, starts=starts)
    torch.testing.assert_close(out, inputs[3])


@pytest.mark.parametrize("name", ["mla", "gqa"])
def test_keys_behind_the_mask_get_no_gradient_at_all(name):
    time, start, query = 70, 20, 50
    inputs = [x.requires_grad_() for x in make_inputs(time=time, batch=1, **SHAPES[name])]
    starts = torch.full((1, time), start, dtype=torch.int32).minimum(torch.arange(time, dtype=torch.int32))
    out = causal_attention(*inputs, *tables(time, SHAPES[name]["rope"]), scale=0.2, starts=starts)
    out[:, query].sum().backward()
    for x in inputs[1:]:
        if x.numel():
            is_touched = x.grad.flatten(2).abs().amax(-1)[0] > 0
            assert is_touched.tolist() == [start <= position <= query for position in range(time)]
