import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import DataError, RunError
from tenth.base.runlog import RunLog, read_metrics


class Heard:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def start_stage(self, stage, *, total_steps):
        self.calls.append(("start", stage, total_steps))

    def log(self, stage, step, metrics):
        self.calls.append(("log", stage, step, dict(metrics)))

    def end_stage(self, stage):
        self.calls.append(("end", stage))


def test_every_step_reaches_the_file_and_every_sink(tmp_path):
    heard = Heard()
    log = RunLog(tmp_path / "stage" / "metrics.jsonl", stage="base", sinks=[heard])
    log.start(from_step=0, total_steps=2)
    log.log(0, {"loss": 2.5})
    log.end()
    assert read_metrics(log.path) == [{"step": 0, "loss": 2.5}]
    assert heard.calls == [("start", "base", 2), ("log", "base", 0, {"loss": 2.5}), ("end", "base")]


@given(stopped_at=st.integers(0, 6), saved_at=st.integers(0, 6))
def test_a_continued_run_lists_every_step_once(stopped_at, saved_at, tmp_path_factory):
    log = RunLog(tmp_path_factory.mktemp("log") / "metrics.jsonl", stage="base")
    saved_at = min(saved_at, stopped_at)
    log.start(from_step=0, total_steps=6)
    for step in range(stopped_at):
        log.log(step, {"loss": -1.0})
    log.start(from_step=saved_at, total_steps=6)
    for step in range(saved_at, 6):
        log.log(step, {"loss": float(step)})
    rows = list(read_metrics(log.path))
    assert [row["step"] for row in rows] == list(range(6))
    assert all(row["loss"] == -1.0 for row in rows[:saved_at])


def test_a_last_line_cut_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert read_metrics(path) == [{"step": 0, "loss": 1.0}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step"\n{"step": 2}\n{"st')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_no_file_is_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    log = RunLog(tmp_path / "metrics.jsonl", stage="base")
    log.start(from_step=0, total_steps=1)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunError, match=r"metrics\.jsonl: No space left on device; free some space"):
        log.log(0, {"loss": 1.0})
