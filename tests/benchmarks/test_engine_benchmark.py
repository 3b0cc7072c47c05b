"""What the engine benchmark computes from its measurements; nothing is timed here."""

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.engine_cases import (
    CASES,
    LLAMA,
    TENTH,
    TRANSFORMERS,
    Case,
    StoredBytes,
    bytes_per_step,
    choose_cases,
    expert_share,
    start,
    usd_per_million_tokens,
    variations,
)
from benchmarks.engine_quality import counts, divergence, kl_per_token
from benchmarks.engine_rounds import Round, agreement, random_prompts, summary
from benchmarks.engine_side import Timing
from benchmarks.engine_tables import engine_table
from tenth.model.presets import preset

CASE = Case(
    shape="dense-5m",
    weights="bf16",
    batch=2,
    prompt_tokens=4,
    new_tokens=4,
    aims={LLAMA: 2.0, TRANSFORMERS: 9.0},
)
STORED = StoredBytes(dense_bytes=1_000_000, expert_bytes=0, bits_per_weight=16.0)


def timing(step: float, *, ids=((1, 2, 3, 4), (5, 6, 7, 8)), prefill: float = 0.5) -> Timing:
    return Timing(prefill_seconds=prefill, step_seconds=(step, step, 9.0), ids=ids)


def rounds() -> list[Round]:
    fast = {TENTH: timing(0.01), LLAMA: timing(0.02), TRANSFORMERS: timing(0.08)}
    slow = {TENTH: timing(0.02), LLAMA: timing(0.06), TRANSFORMERS: timing(0.16)}
    return [Round(read_gb_per_s=40.0, timings=fast), Round(read_gb_per_s=20.0, timings=slow)]


def test_a_ratio_compares_neighbours_in_time():
    # 0.02 / 0.01 and 0.06 / 0.02: never a round of one with a round of the other
    ratio = summary(CASE, rounds(), dict.fromkeys((TENTH, LLAMA, TRANSFORMERS), STORED))["ratios"][LLAMA]
    assert ratio["rounds"] == [2.0, 3.0]


def test_a_step_that_stalled_moves_the_mean_and_not_the_median():
    side = summary(CASE, rounds(), dict.fromkeys((TENTH, LLAMA, TRANSFORMERS), STORED))["sides"][TENTH]
    assert side["tokens_per_s"]["rounds"] == [200.0, 100.0]  # 2 sequences / 0.01 s
    assert side["mean_tokens_per_s"]["rounds"][0] == pytest.approx(2 * 3 / 9.02, abs=1e-5)


def test_a_share_uses_the_bandwidth_of_its_own_round():
    # The cache: 2 sequences x 6 tokens x 6 layers x 2 x 2 heads x 64 numbers x 2 bytes = 36,864 bytes
    size = 1_000_000 + 36_864
    assert bytes_per_step(CASE, STORED) == size
    side = summary(CASE, rounds(), dict.fromkeys((TENTH, LLAMA, TRANSFORMERS), STORED))["sides"][TENTH]
    expected = [size / 0.01 / 40e9, size / 0.02 / 20e9]
    assert side["bandwidth_share"]["rounds"] == pytest.approx(expected, abs=1e-5)


def test_one_token_visits_its_own_experts_and_many_visit_nearly_all():
    mini = preset("dsv3-mini")  # 4 of 16
    assert expert_share(mini, batch=1) == 0.25
    assert expert_share(mini, batch=2) == 1 - 0.75**2
    assert expert_share(mini, batch=64) > 0.999
    assert expert_share(preset("dense-5m"), batch=64) == 0


def test_a_million_tokens_at_100_per_second_take_ten_thousand_seconds_of_rent():
    assert usd_per_million_tokens(100, price_per_hour=0.36) == pytest.approx(1.0)


def test_texts_agree_up_to_the_first_difference():
    other = ((1, 2, 9, 4), (5, 6, 7, 8))  # half of the first text, all of the second
    timings = {TENTH: timing(0.01), LLAMA: timing(0.01, ids=other)}
    assert agreement([Round(read_gb_per_s=1.0, timings=timings)]) == {LLAMA: 0.75}


def test_divergence_is_that_of_two_coins():
    # 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4)
    fair, loaded = np.log(np.float32([[0.5, 0.5]])), np.log(np.float32([[0.25, 0.75]])) + 7
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_per_token(fair, loaded)[0] == pytest.approx(expected, abs=1e-6)
    assert divergence(iter([(fair, fair)])).kl_mean == 0


@pytest.mark.parametrize(
    ("bits", "kl", "is_counted"), [(4.5, 0.09, True), (4.5, 0.11, False), (5.0, 0.09, False)]
)
def test_a_small_format_counts_only_at_no_more_bits_and_no_more_divergence(bits, kl, is_counted):
    peer = {"bits_per_weight": 4.5, "kl_mean": 0.1}
    assert counts({"bits_per_weight": bits, "kl_mean": kl}, peer) is is_counted


def test_no_prompt_comes_twice_so_no_prefix_cache_helps():
    one, two = random_prompts(CASE, number=0), random_prompts(CASE, number=1)
    assert len({tuple(prompt) for prompt in one + two}) == 4
    assert one == random_prompts(CASE, number=0)


def test_the_scan_begins_with_a_value_of_every_key_that_it_varies():
    for case in CASES.values():
        for peer in case.peers:
            first = start(peer, case)
            assert all(first[key] in values for key, values in variations(peer, case))


def test_cases_are_chosen_by_name_or_by_how_their_names_begin():
    assert {case.batch for case in choose_cases(["dsv3-mini"])} == {1, 16, 64}
    assert [case.batch for case in choose_cases(["dsv3-mini/bf16/batch-1"])] == [1]
    with pytest.raises(SystemExit, match="no case begins with 'gpt'"):
        choose_cases(["gpt"])


def test_the_table_says_which_aims_were_reached():
    row = {
        **dataclasses.asdict(CASE),
        **summary(CASE, rounds(), dict.fromkeys((TENTH, LLAMA, TRANSFORMERS), STORED)),
        **{"agreement": {}, "settings": {LLAMA: {"threads": 2, "repack": False}}, "commit": "abc"},
    }
    result = {
        "machine": {"cpu": "a", "cores": 2, "torch": "b", "commit": "c"},
        **{"command": "d", "date": "2026-01-01", "price_per_hour": 0.36, "cases": {CASE.name: row}},
    }
    text = engine_table(result, {"cases": {}})
    assert f"{CASE.name}, × llama.cpp | 2 | 2.50 | reached" in text
    assert f"{CASE.name}, × transformers | 9 | 8.00 | missed" in text
    assert "threads 2, no repack" in text
    assert "| **150** |" in text  # between 200 and 100 tokens per second
    assert "| 0.667 |" in text  # dollars: a million at 150 per second, 0.36 an hour
