"""A request that cannot be served is refused when it is made, with one sentence."""

import math

import pytest

from tenth.base.errors import ConfigError
from tenth.engine.request import Request, SamplingParams

NAN, INF = math.nan, math.inf


def params(**changes):
    return SamplingParams(**{"max_new_tokens": 8, **changes})


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("max_new_tokens", [0, -1], "must be at least 1"),
        ("n", [0, 1025], "must be from 1 to 1024"),
        ("temperature", [-0.1, NAN, INF], "must be 0 .* or a positive number"),
        ("top_p", [0.0, -1, 1.01, NAN], "must be above 0 and at most 1"),
        ("top_k", [0, -1, 2**31], "must be at least 1, or None for all"),
        ("min_p", [-0.1, 1.1, NAN], "must be from 0 .* to 1"),
        ("repetition_penalty", [0.0, -1.0, NAN, INF], "must be positive"),
        ("presence_penalty", [-2.1, 2.1, NAN], "must be from -2 to 2"),
        ("frequency_penalty", [-2.1, 2.1, NAN], "must be from -2 to 2"),
        ("min_new_tokens", [-1, 9], "must be from 0 to max_new_tokens"),
        ("seed", [2**63], "must be an integer of 64 bits"),
        ("top_logprobs", [-1, 21], "must be from 0 to 20"),
    ],
)
def test_an_impossible_number_is_refused_by_name_value_and_rule(name, values, rule):
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{name} = {value} {rule}.*\.$"):
            params(**{name: value})


@pytest.mark.parametrize("name", ["max_new_tokens", "n", "top_k", "min_new_tokens", "seed", "top_logprobs"])
def test_a_count_is_an_integer(name):
    for value in (1.5, "2", True):
        with pytest.raises(ConfigError, match=f"^{name} = {value!r} must be an integer.$"):
            params(**{name: value})


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty"])
def test_a_measure_is_a_number(name):
    for value in ("0.5", None, True):
        with pytest.raises(ConfigError, match=f"^{name} = {value!r} must be a number.$"):
            params(**{name: value})


def test_a_stop_list_of_thousands_is_refused():
    assert len(params(stop_ids=tuple(range(256))).stop_ids) == 256
    with pytest.raises(ConfigError, match="stop_ids has 5000 ids; give at most 256"):
        params(stop_ids=tuple(range(5000)))


def test_more_biases_than_a_request_may_carry_are_refused():
    with pytest.raises(ConfigError, match="logit_bias has 1025 ids; give at most 1024, or use a logit_mask"):
        params(logit_bias=dict.fromkeys(range(1025), 1.0))


def test_an_id_is_an_integer_of_zero_or_more():
    with pytest.raises(ConfigError, match="stop_ids holds -1; a token id is an integer of 0 or more"):
        params(stop_ids=(3, -1))
    with pytest.raises(ConfigError, match="logit_bias holds '7'; a token id"):
        params(logit_bias={"7": 1.0})


@pytest.mark.parametrize("bias", [NAN, INF, -INF, "1"])
def test_a_bias_is_a_finite_number(bias):
    with pytest.raises(ConfigError, match=f"logit_bias of id 3 is {bias}; give a finite number"):
        params(logit_bias={3: bias})


def test_the_borders_themselves_are_allowed():
    params(
        n=1024, temperature=0, top_p=1, top_k=2**31 - 1, min_p=1, min_new_tokens=8, top_logprobs=20,
        presence_penalty=-2, frequency_penalty=2, seed=2**63 - 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"repetition_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1},
        {"logit_bias": {1: 0.5}}, {"min_new_tokens": 1}, {"logit_mask": lambda ids: None},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_changes_scores_makes_a_row_more_than_plain(change):
    assert params(**change).adjusts
    assert not params(**change).is_plain


def test_temperature_and_filters_alone_are_plain_and_a_list_of_the_likeliest_is_not():
    assert params(temperature=0.3, top_p=0.9, top_k=5, min_p=0.1, stop_ids=(0,), n=4).is_plain
    reporting = params(top_logprobs=1)
    assert (reporting.is_plain, reporting.adjusts) == (False, False)


# requests


def request(**changes):
    return Request(**{"request_id": "r", "prompt_ids": (1, 2), "params": params(n=2), **changes})


def test_a_request_without_a_prompt_is_refused():
    with pytest.raises(ConfigError, match="request r has an empty prompt; give at least one token"):
        request(prompt_ids=())


def test_there_is_one_stream_per_sample():
    request(streams=(5, 6))
    with pytest.raises(ConfigError, match="request r has 3 streams for n = 2 samples"):
        request(streams=(5, 6, 7))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"prompt_ids": (1, 50)}, "prompt"),
        ({"prompt_ids": (-3, 1)}, "prompt"),
        ({"params": params(stop_ids=(50,))}, "stop_ids"),
        ({"params": params(logit_bias={50: 1.0})}, "logit_bias"),
    ],
)
def test_an_id_that_the_model_does_not_know_is_refused(changes, name):
    with pytest.raises(ConfigError, match=f"request r: {name} holds id -?[0-9]+, but .* has 50 ids"):
        request(**changes).check_vocabulary(50)


def test_the_last_id_of_the_vocabulary_is_known():
    request(prompt_ids=(49,), params=params(n=2, stop_ids=(49,), logit_bias={49: 1.0})).check_vocabulary(50)
