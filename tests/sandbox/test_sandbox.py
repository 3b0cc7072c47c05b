"""What a sandbox does for an honest program, and how each limit shows."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError, SandboxUnavailable, TenthError, VerifierError
from tenth.sandbox import pool as pool_module
from tenth.sandbox import seccomp
from tenth.sandbox.limits import MIB, FunctionTests, Limits, Program, Status, Tier
from tenth.sandbox.pool import SandboxPool, find_tier
from tenth.sandbox.sandbox import Sandbox
from tenth.sandbox.values import decode, encode
from tests.sandbox.conftest import processes_of

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def test_a_program_reads_its_input_and_writes_its_output(sandbox):
    outcome = sandbox.run_program(Program(source="print(input()[::-1])", stdin="abc 你好\n"))
    assert (outcome.status, outcome.stdout, outcome.exit_code) == (Status.OK, "好你 cba\n", 0)


def test_a_program_ends_like_any_other(sandbox):
    source = """
import atexit, sys, threading, time
if __name__ == "__main__":
    atexit.register(print, "last")
    threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
    print("main", end=" ")
    sys.exit(3)
"""
    outcome = sandbox.run_program(Program(source=source))
    assert (outcome.status, outcome.stdout, outcome.exit_code) == (Status.FAILED, "main thread\nlast\n", 3)


def test_an_exception_is_shown_as_python_shows_it(sandbox):
    outcome = sandbox.run_program(Program(source="def f():\n    return 1 / 0\nf()"))
    assert outcome.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert outcome.exit_code == 1


def test_a_program_may_use_files_in_its_own_folder(sandbox):
    source = """
import os, tempfile
os.makedirs("a/b"); open("a/b/c", "w").write("kept"); os.rename("a/b/c", "d"); os.remove("a/b" + "/../../d")
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x"); file.flush(); print(os.path.getsize(file.name), os.listdir("a"))
"""
    assert sandbox.run_program(Program(source=source)).stdout == "1 ['b']\n"


def test_deep_recursion_that_is_meant_works(sandbox):
    source = "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(50000))"
    assert sandbox.run_program(Program(source=source)).stdout == "50000\n"


def test_threads_work(sandbox):
    source = """
from concurrent.futures import ThreadPoolExecutor
print(sum(ThreadPoolExecutor(4).map(abs, range(-9, 1))))"""
    assert sandbox.run_program(Program(source=source)).stdout == "45\n"


def test_what_the_standard_library_loads_late_is_there(sandbox):
    source = "import sqlite3, ssl, hashlib, zoneinfo, asyncio\nprint(asyncio.run(asyncio.sleep(0, 'done')))"
    assert sandbox.run_program(Program(source=source)).stdout == "done\n"


@pytest.mark.parametrize(
    ("source", "limits", "status"),
    [
        ("while True: pass", Limits(wall_seconds=0.3), Status.LATE),
        ("while True: pass", Limits(cpu_seconds=1), Status.FAILED),
        ("bytearray(400 << 20)", Limits(memory_bytes=256 * MIB), Status.FAILED),
        ("open('x', 'wb').write(bytes(2 << 20))", Limits(file_bytes=1 << 20), Status.FAILED),
        ("print('x' * 2000)", Limits(output_bytes=1000), Status.TOO_MUCH),
        ("x = [open('/dev/null') for _ in range(40)]", Limits(open_files=30), Status.FAILED),
    ],
)
def test_each_limit_ends_a_program(sandbox, source, limits, status):
    assert sandbox.run_program(Program(source=source, limits=limits)).status is status


def test_output_up_to_the_limit_is_kept(sandbox):
    outcome = sandbox.run_program(Program(source="print('x' * 2000)", limits=Limits(output_bytes=1000)))
    assert outcome.stdout == "x" * 1000


def test_all_processes_die_with_the_first_where_several_are_allowed(sandbox):
    if sandbox.tier is not Tier.NAMESPACES:
        pytest.skip("more than one process needs namespaces")
    source = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0: pass
        time.sleep(1000)
print("left behind")"""
    outcome = sandbox.run_program(Program(source=source, limits=Limits(processes=4)))
    assert outcome.stdout == "left behind\n"
    assert len(processes_of(sandbox)) == 1


def test_a_fork_bomb_is_cut_at_the_number_of_processes(sandbox):
    if sandbox.tier is not Tier.NAMESPACES:
        pytest.skip("more than one process needs namespaces")
    source = """
import os, time
count = 0
try:
    for count in range(100):
        if os.fork() == 0: time.sleep(1000)
except OSError: print(count < 30)"""
    assert sandbox.run_program(Program(source=source, limits=Limits(processes=4))).stdout == "True\n"


def test_limits_that_cannot_be_are_refused_with_a_sentence():
    with pytest.raises(ConfigError, match="wall_seconds = 0; it has to be positive"):
        Limits(wall_seconds=0)
    with pytest.raises(ConfigError, match="leaves 67,108,864 each"):  # 512 MiB / 8 = 64 MiB
        Limits(processes=8)


# functions


def test_each_test_counts_by_itself(sandbox):
    source = "def half(x):\n    return x // 2"
    tests = ("assert half(4) == 2", "assert half(5) == 2.5", "assert half(0) == 0")
    results = sandbox.run_tests(FunctionTests(source=source, tests=tests))
    assert results.passed == (True, False, True)
    assert results.reasons == ("", "AssertionError", "")


def test_tests_may_build_the_candidates_objects_and_set_their_attributes(sandbox):
    source = "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\n"
    source += "def total(node):\n    return node.v + total(node.next) if node else 0"
    task = FunctionTests(
        source=source,
        setup="a = Node(1)\na.next = Node(2)",
        tests=("assert total(a) == 3", "assert a.next.v == 2", "assert total(None) == 0"),
    )
    assert sandbox.run_tests(task).passed == (True, True, True)


def test_a_test_may_expect_an_exception(sandbox):
    tests = ("try:\n    f('x')\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError",)
    assert sandbox.run_tests(FunctionTests(source="f = int", tests=tests)).passed == (True,)
    assert sandbox.run_tests(FunctionTests(source="f = len", tests=tests)).passed == (False,)


def test_the_standard_library_in_a_test_is_the_judges_own(sandbox):
    source = "import sys\nsys.getsizeof = lambda x: 7\ndef size(x):\n    return 7"
    tests = ("assert size((1, 2)) == sys.getsizeof((1, 2))",)
    assert sandbox.run_tests(FunctionTests(source=source, tests=tests)).passed == (False,)


def test_an_iterator_can_be_listed_by_the_test(sandbox):
    tests = ("assert list(f(3)) == [0, 1, 2]",)
    assert sandbox.run_tests(
        FunctionTests(source="f = lambda n: (x for x in range(n))", tests=tests)
    ).is_all_passed


def test_a_candidate_cannot_change_what_it_is_compared_with(sandbox):
    source = "def f(x):\n    x.clear()\n    return []"
    tests = ("a = [2, 1]\nassert f(a) == sorted(a)",)
    assert sandbox.run_tests(FunctionTests(source=source, tests=tests)).passed == (False,)


def test_tests_that_are_no_python_are_the_verifiers_failure(sandbox):
    with pytest.raises(VerifierError, match="the tests are no Python"):
        sandbox.run_tests(FunctionTests(source="", tests=("assert (",)))


def test_no_tests_are_not_passed(sandbox):
    assert not sandbox.run_tests(FunctionTests(source="", tests=())).is_all_passed


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=10,
)


def no_reference(value):
    raise AssertionError(f"{value!r} is plain")


@given(PLAIN | st.sets(st.integers()) | st.frozensets(st.text()) | st.complex_numbers(allow_nan=False))
def test_a_plain_value_arrives_as_it_was(value):
    arrived = decode(json.loads(json.dumps(encode(value, no_reference))), no_reference)
    assert arrived == value
    assert type(arrived) is type(value)


def test_a_very_long_number_arrives():
    assert decode(encode(7**9999, no_reference), no_reference) == 7**9999


# tiers


def test_where_nothing_contains_nothing_runs(monkeypatch):
    def refused(self):
        raise SandboxUnavailable(f"no {self.tier} sandbox on this machine: it is a toaster")

    monkeypatch.setattr(Sandbox, "_start", refused)
    with pytest.raises(TenthError, match=r"so no code is run .*namespaces.*toaster.*landlock.*toaster"):
        find_tier()


def test_a_sandbox_that_lets_something_through_is_not_used(monkeypatch):
    monkeypatch.setattr(pool_module, "_PROBE", "print('open')")
    with pytest.raises(SandboxUnavailable, match="a probe ended with 'open"):
        find_tier()


def test_a_sandbox_that_died_says_so_and_starts_again(tier):
    with Sandbox(tier) as sandbox:
        sandbox.run_program(Program(source=""))
        assert sandbox._zygote is not None
        sandbox._zygote.kill()
        with pytest.raises(VerifierError, match="ended unexpectedly"):
            sandbox.run_program(Program(source=""))
        assert sandbox.run_program(Program(source="print(1)")).stdout == "1\n"


def test_a_pool_answers_in_order_and_keeps_failures_apart(pool):
    jobs = [Program(source=f"print({number})") for number in range(20)]
    broken = FunctionTests(source="", tests=("(",))
    results = pool.run_many([*jobs[:10], broken, *jobs[10:]])
    assert isinstance(results.pop(10), VerifierError)
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(20)]


def test_a_closed_pool_leaves_no_folder_and_no_descriptor(tier, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    before = len(os.listdir("/proc/self/fd"))
    with SandboxPool(workers=1, tier=tier) as pool:
        unreadable = "import os; os.mkdir('left', 0o300); open('left/x', 'w')"
        pool.run_many([Program(source=unreadable), FunctionTests(source="", tests=("f()",))])
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not here")
def test_the_numbers_of_system_calls_are_the_kernels():
    kernel = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    for entry in seccomp._ALLOWED.split(","):
        name, number, _ = entry.split()
        assert kernel[name] == number
