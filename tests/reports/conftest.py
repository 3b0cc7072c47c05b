"""Fixtures: a finished synthetic run, and a builder for runs in any other state."""

from pathlib import Path

import pytest
from r1_run import R1Builder, build_r1_run
from synthetic_run import RunBuilder, build_whole_run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    return build_whole_run(tmp_path_factory.mktemp("runs") / "synthetic")


@pytest.fixture
def builder(tmp_path: Path) -> RunBuilder:
    """An empty run to be filled by the test."""
    return RunBuilder(tmp_path / "runs" / "part")


@pytest.fixture(scope="session")
def r1_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of all stages of R1; read only."""
    return build_r1_run(tmp_path_factory.mktemp("r1-runs") / "r1")


@pytest.fixture
def r1_builder(tmp_path: Path) -> R1Builder:
    """An empty R1 run to be filled by the test."""
    return R1Builder(tmp_path / "runs" / "r1-part")
