"""Where the gain comes from, on numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import evaluation, score

from tenth.reports.gain import explain_gain, lost_to_format
from tenth.reports.scores import Evaluation, parse_evaluation

shares = st.floats(0, 1)


def build(modes: dict[str, dict], families: dict[str, dict] | None = None) -> Evaluation:
    return parse_evaluation(
        {"modes": {mode: {"overall": row, "families": families or {}} for mode, row in modes.items()}}
    )


def test_unreadable_answers_count_as_right_as_often_as_readable_ones():
    # 40 % right, 80 % readable: half of the readable are right, so the unreadable 20 % would bring 10 points
    base = build({"sampled": score(0.4, format=0.8)})
    assert lost_to_format(base) == pytest.approx(0.1)


def test_three_parts_of_a_rise():
    base = build({"sampled": score(0.4, format=0.8), "forced_think": score(0.7)})
    gain = explain_gain(base, build({"sampled": score(0.95)}))
    assert gain is not None
    assert gain.format == pytest.approx(0.1)  # 0.4 * 0.2 / 0.8
    assert gain.thinking == pytest.approx(0.2)  # 0.7 - 0.4 - 0.1
    assert gain.ability == pytest.approx(0.25)  # 0.95 - 0.7
    assert gain.total == pytest.approx(0.55)


def test_families_are_weighted_by_their_problems():
    # family a: 0.5 * 0.5 / 0.5 = 0.5 on 300 problems; family b loses nothing on 100; (3 * 0.5 + 0) / 4
    families = {"a": score(0.5, format=0.5, problems=300), "b": score(0.5, format=1.0, problems=100)}
    assert lost_to_format(build({"sampled": score(0.5)}, families)) == pytest.approx(0.375)


def test_with_nothing_readable_the_format_part_is_zero():
    assert lost_to_format(build({"sampled": score(0.0, format=0.0)})) == 0.0


def test_a_lenient_checker_cannot_credit_the_unreadable_with_more_than_their_share():
    # right 60 %, well-formed 50 %: at most the other 50 % could be gained
    assert lost_to_format(build({"sampled": score(0.6, format=0.5)})) == pytest.approx(0.5)


def test_a_base_that_thinks_badly_has_a_negative_part():
    base = build({"sampled": score(0.5, format=1.0), "forced_think": score(0.2)})
    gain = explain_gain(base, build({"sampled": score(0.9)}))
    assert gain is not None
    assert gain.thinking == pytest.approx(-0.3)


def test_without_the_forced_measurement_nothing_is_explained():
    assert explain_gain(build({"sampled": score(0.5)}), build({"sampled": score(0.9)})) is None


@given(start=shares, think=shares, end=shares, readable=shares)
def test_the_parts_always_add_up_to_the_rise(start: float, think: float, end: float, readable: float):
    base = build({"sampled": score(start, format=readable), "forced_think": score(think)})
    gain = explain_gain(base, build({"sampled": score(end)}))
    assert gain is not None
    assert gain.format + gain.thinking + gain.ability == pytest.approx(end - start, abs=1e-9)
    assert 0.0 <= gain.format <= 1.0 - readable + 1e-9


def test_the_synthetic_evaluation_parses():
    assert parse_evaluation(evaluation({"sampled": 0.3})).score("sampled", "gcd") is not None
