"""Whether guessing pays, judged from times that are handed in."""

import pytest

from tenth.engine.speculation import SpeculationGate


def drive(gate, steps, *, width=1, plain_seconds, drafted_seconds, tokens):
    """Steps as the gate wants them; a drafted one brings `tokens` per sequence. -> which were drafted"""
    chosen = []
    for _ in range(steps):
        is_drafted = gate.should_draft(width)
        chosen.append(is_drafted)
        gate.record(
            width,
            is_drafted=is_drafted,
            tokens=round(width * tokens * 10) if is_drafted else 10 * width,
            seconds=10 * (drafted_seconds if is_drafted else plain_seconds),
        )
    return chosen


def test_both_kinds_are_tried_before_anything_is_concluded():
    chosen = drive(SpeculationGate(), 16, plain_seconds=1.0, drafted_seconds=9.0, tokens=1.0)
    assert chosen == [True] * 8 + [False] * 8


@pytest.mark.parametrize(
    ("drafted_seconds", "tokens", "pays"),
    [(1.2, 1.8, True), (1.2, 1.1, False), (1.7, 1.8, True), (1.9, 1.8, False)],
)
def test_drafts_are_made_where_they_bring_more_tokens_per_second(drafted_seconds, tokens, pays):
    gate = SpeculationGate()
    drive(gate, 16, plain_seconds=1.0, drafted_seconds=drafted_seconds, tokens=tokens)
    rest = drive(gate, 200, plain_seconds=1.0, drafted_seconds=drafted_seconds, tokens=tokens)
    assert rest == [pays] * 200
    assert gate.pays(1) == pays


def test_what_does_not_pay_costs_a_few_steps_in_hundreds():
    chosen = drive(SpeculationGate(), 10_000, plain_seconds=1.0, drafted_seconds=2.0, tokens=1.1)
    assert 0.01 < sum(chosen) / len(chosen) < 0.05


def test_it_is_switched_on_again_when_it_begins_to_pay():
    gate = SpeculationGate()
    drive(gate, 100, plain_seconds=1.0, drafted_seconds=1.5, tokens=1.1)
    assert not gate.should_draft(1)
    chosen = drive(gate, 2000, plain_seconds=1.0, drafted_seconds=1.1, tokens=1.9)
    assert chosen[-200:].count(True) > 180


def test_it_is_switched_off_again_when_it_ceases_to_pay():
    gate = SpeculationGate()
    drive(gate, 100, plain_seconds=1.0, drafted_seconds=1.1, tokens=1.9)
    assert gate.should_draft(1)
    chosen = drive(gate, 2000, plain_seconds=1.0, drafted_seconds=1.5, tokens=1.1)
    assert chosen[-200:].count(False) > 180


def test_wide_batches_are_judged_apart_from_narrow_ones():
    gate = SpeculationGate()
    for _ in range(3):
        drive(gate, 40, width=1, plain_seconds=1.0, drafted_seconds=1.1, tokens=1.9)
        drive(gate, 40, width=64, plain_seconds=1.0, drafted_seconds=2.5, tokens=1.9)
    assert gate.pays(1)
    assert not gate.pays(64)
    assert not gate.should_draft(100)  # 64 to 127 count as one width


def test_a_single_slow_step_is_forgotten():
    gate = SpeculationGate()
    drive(gate, 16, plain_seconds=1.0, drafted_seconds=1.1, tokens=1.9)
    gate.record(1, is_drafted=True, tokens=2, seconds=100.0)  # somebody else had the machine
    chosen = drive(gate, 1000, plain_seconds=1.0, drafted_seconds=1.1, tokens=1.9)
    assert chosen[-500:].count(True) > 450
