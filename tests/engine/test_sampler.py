"""The sampler draws from the distribution it is told to, and reports the temperature-1 log-probability."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenth.engine.sampler import (
    DrawSettings,
    kept_probabilities,
    logprobs_of,
    sample,
    sample_reference,
    top_logprobs,
)
from tenth.model import ops

BOTH = pytest.mark.parametrize("draw", [sample, sample_reference], ids=["shipped", "reference"])
HALVES = [0.5, 0.3, 0.15, 0.05]


def logits_of(*probabilities):
    return torch.tensor(probabilities).log()


def same_for(rows, *, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    return DrawSettings(
        temperature=torch.full((rows,), temperature),
        top_p=torch.full((rows,), top_p),
        top_k=torch.full((rows,), top_k, dtype=torch.int32),
        min_p=torch.full((rows,), min_p),
    )


def some_of(rows, index):
    return DrawSettings(
        temperature=rows.temperature[index],
        top_p=rows.top_p[index],
        top_k=rows.top_k[index],
        min_p=rows.min_p[index],
    )


def random_settings(rows, vocabulary, generator):
    """Every combination of filters on and off, greedy rows among them."""

    def half(on, off):
        return torch.where(torch.rand(rows, generator=generator) < 0.5, on, off)

    temperature = 0.2 + 1.8 * torch.rand(rows, generator=generator)
    temperature = half(temperature, torch.tensor(1.0))
    temperature[torch.rand(rows, generator=generator) < 0.1] = 0
    return DrawSettings(
        temperature=temperature,
        top_p=half(0.01 + 0.99 * torch.rand(rows, generator=generator), torch.tensor(1.0)),
        top_k=half(torch.randint(1, vocabulary + 3, (rows,), generator=generator), torch.tensor(0)).int(),
        min_p=half(torch.rand(rows, generator=generator) ** 3, torch.tensor(0.0)),
    )


def even_uniforms(rows):
    """(i + 0.5) / rows: an id of probability p comes rows * p times, give or take one."""
    return (torch.arange(rows) + 0.5) / rows


def shares(draw, logits, *, rows=1000, **how):
    """How often each id is drawn when the uniforms are spread evenly."""
    ids = draw(logits.expand(rows, -1), even_uniforms(rows), same_for(rows, **how)).ids
    return torch.bincount(ids, minlength=logits.shape[-1]).double() / rows


def assert_shares(found, *wanted):
    wanted = torch.tensor(wanted).double()
    torch.testing.assert_close(found, wanted / wanted.sum(), rtol=0, atol=1.1e-3)


# what is drawn


@BOTH
def test_ids_come_as_often_as_their_probability_says(draw):
    assert_shares(shares(draw, logits_of(*HALVES)), *HALVES)


@BOTH
def test_temperature_one_half_squares_the_odds(draw):
    assert_shares(shares(draw, logits_of(*HALVES), temperature=0.5), 0.25, 0.09, 0.0225, 0.0025)


@BOTH
def test_the_nucleus_is_the_fewest_ids_that_reach_the_mass(draw):
    order = [0.05, 0.5, 0.15, 0.3]  # not sorted: the ids must come back in their own places
    for top_p, kept in [
        (0.01, [1]),
        (0.49, [1]),
        (0.51, [1, 3]),
        (0.79, [1, 3]),
        (0.81, [1, 2, 3]),
        (0.99, [0, 1, 2, 3]),
    ]:
        found = shares(draw, logits_of(*order), top_p=top_p)
        assert_shares(found, *[p * (i in kept) for i, p in enumerate(order)])


@BOTH
def test_the_nucleus_is_cut_after_the_temperature(draw):
    # squared odds: 0.25, 0.09, 0.0225, 0.0025 of 0.365; the first has 0.685 of it
    assert_shares(shares(draw, logits_of(*HALVES), temperature=0.5, top_p=0.6), 1, 0, 0, 0)


@BOTH
def test_top_k_keeps_the_k_likeliest(draw):
    for top_k, kept in [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]:
        order = [0.05, 0.5, 0.15, 0.3]
        found = shares(draw, logits_of(*order), top_k=top_k)
        assert_shares(found, *[p * (i in kept) for i, p in enumerate(order)])


@BOTH
def test_min_p_keeps_what_is_that_fraction_as_likely_as_the_likeliest(draw):
    # bars: 0.5 * 0.2 = 0.1, 0.5 * 0.5 = 0.25
    assert_shares(shares(draw, logits_of(*HALVES), min_p=0.2), 0.5, 0.3, 0.15, 0)
    assert_shares(shares(draw, logits_of(*HALVES), min_p=0.5), 0.5, 0.3, 0, 0)
    assert_shares(shares(draw, logits_of(*HALVES), min_p=1.0), 1, 0, 0, 0)
    # squared odds: 0.25 * 0.2 = 0.05
    assert_shares(shares(draw, logits_of(*HALVES), min_p=0.2, temperature=0.5), 0.25, 0.09, 0, 0)


@BOTH
def test_each_filter_sees_what_the_one_before_it_left(draw):
    # of two ids the first has 0.5 / 0.8 = 0.625 of the mass; of three it would have had 0.526
    assert_shares(shares(draw, logits_of(*HALVES), top_k=2, top_p=0.6), 1, 0, 0, 0)
    assert_shares(shares(draw, logits_of(*HALVES), top_k=3, top_p=0.6), 0.5, 0.3, 0, 0)
    assert_shares(shares(draw, logits_of(*HALVES), min_p=0.5, top_p=0.6), 1, 0, 0, 0)


@BOTH
def test_of_equal_scores_the_lower_ids_stay(draw):
    assert_shares(shares(draw, torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0]), top_k=2), 0, 1, 1, 0, 0)
    assert_shares(shares(draw, torch.zeros(4), top_p=0.5), 1, 1, 0, 0)
    assert_shares(shares(draw, torch.zeros(300), top_p=0.01), *[1] * 3, *[0] * 297)
    assert_shares(shares(draw, torch.zeros(4), min_p=1.0), 1, 1, 1, 1)


@BOTH
def test_at_temperature_zero_the_most_likely_is_taken_and_of_equals_the_first(draw):
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 2.0], [-5.0, -4.0, -3.0]])
    for top_p in (1.0, 0.1):
        drawn = draw(logits, torch.tensor([0.0, 0.5, 0.999]), same_for(3, temperature=0.0, top_p=top_p))
        assert drawn.ids.tolist() == [1, 0, 2]
        wanted = logits.log_softmax(-1)[torch.arange(3), drawn.ids]
        torch.testing.assert_close(drawn.logprobs, wanted)


@BOTH
def test_the_log_probability_is_that_of_temperature_one_whatever_was_cut(draw):
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(50, 24, generator=generator), torch.rand(50, generator=generator)
    drawn = draw(logits, uniforms, random_settings(50, 24, generator))
    wanted = logits.double().log_softmax(-1).gather(1, drawn.ids[:, None]).squeeze(1)
    torch.testing.assert_close(drawn.logprobs.double(), wanted, rtol=0, atol=1e-6)


@BOTH
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
def test_random_uniforms_pass_a_chi_square_test(draw, temperature):
    logits = 1.5 * torch.randn(12, generator=torch.Generator().manual_seed(2))
    rows = 50_000
    uniforms = torch.rand(rows, generator=torch.Generator().manual_seed(3))
    ids = draw(logits.expand(rows, -1), uniforms, same_for(rows, temperature=temperature)).ids
    expected = (logits.double() / temperature).softmax(-1) * rows
    found = torch.bincount(ids, minlength=12).double()
    chi_square = float(((found - expected).square() / expected).sum())
    assert chi_square < 31.3  # 11 degrees of freedom, exceeded once in a thousand


# the kernel and its twin


def assert_drawn_where_the_uniforms_point(logits, uniforms, rows, *, slack=1e-5):
    """Against float64. Rounding decides at the very border of a filter or of an id: either side is right."""
    drawn = sample(logits, uniforms, rows)
    wide, index = logits.double(), torch.arange(len(logits))
    narrower, wider = (
        kept_probabilities(
            wide,
            DrawSettings(
                temperature=rows.temperature,
                top_p=torch.where(rows.top_p < 1, rows.top_p.double() * (1 + sign * slack), 1.0),
                top_k=rows.top_k,
                min_p=(rows.min_p.double() * (1 - sign * slack)).clamp(max=1),
            ),
        )
        for sign in (-1, 1)
    )
    assert bool((wider[index, drawn.ids] > 0).all())
    is_clear = ((narrower > 0) == (wider > 0)).all(-1)
    cdf = wider.cumsum(-1) / wider.sum(-1, keepdim=True)
    above = cdf[index, drawn.ids]
    below = above - wider[index, drawn.ids] / wider.sum(-1)
    is_inside = (uniforms >= below - slack) & (uniforms <= above + slack)
    assert bool((is_inside | ~is_clear).all())
    wanted = wide.log_softmax(-1)[index, drawn.ids]
    torch.testing.assert_close(drawn.logprobs.double(), wanted, rtol=2e-6, atol=2e-6)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 1200),
    spread=st.floats(0.01, 12.0),
    grid=st.sampled_from([0.0, 0.25, 2.0]),  # above 0: many equal scores
    is_bf16=st.booleans(),
    seed=st.integers(0, 99_999),
)
def test_any_draw_lies_where_its_uniform_points(size, spread, grid, is_bf16, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(24, size, generator=generator)
    logits = (logits / grid).round() * grid if grid else logits
    logits = logits.bfloat16() if is_bf16 else logits
    rows = random_settings(24, size, generator)
    assert_drawn_where_the_uniforms_point(logits, torch.rand(24, generator=generator), rows)


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 8.0], ids="spread {}".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_vocabulary_of_150_thousand_is_drawn_from_as_well(spread, dtype):
    generator = torch.Generator().manual_seed(1)
    logits = (spread * torch.randn(6, 151_936, generator=generator)).to(dtype)
    rows = DrawSettings(
        temperature=torch.tensor([1.0, 0.7, 1.0, 1.0, 0.6, 0.0]),
        top_p=torch.tensor([1.0, 0.95, 0.9, 1.0, 0.95, 1.0]),
        top_k=torch.tensor([0, 0, 0, 50, 20, 0], dtype=torch.int32),
        min_p=torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1, 0.0]),
    )
    assert_drawn_where_the_uniforms_point(logits, torch.rand(6, generator=generator), rows)


@pytest.mark.parametrize("size", [1, 2, 33, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_kernel_draws_what_the_reference_draws(size, dtype):
    generator = torch.Generator().manual_seed(size)
    logits = (2 * torch.randn(300, size, generator=generator)).to(dtype)
    uniforms, rows = torch.rand(300, generator=generator), random_settings(300, size, generator)
    drawn, wanted = sample(logits, uniforms, rows), sample_reference(logits.double(), uniforms.double(), rows)
    # a uniform within a rounding error of a border may fall on either side; none of these is that close
    assert torch.equal(drawn.ids, wanted.ids)
    torch.testing.assert_close(drawn.logprobs.double(), wanted.logprobs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("vocabulary", [40, 5000])
def test_a_row_gets_the_same_to_the_last_bit_alone_and_in_company_on_one_thread_or_three(vocabulary):
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(37, vocabulary, generator=generator)
    uniforms, rows = torch.rand(37, generator=generator), random_settings(37, vocabulary, generator)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(sample(logits, uniforms, rows))
    finally:
        torch.set_num_threads(threads)
    index = [torch.tensor([r]) for r in range(37)]
    alone = [sample(logits[i], uniforms[i], some_of(rows, i)) for i in index]
    for together in found:
        assert torch.equal(torch.cat([each.ids for each in alone]), together.ids)
        assert torch.equal(torch.cat([each.logprobs for each in alone]), together.logprobs)


def test_rows_may_be_strided():
    logits = torch.randn(20, 48, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(40, generator=torch.Generator().manual_seed(1))
    rows = same_for(20, temperature=1.0, top_p=0.9)
    found = sample(logits[:, ::2], uniforms[::2], rows)
    assert torch.equal(found.ids, sample(logits[:, ::2].contiguous(), uniforms[::2].contiguous(), rows).ids)


def test_without_kernels_the_reference_serves(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(9, 24, generator=generator), torch.rand(9, generator=generator)
    rows = same_for(9, temperature=0.8, top_p=0.9)
    native = sample(logits, uniforms, rows)
    monkeypatch.setattr(ops, "library", lambda: None)
    plain = sample(logits, uniforms, rows)
    assert torch.equal(native.ids, plain.ids)
    torch.testing.assert_close(native.logprobs, plain.logprobs)


# scores at the edge


@BOTH
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize("how", [{}, {"top_p": 0.9}, {"top_k": 4}, {"min_p": 1e-30}], ids=str)
def test_an_impossible_id_is_never_drawn(draw, uniform, how):
    logits = torch.tensor([[-math.inf, 1.0, -math.inf, 2.0, -math.inf]])
    drawn = draw(logits, torch.tensor([uniform]), same_for(1, **how))
    assert drawn.ids.item() in (1, 3)
    assert math.isfinite(drawn.logprobs.item())


@BOTH
def test_a_single_possible_id_is_drawn_at_every_uniform(draw):
    logits = torch.full((101, 7), -math.inf)
    logits[:, 4] = 3.0
    drawn = draw(logits, torch.arange(101) / 101, same_for(101, temperature=0.7, top_p=0.9))
    assert drawn.ids.tolist() == [4] * 101
    assert drawn.logprobs.abs().max() < 1e-6


@BOTH
def test_logits_far_apart_do_not_overflow(draw):
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4 + 1]])
    drawn = draw(logits, torch.tensor([0.3, 0.9]), same_for(2, temperature=0.1))
    assert drawn.ids.tolist() == [0, 2]
    assert bool(drawn.logprobs.isfinite().all())


@BOTH
@pytest.mark.parametrize("temperature", [1e-38, 1e-44, 1e-6])
def test_a_temperature_next_to_zero_takes_the_most_likely(draw, temperature):
    drawn = draw(torch.tensor([[1.0, 2.0, 1.5]]), torch.tensor([0.999]), same_for(1, temperature=temperature))
    assert drawn.ids.tolist() == [1]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_row_that_is_no_distribution_gets_no_id_and_leaves_its_neighbours_alone(draw, dtype):
    good = torch.randn(70, generator=torch.Generator().manual_seed(0))
    bad = [good.clone() for _ in range(4)]
    bad[0][3], bad[1][69], bad[2][20], bad[3][:] = math.nan, math.nan, math.inf, -math.inf
    logits = torch.stack([good, bad[0], good, bad[1], bad[2], bad[3], torch.full((70,), math.nan)]).to(dtype)
    for how in ({}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}):
        drawn = draw(logits, torch.full((7,), 0.5), same_for(7, **how))
        assert (drawn.ids == -1).tolist() == [False, True, False, True, True, True, True]
        assert drawn.logprobs.isnan().tolist() == (drawn.ids == -1).tolist()
        assert drawn.ids[0] == drawn.ids[2]


# log-probabilities of given ids


def test_the_likeliest_ids_come_best_first_and_of_equals_the_lower_first():
    eighths = logits_of(0.125, 0.25, 0.125, 0.25, 0.125, 0.125)
    ((first, second, third),) = top_logprobs(eighths[None] + 7, 3)
    assert [first[0], second[0], third[0]] == [1, 3, 0]
    assert [first[1], second[1], third[1]] == pytest.approx([-math.log(4), -math.log(4), -math.log(8)])


def test_no_more_of_the_likeliest_are_reported_than_there_are():
    assert [len(row) for row in top_logprobs(torch.randn(2, 3), 20)] == [3, 3]


def test_the_log_probability_of_an_id_is_the_logarithm_of_its_share():
    found = logprobs_of(logits_of(*HALVES).expand(3, -1) - 2, torch.tensor([0, 2, -1]))
    assert found[:2].tolist() == pytest.approx([math.log(0.5), math.log(0.15)])  # -1: no id, no promise
