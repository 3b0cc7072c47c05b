"""Our grouped products, which take widths in multiples of 32: equal to a loop over experts in float64."""

import pytest
import torch
from twins import distance, draw

from tenth.model import experts
from tenth.model.experts import experts_reference, plan_dispatch, run_experts

GROUPS = {
    "uneven": [0, 1, 7, 8, 9, 40],
    "one expert has all": [0, 0, 70],
    "nobody but the first": [5, 0, 0, 0],
    "hundreds of rows": [300, 211],
}


def pairs(sizes):
    """One expert per token, as many tokens for each expert as asked, shuffled."""
    ids = torch.cat([torch.full((size,), expert) for expert, size in enumerate(sizes)])
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))][:, None]


def outputs(function, inputs, dispatch, upstream):
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = function(leaves[0], leaves[1], dispatch, *leaves[2:])
    return [y, *torch.autograd.grad(y, leaves, upstream.to(y.dtype))]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("sizes", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize(("hidden", "width"), [(32, 32), (96, 64), (160, 320)])
def test_grouped_products_equal_a_loop_in_float64(sizes, hidden, width, dtype, tolerance):
    expert_ids, tokens = pairs(sizes), sum(sizes)
    inputs = [
        draw(tokens, hidden, dtype=dtype),
        0.5 + torch.rand(tokens, 1, generator=torch.Generator().manual_seed(1)),
        draw(len(sizes), 2 * width, hidden, seed=2, dtype=dtype) * hidden**-0.5,
        draw(len(sizes), hidden, width, seed=3, dtype=dtype) * width**-0.5,
    ]
    assert (
        experts._are_ours(inputs[0], inputs[2]) or dtype is torch.bfloat16
    )  # a processor without bf16 products
    dispatch, upstream = plan_dispatch(expert_ids, num_experts=len(sizes)), draw(tokens, hidden, seed=4)
    found = outputs(run_experts, inputs, dispatch, upstream.to(dtype))
    wanted = outputs(experts_reference, [x.double() for x in inputs], dispatch, upstream.to(dtype).double())
    for a, b in zip(found, wanted, strict=True):
        assert distance(a, b) < tolerance


def test_several_choices_per_token_and_a_strided_weight():
    expert_ids = torch.rand(50, 6, generator=torch.Generator().manual_seed(5)).topk(3, dim=-1).indices
    inputs = [
        draw(50, 32),
        torch.rand(50, 3, generator=torch.Generator().manual_seed(1)),
        draw(6, 32, 64, seed=2).transpose(1, 2) * 0.2,
        draw(6, 32, 32, seed=3) * 0.2,
    ]
    dispatch, upstream = plan_dispatch(expert_ids, num_experts=6), draw(50, 32, seed=4)
    found = outputs(run_experts, inputs, dispatch, upstream)
    wanted = outputs(experts_reference, [x.double() for x in inputs], dispatch, upstream.double())
    for a, b in zip(found, wanted, strict=True):
        assert distance(a, b) < 1e-6
