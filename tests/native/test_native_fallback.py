"""Without the kernels everything still works and says the same: a machine may have no compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fallback_child import run_everything


def test_with_tenth_native_0_training_packing_and_sampling_give_the_same_numbers():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fallback_child.py"))],
        env={**os.environ, "TENTH_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    plain, native = json.loads(done.stdout), run_everything()
    assert plain["is_native"] is False
    for name in ("deepseek", "qwen"):
        assert plain[name]["tokens"] == native[name]["tokens"]
        for number in ("loss", "gradients", "packed"):
            assert plain[name][number] == pytest.approx(native[name][number], rel=2e-4, abs=2e-5)
