"""Cost, aims, seeds and the choice of samples, on numbers worked out by hand."""

from pathlib import Path

import pytest
from synthetic_run import RunBuilder, build_whole_run, evaluation, rollout, sample, score

from tenth.base.errors import RunError
from tenth.reports.aims import check_aims, families_beyond_documents
from tenth.reports.cost import stage_costs, total_cost
from tenth.reports.pairs import pair_samples, rollouts_along_the_way
from tenth.reports.runs import read_run
from tenth.reports.scores import parse_evaluation, parse_sample
from tenth.reports.seeds import base_pass_at_16, markdown_table, summarise_seeds
from tenth.reports.spread import spread


def test_a_stage_costs_its_share_of_an_hour(builder: RunBuilder):
    builder.done("02-base", seconds=360.0, tokens=6e6, flops=3.6e13)
    (cost,) = stage_costs(read_run(builder.path))
    assert cost.usd == pytest.approx(0.01)  # a tenth of an hour at $0.10
    # 3.6e13 FLOPs in 360 s are 1e11 a second, half of the measured 2e11
    assert cost.peak_share == pytest.approx(0.5)


def test_an_unfinished_stage_costs_its_steps_so_far(builder: RunBuilder):
    builder.write_rows("02-base/metrics.jsonl", [{"step": i, "step_time": 1.5} for i in range(4)])
    (cost,) = stage_costs(read_run(builder.path))
    assert (cost.seconds, cost.is_done) == (6.0, False)


def test_the_total_counts_seconds_without_arithmetic_too(builder: RunBuilder):
    builder.done("01-documents", seconds=90.0)
    builder.done("02-base", seconds=90.0, flops=1.8e13)
    run = read_run(builder.path)
    total = total_cost(stage_costs(run), run=run)
    assert total.seconds == 180.0
    assert total.peak_share == pytest.approx(0.5)  # 1.8e13 / (180 * 2e11)


def test_without_a_price_there_are_no_dollars(tmp_path: Path):
    free = RunBuilder(tmp_path / "free", price_usd_per_hour=None, matmul_peak_flops=None)
    free.done("02-base", seconds=1.0, flops=1.0)
    (cost,) = stage_costs(read_run(free.path))
    assert (cost.usd, cost.peak_share) == (None, None)


def test_a_family_goes_beyond_the_documents_when_it_tests_longer_problems():
    found = parse_evaluation(evaluation({"sampled": 0.9}))  # levels 2 to 7
    assert families_beyond_documents(found, {"chain": 6, "gcd": 7}) == ["chain"]


def test_every_aim_of_the_synthetic_run_is_reached():
    ways = {"sampled": 0.3, "greedy": 0.35, "forced_think": 0.6, "forced_direct": 0.15}
    base, zero = parse_evaluation(evaluation(ways)), parse_evaluation(evaluation({"sampled": 0.9}))
    aims = check_aims(base, zero, seconds=700.0)
    assert len(aims) == 6
    assert all(aim.is_reached for aim in aims)


def test_a_base_that_is_as_good_in_one_way_is_not_beaten():
    ways = {"sampled": 0.3, "greedy": 0.35, "forced_think": 0.9, "forced_direct": 0.15}
    base, zero = parse_evaluation(evaluation(ways)), parse_evaluation(evaluation({"sampled": 0.9}))
    missed = [aim.text for aim in check_aims(base, zero, seconds=700.0) if not aim.is_reached]
    assert missed == ["R1-Zero beats the base in each of the 4 ways it is measured"]


def test_a_way_that_was_not_measured_is_not_beaten():
    base, zero = (
        parse_evaluation(evaluation({"sampled": 0.3})),
        parse_evaluation(evaluation({"sampled": 0.9})),
    )
    missed = [aim.text for aim in check_aims(base, zero, seconds=None) if not aim.is_reached]
    assert "R1-Zero beats the base in each of the 4 ways it is measured" in missed


def test_spread_is_mean_lowest_and_highest():
    assert spread([0.8, 0.9, 1.0]) == {
        "mean": pytest.approx(0.9),
        "min": 0.8,
        "max": 1.0,
        "values": [0.8, 0.9, 1.0],
    }


def test_spread_leaves_out_what_a_run_does_not_have():
    assert spread([None, 0.5])["mean"] == 0.5
    assert spread([None])["mean"] is None


def test_three_seeds_become_one_table(tmp_path: Path):
    paths = [build_whole_run(tmp_path / f"seed{seed}", seed=seed) for seed in (1, 2, 3)]
    for path, accuracy in zip(paths, (0.85, 0.9, 0.95), strict=True):
        RunBuilder.write(_at(path), "05-measure-zero/eval.json", evaluation({"sampled": accuracy}))
    summary = summarise_seeds([read_run(path) for path in paths])
    row = summary["numbers"]["R1-Zero"]
    assert (row["mean"], row["min"], row["max"]) == (pytest.approx(0.9), 0.85, 0.95)
    assert summary["numbers"]["base, template, sampled"]["mean"] == pytest.approx(0.3)
    assert [run["seed"] for run in summary["runs"]] == [1, 2, 3]
    assert "| R1-Zero | 90.0% | 85.0% | 95.0% |" in markdown_table(summary)
    assert "| gain, total | +60.0 points | +55.0 points | +65.0 points |" in markdown_table(summary)


def test_a_run_that_is_not_measured_has_no_place_in_the_table(builder: RunBuilder):
    builder.base()
    with pytest.raises(RunError, match="run part has no measure-zero evaluation yet"):
        summarise_seeds([read_run(builder.path)])


def test_pass_at_16_is_taken_where_it_was_measured():
    value = {"modes": {"sampled_pass16": {"overall": score(0.3, pass_at={"1": 0.3, "16": 0.8})}}}
    assert base_pass_at_16(parse_evaluation(value)) == 0.8
    assert base_pass_at_16(parse_evaluation(evaluation({"sampled": 0.3}))) is None


def test_pairs_follow_the_hashes_and_not_the_outcome():
    def rows(text: str, is_correct: bool):
        ids = ["c3", "a1", "b2"]
        return [parse_sample(sample(i, family="gcd", text=text, is_correct=is_correct)) for i in ids]

    pairs = pair_samples(rows("before", False), rows("after", True), per_family=2)
    assert [pair.before.problem_id for pair in pairs] == ["a1", "b2"]
    assert {(pair.before.text, pair.after.text) for pair in pairs} == {("before", "after")}


def test_only_problems_that_both_answered_are_paired():
    before = [parse_sample(sample("a", family="gcd", text="", is_correct=False))]
    after = [parse_sample(sample("b", family="gcd", text="", is_correct=False))]
    assert pair_samples(before, after, per_family=1) == []


def test_rollouts_are_picked_evenly_from_first_to_last(builder: RunBuilder):
    for step in range(11):
        builder.write_rows(f"04-zero/rollouts/{step:06d}.jsonl", [rollout(step)])
    files = read_run(builder.path).stage("zero").rollout_files()
    assert [r.policy_step for r in rollouts_along_the_way(files, count=3)] == [0, 5, 10]
    assert [r.policy_step for r in rollouts_along_the_way(files[:1], count=3)] == [0]
    assert rollouts_along_the_way([], count=3) == []


def _at(path: Path) -> RunBuilder:
    found = RunBuilder.__new__(RunBuilder)
    found.path = path
    return found
