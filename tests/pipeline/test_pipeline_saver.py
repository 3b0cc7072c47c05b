"""When a stage saves, what it keeps, and where it goes back to."""

import json

import pytest
import torch

from tenth.base.errors import RunError
from tenth.checkpoint.training_state import saved_steps
from tenth.pipeline import base
from tenth.pipeline.machine import Machine
from tenth.pipeline.saver import Saver
from tenth.training import pretrain as pretraining

NOBODY = ()


@pytest.fixture
def make_saver(tmp_path, recipe):
    def make(*, every_seconds=1000.0, anchor_every=None):
        changes = {"checkpoint_every_seconds": every_seconds, "keep_checkpoints": 2}
        return Saver(tmp_path, recipe.model_copy(update=changes), anchor_every=anchor_every)

    return make


def save(saver, step):
    saver.save(step, {"x": torch.tensor([float(step)])}, {"step": step})


def test_a_save_is_due_when_enough_time_has_passed(make_saver, monkeypatch):
    now = [50.0]
    monkeypatch.setattr("tenth.pipeline.saver.time.monotonic", lambda: now[0])
    saver = make_saver(every_seconds=10.0)
    now[0] = 59.0
    assert not saver.is_due(3)
    now[0] = 60.0
    assert saver.is_due(3)
    save(saver, 3)
    assert not saver.is_due(4)


def test_anchors_are_always_due(make_saver):
    saver = make_saver(anchor_every=4)
    assert [step for step in range(1, 10) if saver.is_due(step)] == [4, 8]


def test_the_last_two_and_the_anchor_are_kept(make_saver):
    saver = make_saver(anchor_every=4)
    for step in (0, 3, 4, 5, 6, 7):
        save(saver, step)
    assert saved_steps(saver.directory) == [4, 6, 7]


def test_going_back_leads_to_the_anchor_and_forgets_the_way_that_was_given_up(make_saver):
    saver = make_saver(anchor_every=4)
    for step in (4, 6, 7):
        save(saver, step)
    assert saver.go_back(7).tensors["x"].item() == 4.0
    assert saved_steps(saver.directory) == [4]
    assert saver.load().step == 4


def test_of_the_scored_saves_the_best_is_kept_too(make_saver):
    saver = make_saver()
    for step, score in enumerate((0.1, 0.7, 0.3, 0.7, 0.2)):
        saver.save(step, {"x": torch.zeros(1)}, {}, score=score)
    assert saved_steps(saver.directory) == [1, 3, 4]
    again = make_saver()
    again.load()
    assert again.best == (0.7, 1)  # known after a kill, too


BAD_STEPS = range(20, 24)  # one more than the guard skips
MACHINE = Machine(compute_dtype=torch.float32, peaks={"fp32": 1e11, "bf16": 1e11})


@pytest.fixture
def bad_windows(monkeypatch):
    """Four steps in a row whose loss is not a number, unless other windows are read instead."""
    is_bad = [False]
    windows, judge = base._Course.windows, pretraining.judge

    def remember(course, step, *, skipped):
        is_bad[0] = step in BAD_STEPS and skipped == 0
        return windows(course, step, skipped=skipped)

    def poisoned(memory, config, *, loss, grad_norm):
        return judge(memory, config, loss=float("nan") if is_bad[0] else loss, grad_norm=grad_norm)

    monkeypatch.setattr(base._Course, "windows", remember)
    monkeypatch.setattr(pretraining, "judge", poisoned)


def pretrain(directory, recipe, reference, *, every_seconds, **changes):
    changed = recipe.model_copy(update={"checkpoint_every_seconds": every_seconds, **changes})
    base.pretrain(directory, changed, documents=reference / "01-documents", machine=MACHINE, sinks=NOBODY)
    return (directory / "model" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("bad_windows")
def test_a_rollback_reads_other_windows_and_ends_the_same_however_often_the_run_saved(
    tmp_path, recipe, reference
):
    rarely = pretrain(tmp_path / "rarely", recipe, reference, every_seconds=1000.0)
    often = pretrain(tmp_path / "often", recipe, reference, every_seconds=1e-6)
    assert rarely == often
    rows = [json.loads(line) for line in (tmp_path / "often" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(32))  # each step once, after the rollback too
    assert all(row["loss"] == row["loss"] for row in rows)  # the bad ones were given up


def test_a_run_that_cannot_be_saved_by_going_back_stops_with_a_sentence(
    tmp_path, recipe, reference, monkeypatch
):
    judge = pretraining.judge
    monkeypatch.setattr(
        pretraining,
        "judge",
        lambda memory, config, **numbers: judge(memory, config, loss=float("nan"), grad_norm=1),
    )
    with pytest.raises(
        RunError, match=r"step \d+: the loss is nan, and 2 returns to a checkpoint did not help"
    ):
        pretrain(tmp_path / "lost", recipe, reference, every_seconds=1000.0)
