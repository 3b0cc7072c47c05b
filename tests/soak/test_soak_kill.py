"""All kill points and random kills, by hand: `make soak`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_whenever_a_run_is_killed_the_continued_one_ends_bit_for_bit_the_same(tmp_path):
    command = [sys.executable, "-m", "tests.soak.kill", "--out", str(tmp_path / "kill.json")]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    report = json.loads((tmp_path / "kill.json").read_text())
    assert ended.returncode == 0, [each for each in report["points"] if not each["is_equal"]]
    assert report["kills"] >= 12
