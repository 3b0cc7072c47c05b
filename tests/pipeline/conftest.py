"""A finished smoke run to look at, and recipes to change."""

import shutil
from pathlib import Path

import pytest
from smoke_process import SmokeProcess

from tenth.base.config import load_recipe
from tenth.pipeline.recipe import ZeroRecipe

SMOKE = Path(__file__).parents[2] / "recipes/tiny/smoke.toml"


@pytest.fixture(scope="session")
def smoke():
    """Runs the smoke recipe in processes of their own."""
    with SmokeProcess() as process:
        yield process


@pytest.fixture(scope="session")
def reference(smoke, tmp_path_factory):
    """A run that nothing interrupted and that saved little on the way. Do not change it."""
    runs_dir = tmp_path_factory.mktemp("reference")
    assert smoke.run(runs_dir, "checkpoint_every_seconds=1000") == 0
    return runs_dir / "smoke"


@pytest.fixture(scope="session")
def r1_reference(smoke, tmp_path_factory):
    """The whole flow, not interrupted. Do not change it."""
    runs_dir = tmp_path_factory.mktemp("r1-reference")
    assert smoke.run(runs_dir, "checkpoint_every_seconds=1000", recipe="r1-smoke.toml") == 0
    return runs_dir / "r1-smoke"


@pytest.fixture
def r1_finished(r1_reference, tmp_path):
    """A copy of the finished flow, to be changed."""
    return Path(shutil.copytree(r1_reference, tmp_path / "runs" / "r1-smoke"))


@pytest.fixture
def finished(reference, tmp_path):
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(reference, tmp_path / "runs" / "smoke"))


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch):
    """Measuring this machine's peak takes seconds and changes no result."""
    monkeypatch.setattr("tenth.pipeline.machine.measure_peak", lambda _: 1e11)


@pytest.fixture(scope="session")
def recipe():
    """The smoke recipe."""
    return load_recipe(ZeroRecipe, SMOKE)
