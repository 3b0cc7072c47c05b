"""Stages: what is done is not done again, what another recipe made is not touched, time adds up."""

import json

import pytest

from tenth.base.errors import RunError
from tenth.pipeline.stage import Outcome, Stage, StageClock, open_log, run_stages


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
