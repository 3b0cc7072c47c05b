"""The stage table of an R1 run, its costs and aims, on numbers worked out by hand (see r1_run.py)."""

from pathlib import Path
from typing import Any

import pytest
from r1_run import R1Builder

from tenth.reports.doctor_r1 import diagnose_stages
from tenth.reports.r1_aims import check_r1_aims
from tenth.reports.r1_data import wilson_interval
from tenth.reports.runs import read_run
from tenth.reports.stage_table import Better, Cell, Measure, Row, show_value, stage_rows
from tenth.reports.stages import Model, is_r1, read_models, share_activated, share_kept

ALL = ("base", "zero", "dev1", "dev2", "dev3", "r1", "student", "control_small", "control")


@pytest.fixture(scope="module")
def models(r1_run: Path) -> dict[str, Model]:
    return read_models(read_run(r1_run))


def row(models: dict[str, Model], label: str, *, group: str = "") -> Row:
    return next(
        r for r in stage_rows(list(models.values())) if r.label == label and r.group.startswith(group)
    )


def values(found: Row) -> list[float | None]:
    return [cell.value if cell else None for cell in found.cells]


def test_the_columns_are_the_papers_stages_and_the_student(models: dict[str, Model]):
    assert tuple(models) == ALL


def test_a_run_of_r1_zero_has_no_stage_table(whole_run: Path):
    run = read_run(whole_run)
    assert not is_r1(run)
    assert read_models(run) == {}


def test_every_model_stands_in_its_column(models: dict[str, Model]):
    assert values(row(models, "all families")) == [0.3, 0.8, 0.7, 0.79, 0.78, 0.8, 0.77, 0.4, 0.5]
    assert row(models, "all families").cells[5] == Cell(value=0.8, low=0.77, high=pytest.approx(0.83))


def test_families_have_rows_of_their_own(models: dict[str, Model]):
    # five points below the mean, see r1_evaluation
    assert values(row(models, "chain"))[1] == pytest.approx(0.75)
    assert values(row(models, "sorting"))[1] == pytest.approx(0.85)


def test_general_questions_are_no_part_of_the_mean(models: dict[str, Model]):
    general = values(row(models, "general questions, by rule"))
    assert general == [None, None, 0.0, 0.0, 0.6, 0.65, 0.1, None, None]


def test_readability_is_what_the_evaluation_says(models: dict[str, Model]):
    assert values(row(models, "readable for people"))[:3] == [0.4, 0.7, 0.9]
    assert values(row(models, "language consistency"))[:3] == [0.9, 0.85, 0.99]
    assert values(row(models, "closed, ordered tags"))[:3] == [0.5, 0.95, 0.98]


def test_a_stage_costs_the_stages_that_made_it(models: dict[str, Model]):
    time = row(models, "time", group="cost of its own")
    # base 10 + 100, zero 50, dev1 4 + 6, dev2 30, dev3 12 + 8, r1 5 + 25, student 40 + 7 + 13,
    # control 40 + six steps of 2 s, and 40 + 20
    assert values(time) == [110, 50, 10, 30, 20, 30, 60, 52, 60]


def test_a_lineage_costs_everything_before_it_once(models: dict[str, Model]):
    time = row(models, "time", group="cost with all")
    # dev3 begins from the base, but its data come from dev2: 110 + 50 + 10 + 30 + 20
    assert values(time) == [110, 160, 170, 200, 220, 250, 310, 62, 70]


def test_the_students_cost_is_shown_without_its_teacher_too(models: dict[str, Model]):
    assert row(models, "time", group="cost of its own").cells[6].untaught == 53  # without 7 of sampling
    assert row(models, "time", group="cost with all").cells[6].untaught == 63  # 10 + 40 + 13
    assert row(models, "time", group="cost of its own").cells[5].untaught is None


def test_the_shorter_control_costs_what_its_budget_was(models: dict[str, Model]):
    flops = values(row(models, "FLOPs", group="cost of its own"))
    assert flops[7] == pytest.approx(40e6 + 14e6)
    assert flops[8] == pytest.approx(40e6 + 20e6)


def test_dollars_follow_from_hours(models: dict[str, Model]):
    assert values(row(models, "dollars", group="cost of its own"))[0] == pytest.approx(110 / 3600 * 0.1)


def test_parameters_come_from_the_models_themselves(models: dict[str, Model]):
    # Embedding 10 x 4 and a norm of 4: 44. A layer: queries 16 + 4, one head of keys and of values 8 + 2
    # each, output 16, three matrices of 32, two norms of 4: 160. R1 has three of them.
    assert models["student"].parameters == 204
    assert models["r1"].parameters == 524
    assert share_activated(models) == pytest.approx(204 / 524)


def test_what_the_student_keeps_is_a_share_of_its_teacher(models: dict[str, Model]):
    assert share_kept(models) == pytest.approx(0.77 / 0.80)


def make_row(*shares: float | None, better: Better | None = Better.HIGH) -> Row:
    cells = tuple(None if share is None else Cell(value=share) for share in shares)
    return Row(group="g", label="l", measure=Measure.SHARE, cells=cells, better=better)


@pytest.mark.parametrize(
    ("found", "best"),
    [
        (make_row(0.1, None, 0.3), {2}),
        (make_row(0.1, 0.3, better=Better.LOW), {0}),
        (make_row(0.30001, 0.3, 0.1), {0, 1}),  # alike as far as they are shown
        (make_row(1.0, 1.0), set()),  # all alike
        (make_row(None, 0.4), set()),  # nothing to compare with
        (make_row(0.1, 0.3, better=None), set()),  # a length is neither good nor bad
    ],
)
def test_the_best_of_a_row(found: Row, best: set[int]):
    assert found.best == best


def test_numbers_are_shown_in_their_units():
    shown = {
        Measure.SHARE: "12.3",
        Measure.NUMBER: "0.1",
        Measure.SECONDS: "0.1s",
        Measure.DOLLARS: "$0.1234",
    }
    assert {measure: show_value(measure, 0.1234) for measure in shown} == shown
    assert show_value(Measure.COUNT, 1234.0) == "1.23k"


def test_every_aim_is_reached_by_a_run_that_reaches_it(models: dict[str, Model]):
    aims = check_r1_aims(models, seconds=2400.0)
    assert len(aims) == 8
    assert all(aim.is_reached for aim in aims)


def failing(aims: list[Any]) -> list[str]:
    return [aim.text for aim in aims if not aim.is_reached]


@pytest.mark.parametrize(
    ("stage", "accuracy", "changes", "words"),
    [
        (
            "16-measure-r1",
            0.765,
            {"language": 1.0, "format": 1.0},
            "R1 is as able as R1-Zero",
        ),  # Zero: from 0.77
        ("16-measure-r1", 0.80, {"language": 0.97, "format": 1.0}, "in the question's language"),
        ("16-measure-r1", 0.80, {"language": 1.0, "format": 0.98}, "closed, ordered tags"),
        ("20-measure-student", 0.75, {"language": 1.0, "format": 1.0}, "keeps at least 95%"),  # 0.75 / 0.80
    ],
)
def test_an_aim_that_is_missed_is_said_to_be(
    r1_builder: R1Builder, stage: str, accuracy: float, changes: dict[str, float], words: str
):
    r1_builder.teacher()
    r1_builder.student()
    r1_builder.measured(stage, accuracy, **changes)
    (text,) = failing(check_r1_aims(read_models(read_run(r1_builder.path)), seconds=2400.0))
    assert words in text


def test_a_control_that_is_as_good_is_not_beaten(r1_builder: R1Builder, models: dict[str, Model]):
    r1_builder.measured("22-measure-student-control", 0.77)
    equal = read_models(read_run(r1_builder.path))["control"]
    (text,) = failing(check_r1_aims({**models, "control": equal}, seconds=2400.0))
    assert "for that and the teacher's sampling" in text


def test_forty_minutes_are_the_limit(models: dict[str, Model]):
    assert failing(check_r1_aims(models, seconds=2401.0)) == ["the whole run takes at most 40 minutes"]


def test_what_is_not_measured_is_not_judged(r1_builder: R1Builder):
    assert check_r1_aims(read_models(read_run(r1_builder.path)), seconds=None) == []


def test_a_share_of_few_has_a_wide_interval():
    # Wilson's interval of 8 of 10, as in Brown, Cai and DasGupta (2001): 0.490 to 0.943
    assert wilson_interval(0.8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)


def test_healthy_stages_have_no_findings(r1_run: Path, models: dict[str, Model]):
    assert diagnose_stages(read_run(r1_run), models) == {}


def test_a_filter_that_keeps_next_to_nothing_is_named(r1_builder: R1Builder):
    r1_builder.data("06-cold-start-data", sampled=100, kept=9)
    (finding,) = diagnose_stages(read_run(r1_builder.path), {})["cold-start-data"]
    assert "Only 9 of 100 sampled answers were kept (9.0%)" in finding.sentence
    assert "“wrong” (91)" in finding.sentence


def test_a_reward_model_that_knows_length_alone_is_named(r1_builder: R1Builder):
    scores = {"accuracy": 0.6, "longer_wins": 0.6, "shorter_wins": 0.4, "held_out": 50, "training": 450}
    r1_builder.write("14-reward-models/scores.json", {"helpful": scores})
    r1_builder.finish("14-reward-models")
    (finding,) = diagnose_stages(read_run(r1_builder.path), {})["reward-models"]
    assert "right on 60.0% of 50 held-out examples" in finding.sentence


def test_forgotten_small_talk_is_found(r1_builder: R1Builder):
    r1_builder.teacher()
    value = {"general": {"overall": {"accuracy": 0.40, "low": 0.35, "high": 0.45}}, "modes": {}}
    r1_builder.write("16-measure-r1/eval.json", value)
    run = read_run(r1_builder.path)
    (finding,) = diagnose_stages(run, read_models(run))["r1"]
    assert "fell from 60.0% (Dev3) to 40.0% (R1)" in finding.sentence
