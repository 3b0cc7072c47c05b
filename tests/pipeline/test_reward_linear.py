import math

import pytest
import torch

from tenth.pipeline.reward_linear import (
    LinearJudge,
    choose_strength,
    coordinates,
    fit_logistic,
    scaled,
    word_rows,
    words_of,
)


def test_words_are_words_characters_and_marks():
    assert words_of("It's 3 o'clock, 你好!") == ["it", "'", "s", "3", "o", "'", "clock", ",", "你", "好", "!"]


def test_inner_products_of_word_rows_by_hand():
    # pair 1: "a" twice against "b": log 3 of a, -log 2 of b. pair 2: "b" against nothing: log 2 of b
    rows = word_rows(["a a", "b"], ["b", ""])
    products = rows @ rows.T
    first, second, both = math.log(3) ** 2 + math.log(2) ** 2, math.log(2) ** 2, -(math.log(2) ** 2)
    mean = (first + second) / 2
    expected = torch.tensor([[first, both], [both, second]], dtype=torch.float64) / mean
    torch.testing.assert_close(products, expected, atol=1e-6, rtol=1e-5)


def test_coordinates_keep_every_inner_product():
    rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    products = rows @ rows.T
    found = coordinates(products)
    assert found.shape[1] <= 6
    torch.testing.assert_close(found @ found.T, products / products.diagonal().mean())


def test_a_logistic_regression_of_one_feature_by_hand():
    # all rows are 1: -n log sigmoid(w) + s w^2 / 2 is smallest where n sigmoid(-w) = s w
    weight = float(fit_logistic(torch.ones(10, 1, dtype=torch.float64), strength=1.0))
    assert 10 / (1 + math.exp(weight)) == pytest.approx(weight, abs=1e-3)


def test_the_gradient_vanishes_at_the_weights_that_are_found():
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = fit_logistic(rows, strength=0.3)
    gradient = -(rows * torch.sigmoid(-rows @ weights)[:, None]).sum(0) + 0.3 * weights
    assert gradient.abs().max() < 1e-2


def test_noise_is_regularised_more_than_a_clear_signal():
    generator = torch.Generator().manual_seed(3)
    noise = scaled(torch.randn(60, 40, generator=generator))
    signal = noise.clone()
    signal[:, 0] = noise[:, 0].abs()
    groups = [str(place) for place in range(60)]
    assert choose_strength(noise, seed=1, groups=groups) >= choose_strength(signal, seed=1, groups=groups)


def test_it_finds_the_word_that_decides_and_nothing_in_words_it_never_saw():
    better = [f"good w{place}" for place in range(20)]
    worse = [f"bad w{place}" for place in range(20)]
    judge = LinearJudge(word_rows([*better, "unseen"], [*worse, "unknown"]), [str(i) for i in range(21)])
    margins = judge(list(range(15)), list(range(15, 21)), 1)
    assert all(margin > 0.1 for margin in margins[:5])
    assert margins[5] == pytest.approx(0, abs=1e-6)
