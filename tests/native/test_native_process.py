"""Process settings are applied in children: they would change the speed and rounding of every other test."""

import json
import os
import subprocess
import sys

from tenth.base.machine import usable_threads

REPORT = """
import json, torch
from tenth.native import process
before = torch.get_num_threads(), torch.get_float32_matmul_precision()
first, second = process.tune_process().to_dict(), process.tune_process().to_dict()
print(json.dumps({"before": before, "first": first, "second": second, "threads": torch.get_num_threads()}))
"""


def in_child(code: str, **environment: str) -> dict[str, object]:
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=inherited | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_happens_at_import_and_twice_is_the_same_as_once():
    said = in_child(REPORT)
    assert said["before"][1] == "highest"
    assert said["first"] == said["second"]
    assert said["first"]["float32_matmul_precision"] == "medium"
    assert said["threads"] == said["first"]["threads"] == usable_threads()


def test_a_thread_count_that_the_user_chose_is_kept():
    assert in_child(REPORT, OMP_NUM_THREADS="1")["threads"] == 1


def test_where_the_allocator_has_no_such_setting_nothing_breaks():
    code = REPORT.replace("before =", "process.ctypes.CDLL = lambda name: object()\nbefore =")
    assert in_child(code)["first"]["keeps_memory"] is False
