"""The killable worker: what it returns, and everything that can go wrong in it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tenth.base.deadline import Worker
from tenth.base.errors import VerifierError

MODULE = """
import os, sys, time, subprocess
def double(x): return 2 * x
def fail(message): raise ValueError(message)
def leave(): sys.exit(3)
def die(): os._exit(3)
def loop(): 9**9**9
def shout(): print('{"value": "forged"}', flush=True); return "honest"
def huge(size=1 << 21): return "x" * size
def not_json(): return {1, 2}
def hoard(): return len(bytearray(16 << 30))
def environment(name): return os.environ.get(name)
def directory(): return os.getcwd()
def identity(): return os.getpid()
def child_that_outlives():
    child = subprocess.Popen(["sleep", "60"])
    open(CHILD, "w").write(str(child.pid))
    time.sleep(60)
def prepare(): globals()["PREPARED"] = True
def is_prepared(): return globals().get("PREPARED", False)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "sample_verifier.py").write_text(MODULE.replace("CHILD", repr(str(tmp_path / "pid"))))
    monkeypatch.syspath_prepend(tmp_path)
    started: list[Worker] = []

    def start(function: str, *, deadline_seconds: float = 20.0, **options) -> Worker:
        started.append(Worker(f"sample_verifier:{function}", deadline_seconds=deadline_seconds, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_result_comes_back_and_the_process_is_kept(worker):
    assert worker("double").call(21) == 42
    assert worker("double").call("ab") == "abab"
    identity = worker("identity")
    assert identity.call() == identity.call() != os.getpid()


def test_an_exception_is_a_verifier_error_and_the_process_lives_on(worker):
    failing = worker("fail")
    for word in ("one", "two"):
        with pytest.raises(VerifierError, match=f"raised ValueError: {word}"):
            failing.call(word)


@pytest.mark.parametrize("function", ["leave", "not_json"])
def test_leaving_or_returning_nonsense_is_a_verifier_error(worker, function):
    with pytest.raises(VerifierError, match="raised"):
        worker(function).call()


def test_a_crash_is_a_verifier_error_and_the_next_call_starts_anew(worker):
    dying = worker("die")
    for _ in range(2):
        with pytest.raises(VerifierError, match="crashed or was killed"):
            dying.call()


def test_a_loop_inside_c_code_is_killed_at_the_deadline(worker):
    start = time.monotonic()
    looping = worker("loop", deadline_seconds=0.5)
    with pytest.raises(VerifierError, match=r"deadline of 0\.5 s"):
        looping.call()
    assert looping._child is None
    assert time.monotonic() - start < 20


def test_what_the_function_started_dies_with_it(worker, tmp_path):
    with pytest.raises(VerifierError, match="deadline"):
        worker("child_that_outlives", deadline_seconds=1.5).call()
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _is_running(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the grandchild survived")


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_whose_parent_was_killed_ends_itself(tmp_path):
    (tmp_path / "sample_verifier.py").write_text(MODULE)
    child = subprocess.Popen(
        [sys.executable, "-m", "tenth.base.deadline_child", "sample_verifier:loop", "", "0.1", str(1 << 30)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )
    child.stdin.write(b"[]\n")  # and nobody waits for the reply
    child.stdin.flush()
    assert child.wait(timeout=30) == -signal.SIGPROF
    child.stdin.close()
    child.stdout.close()


def test_prints_cannot_forge_a_reply(worker):
    assert worker("shout").call() == "honest"


def test_too_much_output_is_a_verifier_error(worker):
    with pytest.raises(VerifierError, match="more than 1,048,576 bytes"):
        worker("huge").call()


def test_a_reply_may_be_longer_where_that_was_said(worker):
    assert len(worker("huge", max_reply_bytes=1 << 22).call()) == 1 << 21


def test_memory_is_bounded(worker):
    with pytest.raises(VerifierError, match="MemoryError"):
        worker("hoard").call()
    with pytest.raises(VerifierError, match="MemoryError"):
        worker("huge", memory_bytes=1 << 28).call(1 << 29)


def test_only_a_trusted_function_sees_our_environment_and_directory(worker, monkeypatch):
    monkeypatch.setenv("TENTH_TEST_SECRET", "hush")
    assert worker("environment").call("TENTH_TEST_SECRET") is None
    assert worker("environment", is_trusted=True).call("TENTH_TEST_SECRET") == "hush"
    assert worker("directory").call() != os.getcwd()
    assert worker("directory", is_trusted=True).call() == os.getcwd()


def test_prepare_runs_before_the_first_call(worker):
    assert worker("is_prepared", prepare="sample_verifier:prepare").call() is True
    assert worker("is_prepared").call() is False


def test_a_function_that_does_not_exist_is_named(worker):
    with pytest.raises(VerifierError, match="could not be loaded: AttributeError"):
        worker("absent").call()
