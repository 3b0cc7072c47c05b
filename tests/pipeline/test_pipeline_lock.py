from pathlib import Path

import pytest

from tenth.base.errors import RunError
from tenth.pipeline.lock import only_writer


def test_a_second_writer_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "run"),
        pytest.raises(RunError, match="another process"),
        only_writer(tmp_path / "run"),
    ):
        pass


def test_the_next_writer_may_come_when_the_first_has_gone(tmp_path: Path) -> None:
    for _ in range(2):
        with only_writer(tmp_path / "run"):
            assert not (tmp_path / "run").exists()


def test_other_runs_are_not_held_up(tmp_path: Path) -> None:
    with only_writer(tmp_path / "one"), only_writer(tmp_path / "two"):
        pass


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with (
        pytest.raises(RunError, match=r"could not write in .*file: .*; choose another directory for the run"),
        only_writer(tmp_path / "file" / "run"),
    ):
        pass
