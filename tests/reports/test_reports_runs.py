"""Reading, listing and comparing run directories in any state."""

from pathlib import Path

import pytest
from synthetic_run import RunBuilder, build_whole_run

from tenth.base.errors import DataError, RunError
from tenth.reports.runs import (
    bytes_under,
    checkpoints_of,
    compare_recipes,
    compare_results,
    delete_directories,
    find_run,
    find_runs,
    flatten,
    read_rollouts,
    read_run,
    summarise_run,
)


def test_stages_are_found_by_the_name_after_the_dash(builder: RunBuilder):
    builder.done("7-measure-base", seconds=1.0)
    builder.done("12-zero", seconds=1.0)
    builder.done("02-base", seconds=1.0)
    run = read_run(builder.path)
    assert [stage.name for stage in run.stages] == ["base", "measure-base", "zero"]
    assert run.stage("zero").number == 12
    assert run.stage("measure-zero") is None


def test_a_stage_without_its_marker_is_not_done(builder: RunBuilder):
    builder.write_rows("02-base/metrics.jsonl", [{"step": 0, "loss": 1.0}])
    assert read_run(builder.path).stage("base").done is None


def test_what_is_missing_is_empty(builder: RunBuilder):
    run = read_run(builder.path)
    assert run.stages == ()
    assert run.metrics("zero") == []
    assert run.evaluation("measure-zero") is None
    assert run.corpus_reflection_per_1k() is None


def test_a_torn_last_line_is_left_out(builder: RunBuilder):
    builder.write_rows("02-base/metrics.jsonl", [{"step": 0, "loss": 1.0}])
    with (builder.path / "02-base" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    assert read_run(builder.path).metrics("base") == [{"step": 0, "loss": 1.0}]


def test_a_newer_format_is_refused_with_the_remedy(tmp_path: Path):
    RunBuilder(tmp_path / "new", format_version=99)
    with pytest.raises(RunError, match=r"format version 99, this tenth reads up to 1; update tenth"):
        read_run(tmp_path / "new")


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"no run\.json"):
        read_run(tmp_path)


def test_a_run_is_found_by_name_or_path(whole_run: Path):
    assert find_run("synthetic", root=whole_run.parent) == whole_run
    assert find_run(str(whole_run), root=Path("elsewhere")) == whole_run


def test_an_unknown_run_names_the_known_ones(whole_run: Path):
    with pytest.raises(RunError, match=r"there is no run 'mian'; runs in .*: synthetic\."):
        find_run("mian", root=whole_run.parent)


def test_no_runs_directory_is_no_runs(tmp_path: Path):
    assert find_runs(tmp_path / "nothing") == []


def test_a_finished_run_in_one_line(whole_run: Path):
    line = summarise_run(whole_run)
    # 10 + 360 + 30 + 240 + 20 + 20 seconds
    assert (line.stage, line.is_done, line.seconds, line.accuracy) == ("measure-controls", True, 680.0, 0.9)


def test_a_run_that_cannot_be_read_does_not_end_the_list(tmp_path: Path):
    RunBuilder(tmp_path / "new", format_version=99)
    assert "format version 99" in summarise_run(tmp_path / "new").problem


def test_before_reinforcement_the_base_is_the_accuracy(builder: RunBuilder):
    builder.base()
    assert summarise_run(builder.path).accuracy == 0.3


def test_recipes_are_compared_key_by_key(tmp_path: Path):
    one, two = RunBuilder(tmp_path / "one", seed=1), RunBuilder(tmp_path / "two", seed=2)
    differences = compare_recipes(read_run(one.path), read_run(two.path))
    assert [(d.name, d.first, d.second) for d in differences] == [("seed", 1, 2)]


def test_results_are_compared_also_where_one_run_has_none(tmp_path: Path):
    whole = read_run(build_whole_run(tmp_path / "whole"))
    empty = read_run(RunBuilder(tmp_path / "empty").path)
    found = {d.name: (d.first, d.second) for d in compare_results(whole, empty)}
    assert found["measure-zero / sampled"] == (0.9, None)


def test_nested_settings_become_dotted_keys():
    assert flatten({"a": 1, "b": {"c": {"d": 2}}}) == {"a": 1, "b.c.d": 2}


def test_deleting_checkpoints_keeps_the_rest(tmp_path: Path):
    path = build_whole_run(tmp_path / "run")
    checkpoints = checkpoints_of(read_run(path))
    assert bytes_under(checkpoints) == 1000
    delete_directories(checkpoints)
    assert not (path / "04-zero" / "checkpoint").exists()
    assert (path / "04-zero" / "metrics.jsonl").exists()


def test_rollouts_come_back_as_records(whole_run: Path):
    files = read_run(whole_run).stage("zero").rollout_files()
    assert [read_rollouts(file)[0].policy_step for file in files] == [0, 10, 20, 30, 40, 50]


def test_a_row_that_is_no_rollout_is_one_sentence(tmp_path: Path):
    path = tmp_path / "000000.jsonl"
    path.write_text('{"problem": 1}\n')
    with pytest.raises(DataError, match="a row is no Rollout"):
        read_rollouts(path)
