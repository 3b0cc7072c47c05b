"""The sampler draws from the distribution it is told to, and reports the temperature-1 log-probability."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenth.engine.sampler import sample_ids, sample_ids_reference
from tenth.model import ops

BOTH = pytest.mark.parametrize("sample", [sample_ids, sample_ids_reference], ids=["shipped", "reference"])
HALVES = [0.5, 0.3, 0.15, 0.05]


def logits_of(*probabilities):
    return torch.tensor(probabilities).log()


def even_uniforms(rows):
    """(i + 0.5) / rows: an id of probability p comes rows * p times, give or take one."""
    return (torch.arange(rows) + 0.5) / rows


def shares(sample, logits, *, rows=1000, temperature=1.0, top_p=1.0):
    """How often each id is drawn when the uniforms are spread evenly."""
    ids, _ = sample(logits.expand(rows, -1), even_uniforms(rows), temperature=temperature, top_p=top_p)
    return torch.bincount(ids, minlength=logits.shape[-1]).double() / rows


@BOTH
def test_ids_come_as_often_as_their_probability_says(sample):
    found = shares(sample, logits_of(*HALVES))
    torch.testing.assert_close(found, torch.tensor(HALVES).double(), rtol=0, atol=1.1e-3)


@BOTH
def test_temperature_one_half_squares_the_odds(sample):
    squares = torch.tensor([p * p for p in HALVES]).double()
    found = shares(sample, logits_of(*HALVES), temperature=0.5)
    torch.testing.assert_close(found, squares / squares.sum(), rtol=0, atol=1.1e-3)


@BOTH
def test_the_nucleus_is_the_fewest_ids_that_reach_the_mass(sample):
    order = [0.05, 0.5, 0.15, 0.3]  # not sorted: the ids must come back in their own places
    for top_p, kept in [
        (0.01, [1]),
        (0.49, [1]),
        (0.51, [1, 3]),
        (0.79, [1, 3]),
        (0.81, [1, 2, 3]),
        (0.99, [0, 1, 2, 3]),
    ]:
        found = shares(sample, logits_of(*order), top_p=top_p)
        wanted = torch.tensor([p * (i in kept) for i, p in enumerate(order)]).double()
        torch.testing.assert_close(found, wanted / wanted.sum(), rtol=0, atol=1.1e-3)


@BOTH
def test_the_nucleus_is_cut_after_the_temperature(sample):
    # squared odds: 0.25, 0.09, 0.0225, 0.0025 of 0.365; the first has 0.685 of it
    found = shares(sample, logits_of(*HALVES), temperature=0.5, top_p=0.6)
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0]


@BOTH
def test_at_temperature_zero_the_most_likely_is_taken_and_of_equals_the_first(sample):
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 2.0], [-5.0, -4.0, -3.0]])
    for top_p in (1.0, 0.1):
        ids, logprobs = sample(logits, torch.tensor([0.0, 0.5, 0.999]), temperature=0.0, top_p=top_p)
        assert ids.tolist() == [1, 0, 2]
        wanted = logits.log_softmax(-1)[torch.arange(3), ids]
        torch.testing.assert_close(logprobs, wanted)


@BOTH
def test_the_log_probability_is_that_of_temperature_one_whatever_was_cut(sample):
    logits = torch.randn(50, 24, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(50, generator=torch.Generator().manual_seed(1))
    for temperature, top_p in [(1.0, 1.0), (0.6, 0.95), (1.7, 0.5), (0.0, 1.0)]:
        ids, logprobs = sample(logits, uniforms, temperature=temperature, top_p=top_p)
        wanted = logits.double().log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
        torch.testing.assert_close(logprobs.double(), wanted, rtol=0, atol=1e-6)


@BOTH
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
def test_random_uniforms_pass_a_chi_square_test(sample, temperature):
    logits = 1.5 * torch.randn(12, generator=torch.Generator().manual_seed(2))
    rows = 50_000
    uniforms = torch.rand(rows, generator=torch.Generator().manual_seed(3))
    ids, _ = sample(logits.expand(rows, -1), uniforms, temperature=temperature, top_p=1.0)
    expected = (logits.double() / temperature).softmax(-1) * rows
    found = torch.bincount(ids, minlength=12).double()
    chi_square = float(((found - expected).square() / expected).sum())
    assert chi_square < 31.3  # 11 degrees of freedom, exceeded once in a thousand


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 60),
    spread=st.floats(0.1, 6.0),
    temperature=st.floats(0.2, 2.0),
    top_p=st.floats(0.01, 1.0),
    seed=st.integers(0, 9999),
)
def test_any_draw_lies_where_its_uniform_points(size, spread, temperature, top_p, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(64, size, generator=generator)
    uniforms = torch.rand(64, generator=generator)
    p = (logits.double() / temperature).softmax(-1)
    ranked, order = p.sort(dim=-1, descending=True)
    # two nuclei: any rounding of top_p may decide about an id at the border
    inner, outer = (
        torch.zeros_like(p).scatter(-1, order, (ranked.cumsum(-1) - ranked < top_p + slack).double())
        for slack in (-1e-5, 1e-5)
    )
    ids, _ = sample_ids(logits, uniforms, temperature=temperature, top_p=top_p)
    rows = torch.arange(64)
    assert bool((outer[rows, ids] == 1).all())
    is_clear = (inner == outer).all(-1)
    cdf = (p * inner).cumsum(-1)
    below, above = cdf[rows, ids] - (p * inner)[rows, ids], cdf[rows, ids]
    target = uniforms * cdf[:, -1]
    is_inside = (target >= below - 1e-5) & (target <= above + 1e-5)
    assert bool((is_inside | ~is_clear).all())


@pytest.mark.parametrize("size", [1, 2, 33, 500])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (1.3, 0.3), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_kernel_draws_what_the_reference_draws(size, temperature, top_p, dtype):
    generator = torch.Generator().manual_seed(size)
    logits = (2 * torch.randn(70, size, generator=generator)).to(dtype)
    uniforms = torch.rand(70, generator=generator)
    ids, logprobs = sample_ids(logits, uniforms, temperature=temperature, top_p=top_p)
    wanted_ids, wanted = sample_ids_reference(
        logits.double(), uniforms.double(), temperature=temperature, top_p=top_p
    )
    # a uniform within a rounding error of a border may fall on either side; none of these is that close
    assert torch.equal(ids, wanted_ids)
    torch.testing.assert_close(logprobs.double(), wanted, rtol=0, atol=2e-6)


def test_rows_may_be_strided():
    logits = torch.randn(20, 48, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(40, generator=torch.Generator().manual_seed(1))
    found = sample_ids(logits[:, ::2], uniforms[::2], temperature=1.0, top_p=0.9)
    wanted = sample_ids(logits[:, ::2].contiguous(), uniforms[::2].contiguous(), temperature=1.0, top_p=0.9)
    assert torch.equal(found[0], wanted[0])


@BOTH
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_an_impossible_id_is_never_drawn(sample, uniform, top_p):
    logits = torch.tensor([[-math.inf, 1.0, -math.inf, 2.0, -math.inf]])
    ids, logprobs = sample(logits, torch.tensor([uniform]), temperature=1.0, top_p=top_p)
    assert ids.item() in (1, 3)
    assert math.isfinite(logprobs.item())


@BOTH
def test_a_single_possible_id_is_drawn_at_every_uniform(sample):
    logits = torch.full((101, 7), -math.inf)
    logits[:, 4] = 3.0
    ids, logprobs = sample(logits, torch.arange(101) / 101, temperature=0.7, top_p=0.9)
    assert ids.tolist() == [4] * 101
    assert logprobs.abs().max() < 1e-6


@BOTH
def test_logits_far_apart_do_not_overflow(sample):
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4 + 1]])
    ids, logprobs = sample(logits, torch.tensor([0.3, 0.9]), temperature=0.1, top_p=1.0)
    assert ids.tolist() == [0, 2]
    assert bool(logprobs.isfinite().all())


def test_without_kernels_the_reference_serves(monkeypatch):
    logits = torch.randn(9, 24, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(9, generator=torch.Generator().manual_seed(1))
    native = sample_ids(logits, uniforms, temperature=0.8, top_p=0.9)
    monkeypatch.setattr(ops, "library", lambda: None)
    plain = sample_ids(logits, uniforms, temperature=0.8, top_p=0.9)
    assert torch.equal(native[0], plain[0])
    torch.testing.assert_close(native[1], plain[1])
