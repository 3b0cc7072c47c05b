import math

import pytest
import torch

from tenth.pipeline.reward_linear import (
    LinearJudge,
    choose_strength,
    feature_products,
    fit_logistic,
    word_products,
    words_of,
)


def test_words_are_words_characters_and_marks():
    assert words_of("It's 3 o'clock, 你好!") == ["it", "'", "s", "3", "o", "'", "clock", ",", "你", "好", "!"]


def test_inner_products_of_words_by_hand():
    # pair 1: "a" twice against "b": log 3 of a, -log 2 of b. pair 2: "b" against nothing: log 2 of b
    products = word_products(["a a", "b"], ["b", ""])
    first, second, both = math.log(3) ** 2 + math.log(2) ** 2, math.log(2) ** 2, -(math.log(2) ** 2)
    mean = (first + second) / 2
    expected = torch.tensor([[first, both], [both, second]], dtype=torch.float64) / mean
    torch.testing.assert_close(products, expected, atol=1e-6, rtol=1e-5)


def test_every_feature_counts_the_same_whatever_its_size():
    rows = torch.tensor([[1.0, 100.0], [1.0, -100.0]])
    torch.testing.assert_close(feature_products(rows), torch.eye(2, dtype=torch.float64))


def test_a_logistic_regression_of_one_feature_by_hand():
    # all rows are 1: n log(1 + exp(-w)) + s w^2 / 2 is smallest where n sigmoid(-w) = s w
    ones = torch.ones(10, 10, dtype=torch.float64)
    weight = float(fit_logistic(ones, strength=1.0).sum())
    assert 10 / (1 + math.exp(weight)) == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("strength", [0.03, 3.0])
def test_the_gradient_vanishes_at_the_weights_that_are_found(strength):
    rows = torch.randn(30, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = rows.T @ fit_logistic(rows @ rows.T, strength=strength)  # of the features
    gradient = -(rows * torch.sigmoid(-rows @ weights)[:, None]).sum(0) + strength * weights
    assert gradient.abs().max() < 1e-6


def test_noise_is_regularised_more_than_a_clear_signal():
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(60, 40, generator=generator)
    signal = noise.clone()
    signal[:, 0] = noise[:, 0].abs() * 3
    groups = [str(place) for place in range(60)]
    chosen = [choose_strength(feature_products(rows), seed=1, groups=groups) for rows in (noise, signal)]
    assert chosen[0] > chosen[1]


def test_it_finds_the_word_that_decides_and_nothing_in_words_it_never_saw():
    better = [f"good w{place}" for place in range(20)]
    worse = [f"bad w{place}" for place in range(20)]
    judge = LinearJudge(word_products([*better, "unseen"], [*worse, "unknown"]), [str(i) for i in range(21)])
    margins = judge(list(range(15)), list(range(15, 21)), 1)
    assert all(margin > 0.1 for margin in margins[:5])
    assert margins[5] == pytest.approx(0, abs=1e-6)
