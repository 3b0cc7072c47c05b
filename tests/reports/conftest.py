"""Fixtures: a finished synthetic run, and a builder for runs in any other state."""

from pathlib import Path

import pytest
from synthetic_run import RunBuilder, build_whole_run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    return build_whole_run(tmp_path_factory.mktemp("runs") / "synthetic")


@pytest.fixture
def builder(tmp_path: Path) -> RunBuilder:
    """An empty run to be filled by the test."""
    return RunBuilder(tmp_path / "runs" / "part")
