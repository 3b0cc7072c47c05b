"""The whole flow, killed between stages and inside them; a changed recipe; one stage again."""

import shutil
import signal
from pathlib import Path

import pytest
from kill_points import Point, contents

from tenth.base.errors import RunError
from tenth.base.files import read_json
from tenth.pipeline.r1 import CONTROL, STORY, run_r1
from tenth.pipeline.zero import run_zero

SMOKE = Path(__file__).parents[2] / "recipes/tiny/smoke.toml"
DIRS = {name: f"{number:02d}-{name}" for number, name in enumerate((*STORY, *CONTROL), start=1)}
STUDENT = ["student", "measure-student", "student-control", "measure-student-control"]
APPLY = "tenth.training.optim:WeightUpdater.apply"
# Armed when the named stage begins; a stage that samples a set has no steps to announce.
POINTS = (
    Point(
        name="a set is sampled and not yet judged",
        stage="measure-zero",
        target="tenth.pipeline.sample_filter:write_lines",
        call=1,
        is_after=True,
    ),
    Point(name="mid-fine-tuning", stage="cold-start", target=APPLY, call=10),
    Point(name="between stages", stage="measure-cold-start", target="tenth.pipeline.stage:_is_done", call=1),
    Point(name="mid-rollout", stage="reasoning-rl", target="tenth.engine.engine:draw", call=60),
    Point(name="mid-reward-model", stage="safe", target=APPLY, call=3),
    Point(name="mid-preference-step", stage="r1", target=APPLY, call=3),
    Point(name="mid-control", stage="student-control", target=APPLY, call=2),
)


class Watch:
    """A sink that notes which stages have begun, and may stop there."""

    def __init__(self, stop_at=None):
        self.began, self.stop_at = [], stop_at

    def start_stage(self, stage, *, total_steps):
        self.began.append(stage)
        if stage == self.stop_at:
            raise KeyboardInterrupt

    def log(self, stage, step, metrics):
        pass

    def end_stage(self, stage):
        pass


def marks(run_dir):
    return {path.parent.name: path.stat().st_mtime_ns for path in run_dir.glob("*/DONE.json")}


def test_killed_at_seven_places_one_after_another_the_flow_ends_bit_for_bit_the_same(
    smoke, r1_reference, r1_finished
):
    for name in (*STORY, *CONTROL)[5:]:
        shutil.rmtree(r1_finished / DIRS[name])
    shutil.rmtree(r1_finished / DIRS["measure-zero"])
    order = {"recipe": "r1-smoke.toml"}
    often = "checkpoint_every_seconds=0.001"
    for point in POINTS:
        assert smoke.run(r1_finished.parent, often, point=point.to_json(), **order) == -signal.SIGKILL
    assert smoke.run(r1_finished.parent, often, **order) == 0
    continued, uninterrupted = contents(r1_finished), contents(r1_reference)
    assert continued.keys() == uninterrupted.keys()
    assert [name for name in continued if continued[name] != uninterrupted[name]] == []


def test_what_is_done_is_not_done_again(r1_finished):
    before, watch = marks(r1_finished), Watch()
    assert run_r1(r1_finished, sinks=[watch]) == r1_finished
    assert (marks(r1_finished), watch.began) == (before, [])


def test_a_changed_section_is_refused_with_the_stages_that_it_would_make_again(r1_finished):
    before = contents(r1_finished)
    with pytest.raises(
        RunError,
        match=r"student.sft.epochs changed, so student, measure-student, student-control, "
        r"measure-student-control will run again .* student-base, student-data stay\); add --yes",
    ):
        run_r1(r1_finished, ["student.sft.epochs=1"])
    assert contents(r1_finished) == before
    assert read_json(r1_finished / "recipe.json")["student"]["sft"]["epochs"] == 12


def test_after_yes_only_what_hangs_on_the_change_is_made_again(r1_finished):
    before, said = marks(r1_finished), []
    run_r1(r1_finished, ["student.sft.epochs=1"], yes=True, say=said.append)
    after = marks(r1_finished)
    assert {name for name in before if before[name] != after[name]} == {DIRS[name] for name in STUDENT}
    assert f"{', '.join(STUDENT)} will run again" in said[0]
    assert read_json(r1_finished / DIRS["student"] / "inputs.json")["settings"]["epochs"] == 1


def test_one_stage_alone_is_made_again_and_what_hangs_on_it_is_named(r1_finished):
    before, said = marks(r1_finished), []
    run_r1(r1_finished, again="student", say=said.append)
    after = marks(r1_finished)
    assert [name for name in before if before[name] != after[name]] == [DIRS["student"]]
    assert "measure-student, student-control, measure-student-control were made from the earlier" in said[-1]
    with pytest.raises(RunError, match="results that they are made from have changed, so measure-student, "):
        run_r1(r1_finished)


def test_a_set_says_how_much_was_kept_and_which_rule_dropped_how_many(r1_finished):
    said = []
    run_r1(r1_finished, again="student-data", say=said.append)
    dropped = read_json(r1_finished / DIRS["student-data"] / "dropped.json")
    kept = len((r1_finished / DIRS["student-data"] / "samples.jsonl").read_text().splitlines())
    (sentence,) = [text for text in said if text.startswith("student-data: ")]
    assert f"{kept} of 64 answers kept; dropped: " in sentence
    for rule, facts in dropped.items():
        assert f"{rule} {facts['samples']}" in sentence


def test_a_stage_that_is_not_known_or_not_ready_is_one_sentence(r1_finished):
    with pytest.raises(RunError, match="there is no stage 'dev1'; the stages are documents, base"):
        run_r1(r1_finished, again="dev1")
    shutil.rmtree(r1_finished / DIRS["cold-start-data"])
    with pytest.raises(RunError, match="stage 'cold-start' needs stage 'cold-start-data', which is not done"):
        run_r1(r1_finished, again="cold-start")


def test_a_setting_cannot_change_while_one_stage_runs_alone(r1_finished):
    with pytest.raises(RunError, match=r"student.sft.epochs cannot change while --again runs a single stage"):
        run_r1(r1_finished, ["student.sft.epochs=1"], again="student")


def test_a_run_of_r1_zero_goes_on_as_the_whole_flow_and_not_the_other_way_round(r1_finished):
    for name in (*STORY, *CONTROL)[5:]:
        shutil.rmtree(r1_finished / DIRS[name])
    watch = Watch(stop_at="cold-start")
    with pytest.raises(KeyboardInterrupt):
        run_r1(r1_finished, sinks=[watch])
    assert watch.began == ["cold-start"]
    with pytest.raises(RunError, match="holds a run of more stages; give this one another name"):
        run_zero(SMOKE, ["name=r1-smoke"], runs_dir=r1_finished.parent)
