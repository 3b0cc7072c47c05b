"""Experts as grouped products: every pair computed once, equal to one token and one expert at a time."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import distance, draw

from tenth.model import experts
from tenth.model.experts import bucket_size, experts_reference, plan_dispatch, run_experts

# Shapes: N tokens, K experts per token, E experts, D hidden, F expert width


def pick_experts(tokens, k, num_experts, *, seed=0):
    """K different experts for each token."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(tokens, num_experts, generator=generator).topk(k, dim=-1).indices


def obvious(x, weights, expert_ids, gate_up, down):
    """No sorting, no padding: token by token."""
    rows = []
    for token in range(len(x)):
        total = torch.zeros_like(x[token])
        for choice, expert in enumerate(expert_ids[token].tolist()):
            gate, up = (gate_up[expert] @ x[token]).chunk(2)
            total = total + weights[token, choice] * (down[expert] @ (F.silu(gate) * up))
        rows.append(total)
    return torch.stack(rows)


def run_both(expert_ids, *, num_experts, hidden=16, width=24, dtype=torch.float32):
    """Outputs and gradients of the shipped path in `dtype` and of the obvious one in float64."""
    tokens, k = expert_ids.shape
    inputs = [
        draw(tokens, hidden, dtype=dtype),
        (torch.rand(tokens, k, generator=torch.Generator().manual_seed(1)) + 0.1).to(
            torch.float64
            if dtype is torch.float64
            else torch.float32  # the router's weights are never bfloat16
        ),
        0.3 * draw(num_experts, 2 * width, hidden, seed=2, dtype=dtype),
        0.3 * draw(num_experts, hidden, width, seed=3, dtype=dtype),
    ]
    leaves = [x.clone().requires_grad_() for x in inputs]
    wide = [x.double().requires_grad_() for x in inputs]
    dispatch = plan_dispatch(expert_ids, num_experts=num_experts)
    found = run_experts(leaves[0], leaves[1], dispatch, *leaves[2:])
    wanted = obvious(wide[0], wide[1], expert_ids, *wide[2:])
    upstream = draw(tokens, hidden, seed=4, dtype=dtype)
    found.backward(upstream)
    wanted.backward(upstream.double())
    return [found, *(x.grad for x in leaves)], [wanted, *(x.grad for x in wide)]


CASES = {
    "one token, most experts idle": pick_experts(1, 2, 8),
    "31 tokens": pick_experts(31, 3, 8),
    "33 tokens, all experts each": pick_experts(33, 4, 4),
    "70 tokens": pick_experts(70, 2, 8, seed=1),
    "everybody to the last expert": torch.full((9, 1), 7),
    "everybody to the first expert": torch.zeros(9, 1, dtype=torch.int64),
    "only experts 2 and 5": torch.tensor([[2, 5], [5, 2]] * 20),
    "more rows than a bucket": pick_experts(300, 2, 4),
}
NAMES = ("output", "x", "weights", "gate_up", "down")


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("expert_ids", CASES.values(), ids=CASES.keys())
def test_grouped_experts_equal_one_token_at_a_time(expert_ids, dtype, tolerance):
    num_experts = max(8, int(expert_ids.max()) + 1)
    found, wanted = run_both(expert_ids, num_experts=num_experts, dtype=dtype)
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        assert distance(a, b) < tolerance, name


@pytest.mark.parametrize("expert_ids", CASES.values(), ids=CASES.keys())
def test_the_loop_over_experts_equals_one_token_at_a_time(expert_ids):
    found, wanted = run_both(expert_ids, num_experts=8, dtype=torch.float64)
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        assert distance(a, b) < 1e-12, name


@pytest.mark.parametrize(("hidden", "width"), [(15, 24), (16, 13), (5, 3), (4, 4), (8, 8)])
def test_widths_that_grouped_products_refuse_work_too(hidden, width):
    found, wanted = run_both(pick_experts(31, 3, 8), num_experts=8, hidden=hidden, width=width)
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        assert distance(a, b) < 1e-5, name


def test_an_expert_without_tokens_gets_no_gradient():
    found, _ = run_both(CASES["only experts 2 and 5"], num_experts=8)
    for gradient in found[3:]:
        is_touched = gradient.flatten(1).abs().amax(-1) > 0
        assert is_touched.tolist() == [expert in (2, 5) for expert in range(8)]


def test_padding_rows_never_leak():
    # Padding rows hold token 0. It visits expert 0 alone, and is so large that any trace of it would show.
    expert_ids = torch.tensor([[0]] + [[1 + token % 3] for token in range(30)])
    outs = []
    for size in (1.0, 1e3):
        x = draw(31, 16)
        x[0] *= size
        leaves = [0.3 * draw(4, 32, 16, seed=2), 0.3 * draw(4, 16, 16, seed=3)]
        gate_up, down = (w.requires_grad_() for w in leaves)
        dispatch = plan_dispatch(expert_ids, num_experts=4)
        y = run_experts(x, torch.ones(31, 1), dispatch, gate_up, down)
        y.sum().backward()
        outs.append((y[1:].detach(), gate_up.grad[1:], down.grad[1:]))
    for small, large in zip(*outs, strict=True):
        assert torch.equal(small, large)


def test_inputs_may_be_strided():
    expert_ids = pick_experts(31, 2, 4)
    x, weights = draw(31, 3, 16)[:, 1], draw(2, 31, seed=1).t()
    gate_up, down = draw(4, 32, 16, seed=2), draw(4, 16, 16, seed=3)
    dispatch = plan_dispatch(expert_ids, num_experts=4)
    found = run_experts(x, weights, dispatch, gate_up, down)
    wanted = experts_reference(x.double(), weights.double(), dispatch, gate_up.double(), down.double())
    assert distance(found, wanted) < 1e-5


def assert_is_a_plan(dispatch, expert_ids, num_experts):
    tokens, k = expert_ids.shape
    bucket = bucket_size(tokens * k, num_experts)
    counts = torch.bincount(expert_ids.flatten(), minlength=num_experts)
    assert torch.equal(dispatch.counts, counts)
    sizes = dispatch.offsets.long().diff(prepend=torch.zeros(1, dtype=torch.int64))
    assert torch.equal(sizes, (counts + bucket - 1) // bucket * bucket)
    slots = dispatch.slots.flatten()
    assert len(slots.unique()) == tokens * k  # no token dropped, no row used twice
    assert torch.equal(dispatch.sources[slots], torch.arange(tokens).repeat_interleave(k))
    ends = dispatch.offsets.long()[expert_ids.flatten()]
    assert bool(((slots < ends) & (slots >= ends - sizes[expert_ids.flatten()])).all())
    is_padding = torch.ones(len(dispatch.sources), dtype=torch.bool)
    is_padding[slots] = False
    assert bool((dispatch.sources[is_padding] == 0).all())  # a token that exists


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 90), num_experts=st.integers(1, 12), seed=st.integers(0, 999), data=st.data())
def test_every_pair_gets_exactly_one_row_among_its_experts(tokens, num_experts, seed, data):
    k = data.draw(st.integers(1, num_experts))
    expert_ids = pick_experts(tokens, k, num_experts, seed=seed)
    assert_is_a_plan(plan_dispatch(expert_ids, num_experts=num_experts), expert_ids, num_experts)


@pytest.mark.parametrize("expert_ids", CASES.values(), ids=CASES.keys())
def test_the_plan_in_torch_is_the_kernels_plan(expert_ids, monkeypatch):
    fast = plan_dispatch(expert_ids, num_experts=8)
    monkeypatch.setattr(experts, "is_native", lambda *_: False)
    plain = plan_dispatch(expert_ids, num_experts=8)
    assert_is_a_plan(plain, expert_ids, 8)
    for name in ("counts", "offsets", "slots", "sources"):
        assert torch.equal(getattr(fast, name), getattr(plain, name)), name


@pytest.mark.parametrize(
    ("pairs", "num_experts", "rows"), [(1, 8, 8), (8 * 64, 8, 8), (8 * 8 * 64, 8, 64), (10**7, 8, 256)]
)
def test_the_bucket_is_about_an_eighth_of_a_group_between_8_and_256(pairs, num_experts, rows):
    assert bucket_size(pairs, num_experts) == rows
