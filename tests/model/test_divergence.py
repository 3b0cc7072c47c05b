import math

import pytest
import torch
from small_models import DEEPSEEK, QWEN, build, random_ids

from tenth.base.errors import ConfigError
from tenth.model.divergence import Predictions, compare, predict
from tenth.model.quantize import quantize_model

IDS = random_ids(700).tolist()


def test_divergence_is_the_mean_over_tokens_of_p_log_p_over_q():
    # probabilities (3/4, 1/4) against (1/2, 1/2), (1/2, 1/2) against itself, (3/4, 1/4) against (1/4, 3/4)
    log3 = math.log(3)
    p = Predictions(hidden=torch.tensor([[log3, 0.0], [0.0, 0.0], [log3, 0.0]]), head=torch.eye(2))
    q = Predictions(hidden=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, log3]]), head=torch.eye(2))
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    third = 0.75 * math.log(3) + 0.25 * math.log(1 / 3)
    found = compare(p, q)
    assert found.tokens == 3
    assert found.kl_mean == pytest.approx((first + third) / 3, rel=1e-6)
    assert found.kl_p99 == pytest.approx(first + 0.98 * (third - first), rel=1e-6)
    assert found.same_top_share == pytest.approx(2 / 3)


def test_a_model_does_not_diverge_from_itself():
    model = build(DEEPSEEK, dtype=torch.float32)
    found = compare(predict(model, IDS), predict(model, IDS))
    assert (found.tokens, found.kl_mean, found.kl_p99, found.same_top_share) == (700, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("config", [QWEN, DEEPSEEK], ids=lambda config: config.name)
def test_four_bits_diverge_more_than_eight_and_eight_more_than_none(config):
    original = predict(build(config), IDS)
    eight, four = (compare(original, predict(quantize_model(build(config), bits), IDS)) for bits in (8, 4))
    assert 0 < eight.kl_mean < 0.1 * four.kl_mean
    assert eight.kl_mean < eight.kl_p99
    assert four.same_top_share < eight.same_top_share < 1


def test_the_original_s_predictions_survive_its_quantisation():
    model = build(QWEN)
    before = predict(model, IDS)
    quantize_model(model, 4).to_compute_dtype(torch.bfloat16)
    assert compare(before, predict(build(QWEN), IDS)).kl_mean == 0


@pytest.mark.parametrize("ids", [[], [40]])
def test_a_text_that_the_model_cannot_read_is_one_sentence(ids):
    with pytest.raises(ConfigError, match="cannot be read by a model of 40 tokens"):
        predict(build(QWEN), ids)
