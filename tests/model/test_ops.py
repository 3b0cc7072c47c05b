"""RMSNorm, SwiGLU and cross-entropy: by hand, and the kernels against float64, forward and backward."""

import functools
import math

import pytest
import torch
from twins import assert_twins, distance, draw

from tenth.model.ops import (
    cross_entropy_reference,
    head_cross_entropy,
    rms_norm,
    rms_norm_reference,
    swiglu,
    swiglu_reference,
)

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
EPS = 1e-6


def test_rms_norm_by_hand():
    # rms of (3, 4) is sqrt((9 + 16) / 2) = 3.5355
    y = rms_norm(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), 0.0)
    torch.testing.assert_close(y, torch.tensor([3 / 12.5**0.5, 8 / 12.5**0.5]))


@BOTH
@pytest.mark.parametrize("rows", [1, 31, 33, 70])
@pytest.mark.parametrize("width", [1, 5, 16, 100])
def test_rms_norm_equals_float64(rows, width, dtype):
    if width == 1:  # y = sign(x) * weight: the gradient by x is nothing but cancellation
        x = draw(rows, 1, dtype=dtype)
        y = rms_norm(x, torch.tensor([2.0]), 0.0)
        assert distance(y, 2 * x.sign()) < 1e-2
        return
    check = functools.partial(rms_norm, eps=EPS)
    weight = 1 + 0.1 * draw(width, seed=1)
    twin = functools.partial(rms_norm_reference, eps=EPS)
    assert_twins(check, twin, [draw(rows, width, dtype=dtype), weight.to(dtype)])


VIEWS = {
    "columns of a wider product": lambda x: x[..., 8:24],
    "every other sequence": lambda x: x[::2, :, :16],
    "every other token": lambda x: x[:, ::2, :16],
    "one token of each sequence": lambda x: x[:, 3:4, :16],
    "time before batch": lambda x: x.transpose(0, 1)[..., :16],
    "channels strided": lambda x: x[..., ::3],
    "a row for everybody": lambda x: x[:1, :1, :16].expand(5, 7, 16),
    "four dimensions, heads sliced": lambda x: x.unflatten(-1, (3, 16))[:, :, 1:],
    "four dimensions, heads before time": lambda x: x.unflatten(-1, (3, 16)).transpose(1, 2),
    "one vector": lambda x: x[2, 3, 4:20],
    "nothing": lambda x: x[:, :0, :16],
}
views = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())


@BOTH
@views
def test_rms_norm_of_a_view_equals_that_of_a_copy(view, dtype):
    x = view(draw(4, 9, 48, dtype=dtype))
    weight = 1 + 0.1 * draw(x.shape[-1], seed=1, dtype=dtype)
    assert_twins(
        functools.partial(rms_norm, eps=EPS), functools.partial(rms_norm_reference, eps=EPS), [x, weight]
    )


def test_rms_norm_computes_in_float32_between_bfloat16_ends():
    x = torch.full((1, 64), 3.0, dtype=torch.bfloat16)
    y = rms_norm(x, torch.full((64,), 1.0), 0.0)  # a float32 weight, as the network keeps it
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, torch.ones(1, 64, dtype=torch.bfloat16))


def test_swiglu_by_hand():
    # gate 0: silu(0) = 0.  gate ln 3: sigmoid = 3/4, so silu = 0.75 ln 3
    y = swiglu(torch.tensor([[0.0, math.log(3), 5.0, 4.0]]))
    torch.testing.assert_close(y, torch.tensor([[0.0, 3 * math.log(3)]]))


@BOTH
@pytest.mark.parametrize("rows", [1, 31, 33, 70])
@pytest.mark.parametrize("width", [1, 7, 16, 50])
def test_swiglu_equals_float64(rows, width, dtype):
    assert_twins(swiglu, swiglu_reference, [draw(rows, 2 * width, dtype=dtype) * 3])


@BOTH
@views
def test_swiglu_of_a_view_equals_that_of_a_copy(view, dtype):
    assert_twins(swiglu, swiglu_reference, [view(draw(4, 9, 48, dtype=dtype))])


@pytest.mark.parametrize("gate", [-1000.0, -88.0, 88.0, 1000.0])
def test_swiglu_of_extreme_gates_is_finite(gate):
    x = torch.tensor([[gate, 2.0]], requires_grad=True)
    y = swiglu(x)
    y.sum().backward()
    torch.testing.assert_close(y, torch.tensor([[max(gate, 0.0) * 2]]))
    torch.testing.assert_close(x.grad, torch.tensor([[2.0 * (gate > 0), max(gate, 0.0)]]))


def reference_loss(targets, weights):
    return lambda hidden, head: cross_entropy_reference(hidden @ head.t(), targets, weights.double())


def some_targets(rows, vocabulary):
    generator = torch.Generator().manual_seed(5)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    weights = torch.rand(rows, generator=generator)
    weights[::3] = 0  # tokens that are not trained
    weights[-1] = 0.5
    return targets, weights


def test_cross_entropy_by_hand():
    # logits (0, ln 3): p = (1/4, 3/4)
    hidden, head = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [math.log(3)]])
    loss = head_cross_entropy(hidden, head, torch.tensor([1, 0]), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(loss, torch.tensor(math.log(4 / 3) + 0.5 * math.log(4)))


@BOTH
@pytest.mark.parametrize("rows", [1, 31, 33, 70])
@pytest.mark.parametrize("vocabulary", [2, 37])
def test_cross_entropy_equals_float64(rows, vocabulary, dtype):
    targets, weights = some_targets(rows, vocabulary)
    assert_twins(
        lambda hidden, head: head_cross_entropy(hidden, head, targets, weights),
        reference_loss(targets, weights),
        [draw(rows, 24, dtype=dtype), draw(vocabulary, 24, seed=1, dtype=dtype)],
        tolerance=None if dtype is torch.float32 else 2e-2,
    )


@pytest.mark.parametrize("chunk_rows", [1, 7, 33, 1000])
def test_chunks_change_nothing(chunk_rows):
    targets, weights = some_targets(33, 37)
    assert_twins(
        lambda hidden, head: head_cross_entropy(hidden, head, targets, weights, chunk_rows=chunk_rows),
        reference_loss(targets, weights),
        [draw(33, 24), draw(37, 24, seed=1)],
    )


def test_cross_entropy_of_views():
    targets, weights = some_targets(66, 37)
    assert_twins(
        lambda hidden, head: head_cross_entropy(hidden, head, targets[::2], weights[::2]),
        reference_loss(targets[::2], weights[::2]),
        [draw(33, 3, 24)[:, 1], draw(24, 37, seed=1).t()],
    )


def test_a_token_of_weight_zero_has_no_gradient():
    hidden = draw(2, 24).requires_grad_()
    head_cross_entropy(hidden, draw(5, 24), torch.tensor([0, 1]), torch.tensor([0.0, 1.0])).backward()
    assert torch.equal(hidden.grad[0], torch.zeros(24))
    assert hidden.grad[1].abs().min() > 0


def test_the_loss_of_huge_logits_is_finite_and_exact():
    # logits (1000, 0): the wrong one costs 1000 nats, the right one nothing
    hidden, head = torch.tensor([[1.0], [1.0]]), torch.tensor([[1000.0], [0.0]])
    for target, wanted in ((0, 0.0), (1, 1000.0)):
        loss = head_cross_entropy(hidden[:1], head, torch.tensor([target]), torch.ones(1))
        assert float(loss) == pytest.approx(wanted)


def test_a_loss_without_tokens_is_zero():
    head = draw(5, 24).requires_grad_()
    loss = head_cross_entropy(draw(0, 24), head, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(head.grad, torch.zeros(5, 24))


def test_where_no_gradient_is_wanted_none_is_made():
    targets, weights = some_targets(9, 37)
    hidden, head = draw(9, 24), draw(37, 24)
    loss = head_cross_entropy(hidden, head, targets, weights)
    assert not loss.requires_grad
    assert distance(loss, reference_loss(targets, weights)(hidden.double(), head.double())) < 1e-5


def test_float64_stays_float64():
    x = draw(3, 8).double()
    assert rms_norm(x, torch.ones(8, dtype=torch.float64), EPS).dtype == torch.float64
    assert swiglu(x).dtype == torch.float64
    assert head_cross_entropy(x, x, torch.tensor([0, 1, 2]), torch.ones(3).double()).dtype == torch.float64


def test_rms_norm_reads_nothing_but_its_rows_whatever_stride_a_dimension_of_one_carries():
    x = torch.randn(1, 6, 16).transpose(0, 1)  # (6, 1, 16), the middle stride is that of another row
    weight = torch.rand(16)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), rms_norm_reference(x, weight, 1e-6))
