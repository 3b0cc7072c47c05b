"""Stages: what is done is not done again, what another recipe made is not touched, time adds up."""

import dataclasses
import json

import pytest

from tenth.base.errors import DataError, RunError
from tenth.pipeline.stage import (
    Outcome,
    Stage,
    StageClock,
    adopt_records,
    done_number,
    open_log,
    remove_stages,
    renew_stage,
    require_ready,
    run_stages,
    stale_stages,
)


class Story:
    """Two stages that count how often they run."""

    def __init__(self, run_dir):
        self.run_dir, self.ran = run_dir, []

    def run(self, *, first=1, second=2, fails=False):
        def work(name):
            def run(directory):
                self.ran.append(name)
                if fails and name == "second":
                    raise KeyboardInterrupt
                (directory / "result.txt").write_text(name)
                return Outcome(summary={"name": name}, tokens=3.0)

            return run

        stages = [
            Stage(name="first", settings={"value": first}, run=work("first")),
            Stage(name="second", needs=("first",), settings={"value": second}, run=work("second")),
        ]
        run_stages(self.run_dir, stages)
        return self

    def read(self, name):
        return json.loads((self.run_dir / name).read_text())


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "story")


@pytest.mark.parametrize("text", ["", '{"tokens": 3', "[]", "{}", '{"tokens": null}', '{"tokens": -1}'])
def test_a_damaged_record_of_a_finished_stage_is_named(tmp_path, text):
    (tmp_path / "DONE.json").write_text(text)
    with pytest.raises(DataError, match=r"DONE\.json"):
        done_number(tmp_path, "tokens")
    (tmp_path / "DONE.json").write_text('{"tokens": 3.5}')
    assert done_number(tmp_path, "tokens") == 3.5


def test_stages_run_in_order_and_say_what_came_out(story):
    assert story.run().ran == ["first", "second"]
    done = story.read("01-first/DONE.json")
    assert (done["summary"], done["tokens"], done["flops"]) == ({"name": "first"}, 3.0, None)
    assert done["fingerprint"] == story.read("01-first/inputs.json")["fingerprint"]
    assert done["seconds"] >= 0


def test_what_is_done_is_skipped(story):
    assert story.run().run().ran == ["first", "second"]


def test_an_interrupted_stage_runs_again_and_only_that_one(story):
    with pytest.raises(KeyboardInterrupt):
        story.run(fails=True)
    assert not (story.run_dir / "02-second" / "DONE.json").exists()
    assert story.run().ran == ["first", "second", "second"]


def test_a_stage_made_with_other_settings_is_refused_and_kept(story):
    story.run()
    with pytest.raises(RunError, match="02-second was made by another recipe; give the run another name"):
        story.run(second=5)
    assert (story.run_dir / "02-second" / "result.txt").read_text() == "second"


def test_a_stage_depends_on_what_it_needs(story):
    story.run()
    one = story.read("02-second/DONE.json")["fingerprint"]
    other = Story(story.run_dir.parent / "other").run(first=7)
    assert other.read("02-second/DONE.json")["fingerprint"] != one


def two_branches(*, left=1, right=1):
    """base -> left -> end, base -> right."""

    def stage(name, settings, *needs):
        return Stage(name=name, settings=settings, needs=needs, run=write)

    def write(directory):
        (directory / "result.txt").write_text("made")
        return Outcome()

    return [
        stage("base", {"seed": 1}),
        stage("left", {"value": left}, "base"),
        stage("right", {"value": right}, "base"),
        stage("end", {}, "left"),
    ]


def test_a_changed_stage_outdates_what_needs_it_and_nothing_else(tmp_path):
    run_stages(tmp_path, two_branches())
    assert stale_stages(tmp_path, two_branches(left=2)) == ["left", "end"]
    assert stale_stages(tmp_path, two_branches(right=2)) == ["right"]
    assert stale_stages(tmp_path, two_branches()) == []


def test_what_is_outdated_is_removed_by_name_and_made_again(tmp_path):
    run_stages(tmp_path, two_branches())
    changed = two_branches(left=2)
    remove_stages(tmp_path, changed, ["left", "end"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01-base", "03-right"]
    run_stages(tmp_path, changed)
    assert stale_stages(tmp_path, changed) == []


def test_a_stage_that_was_made_again_outdates_what_needs_it(tmp_path):
    stages = two_branches()
    run_stages(tmp_path, stages)
    for _ in range(2):
        renew_stage(tmp_path, stages, "left")
        assert not (tmp_path / "02-left" / "result.txt").exists()
        run_stages(tmp_path, stages, only="left")
        assert stale_stages(tmp_path, stages) == ["end"]


def test_a_stage_that_is_not_done_goes_on_when_it_is_asked_for_again(tmp_path):
    stages = two_branches()
    run_stages(tmp_path, stages)
    (tmp_path / "02-left" / "DONE.json").unlink()
    renew_stage(tmp_path, stages, "left")
    assert (tmp_path / "02-left" / "result.txt").exists()


def test_stages_of_the_first_format_count_as_done_and_new_keys_at_their_defaults(tmp_path):
    run_stages(tmp_path, two_branches())
    for name in ("01-base", "02-left", "03-right", "04-end"):  # as 0.2 wrote them: a chain, no needs
        path = tmp_path / name / "inputs.json"
        settings = json.loads(path.read_text())["settings"]
        path.write_text(json.dumps({"fingerprint": f"chained {name}", "settings": settings}))
    now = two_branches()
    now[1] = dataclasses.replace(now[1], settings={"value": 1, "younger key": 0})
    adopt_records(tmp_path, now)
    assert stale_stages(tmp_path, now) == []
    now[1] = dataclasses.replace(now[1], settings={"value": 1, "younger key": 5})
    assert stale_stages(tmp_path, now) == ["left", "end"]


def test_what_hangs_on_a_stage_with_a_new_key_counts_as_done_too(tmp_path):
    run_stages(tmp_path, two_branches())
    now = two_branches()
    now[1] = dataclasses.replace(now[1], settings={"value": 1, "younger key": None})
    assert stale_stages(tmp_path, now) == ["left", "end"]
    adopt_records(tmp_path, now)
    assert stale_stages(tmp_path, now) == []
    assert json.loads((tmp_path / "02-left" / "inputs.json").read_text())["settings"] == now[1].settings


def test_what_hangs_on_an_outdated_stage_is_not_adopted_with_it(tmp_path):
    run_stages(tmp_path, two_branches(left=7))
    now = two_branches()  # left = 1: what is there was made by 7
    now[3] = dataclasses.replace(now[3], settings={**now[3].settings, "younger key": None})
    adopt_records(tmp_path, now)
    assert stale_stages(tmp_path, now) == ["left", "end"]


def test_whether_a_stage_can_end_is_asked_before_any_begins_and_not_of_what_is_done(tmp_path):
    asked = []
    stages = [
        dataclasses.replace(each, require=lambda name=each.name: asked.append(name))
        for each in two_branches()
    ]
    run_stages(tmp_path, stages[:2])
    require_ready(tmp_path, stages)
    assert asked == ["right", "end"]
    require_ready(tmp_path, stages, only="left")
    assert asked == ["right", "end", "left"]
    stages[2] = dataclasses.replace(stages[2], settings={"value": 9})
    require_ready(tmp_path, stages)
    assert asked == ["right", "end", "left", "right", "end"]


def test_a_stage_of_the_first_format_with_other_settings_stays_outdated(tmp_path):
    run_stages(tmp_path, two_branches())
    old = {"fingerprint": "chained", "settings": {"value": 7}}
    (tmp_path / "02-left" / "inputs.json").write_text(json.dumps(old))
    adopt_records(tmp_path, two_branches())
    assert stale_stages(tmp_path, two_branches()) == ["left"]


def test_an_outdated_stage_is_not_taken_for_one_of_an_earlier_version(tmp_path):
    stages = two_branches()
    run_stages(tmp_path, stages)
    renew_stage(tmp_path, stages, "left")
    run_stages(tmp_path, stages, only="left")
    adopt_records(tmp_path, [*stages[:3], dataclasses.replace(stages[3], settings={"younger key": 0})])
    assert stale_stages(tmp_path, stages) == ["end"]


def test_a_stage_that_kept_nothing_begins_anew_with_new_settings(story):
    with pytest.raises(KeyboardInterrupt):
        story.run(fails=True)
    assert story.run(second=5).ran == ["first", "second", "second"]


@pytest.mark.parametrize("kept", ["checkpoint", "samples"])
def test_a_stage_that_kept_work_is_not_continued_with_other_settings(story, kept):
    with pytest.raises(KeyboardInterrupt):
        story.run(fails=True)
    (story.run_dir / "02-second" / kept).mkdir()
    with pytest.raises(RunError, match="made by another recipe"):
        story.run(second=5)


def test_the_clock_adds_sessions_up_to_the_last_save(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tenth.pipeline.stage.time.monotonic", lambda: now[0])
    clock = StageClock(tmp_path)
    now[0] = 107.0
    clock.save()
    now[0] = 109.0  # two seconds that a kill takes away
    again = StageClock(tmp_path)
    now[0] = 110.0
    assert again.seconds() == 8.0


def test_a_continued_log_drops_what_will_be_done_again(tmp_path):
    log = open_log(tmp_path, sinks=[], from_step=0, total_steps=3)
    for step in range(3):
        log.log(step, {"loss": float(step)})
    log = open_log(tmp_path, sinks=[], from_step=1, total_steps=3)
    log.log(1, {"loss": 10.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 0, "loss": 0.0}, {"step": 1, "loss": 10.0}]
