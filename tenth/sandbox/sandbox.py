"""Run a program, or a candidate's functions against tests, contained and limited. One at a time.

Why: a model's answer is a program by somebody nobody knows. It may be wrong, endless, or written to be
scored right without being right.
In:  `Program` or `FunctionTests`.  Out: `Outcome` or `TestResults`; VerifierError when the sandbox itself
failed, which says nothing about the program; SandboxUnavailable when this machine cannot contain one.
Not here: many at once (pool.py), what is a right answer (tasks/check_code.py).
What is contained and what is not: docs/sandbox.md.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

from tenth.base.errors import SandboxUnavailable, VerifierError
from tenth.sandbox.limits import FunctionTests, Limits, Outcome, Program, Status, TestResults, Tier
from tenth.sandbox.namespaces import NOBODY
from tenth.sandbox.watch import Watched, folder_is_over, watch

_PACKAGE_ROOT = str(Path(__file__).parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tenth.sandbox.zygote import main; "
    "main(int(sys.argv[2]), *sys.argv[3:])"
)
# Nothing of ours. The seed makes the order of sets the same in every run, and with it a verdict.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
_REPLY_SECONDS = 30.0  # for the zygote, on a loaded machine


class Sandbox:
    """One zygote, started when first needed and anew after it failed."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._folder: str | None = None

    def run_program(self, program: Program) -> Outcome:
        """The program's output and how it ended."""
        with contextlib.ExitStack() as stack:
            out, out_end = _pipe(stack)
            err, err_end = _pipe(stack)
            standard = [_sealed(stack, program.stdin), out_end.fileno(), err_end.fileno()]
            files = [*standard, _sealed(stack, program.source)]
            scratch = self._scratch(stack)
            pid = self._spawn("program", program.limits, scratch, files)
            try:
                for end in (out_end, err_end):
                    end.close()
                watched = self._watch(pid, (out, err), program.limits, scratch)
            finally:
                ended = self._ask({"reap": pid})
        status = watched.status
        if status is Status.OK and ended["exit_code"] != 0:
            status = Status.FAILED
        stdout, stderr = (text.decode("utf-8", errors="replace") for text in watched.output)
        return Outcome(
            status=status,
            stdout=stdout,
            stderr=stderr,
            exit_code=ended["exit_code"],
            cpu_seconds=ended["cpu_seconds"],
            wall_seconds=watched.seconds,
        )

    def run_tests(self, task: FunctionTests) -> TestResults:
        """Which tests the candidate's functions pass, called from a process that runs no line of theirs."""
        written = json.dumps({"setup": task.setup, "tests": task.tests, "entry_point": task.entry_point})
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull, "r+b")).fileno()
            standard = [nothing, nothing, nothing]
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            verdicts, verdicts_end = _pipe(stack)
            scratch = self._scratch(stack)
            files = [*standard, _sealed(stack, task.source), theirs.fileno()]
            candidate = self._spawn("functions", task.limits, scratch, files)
            try:
                files = [*standard, _sealed(stack, written), ours.fileno()]
                files.append(verdicts_end.fileno())
                judge = self._spawn("judge", task.limits, scratch, files)
                try:
                    for end in (ours, theirs, verdicts_end):
                        end.close()
                    watched = self._watch(judge, (verdicts,), task.limits, scratch)
                finally:
                    self._ask({"reap": judge})
            finally:
                self._ask({"reap": candidate})
        return _results(watched, len(task.tests))

    def close(self) -> None:
        """End the zygote, and with it whatever still runs."""
        if self._control is not None:
            self._control.close()
        if self._zygote is not None:
            try:
                self._zygote.wait(timeout=_REPLY_SECONDS)
            except subprocess.TimeoutExpired:
                self._zygote.kill()
                self._zygote.wait()
        if self._folder is not None:
            _remove(self._folder)
        self._zygote = self._control = self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="tenth-sandbox-")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_REPLY_SECONDS)
        with theirs:
            arguments = [_PACKAGE_ROOT, str(theirs.fileno()), self.tier, self._folder]
            self._zygote = subprocess.Popen(
                [sys.executable, "-s", "-P", "-S", "-B", "-c", _BOOT, *arguments],
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._receive()
        except VerifierError as error:
            self.close()
            raise SandboxUnavailable(f"no {self.tier} sandbox on this machine: {error}") from error

    def _spawn(self, role: str, limits: Limits, scratch: str, files: Sequence[int]) -> int:
        if self._zygote is None:
            self._start()
        request = {"spawn": {"role": role, "limits": asdict(limits), "scratch": scratch}}
        return self._ask(request, files)["pid"]

    def _ask(self, request: dict[str, Any], files: Sequence[int] = ()) -> dict[str, Any]:
        if self._control is None:  # closed since, after a failure that is being reported
            raise VerifierError("the sandbox has ended.")
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], files)
            return self._receive()
        except OSError as error:
            self.close()
            raise VerifierError(f"the sandbox ended unexpectedly ({error}).") from error

    def _receive(self) -> dict[str, Any]:
        assert self._control is not None
        packet = self._control.recv(1 << 16)
        if not packet:
            raise OSError("its first process is gone")
        reply = json.loads(packet)
        if "error" in reply:
            raise VerifierError(f"the sandbox could not contain a process: {reply['error']}.")
        return reply

    def _watch(self, pid: int, pipes: Sequence[int], limits: Limits, scratch: str) -> Watched:
        return watch(
            pid,
            pipes,
            wall_seconds=limits.wall_seconds,
            output_bytes=limits.output_bytes,
            is_too_much=self._counter(limits, scratch),
        )

    def _counter(self, limits: Limits, scratch: str) -> Callable[[], bool]:
        if self.tier is Tier.NAMESPACES:  # the kernel counts
            return lambda: False
        return lambda: folder_is_over(scratch, num_bytes=limits.scratch_bytes, num_files=limits.scratch_files)

    def _scratch(self, stack: contextlib.ExitStack) -> str:
        """A folder for this one run. Where there are namespaces it is in memory and made by the child."""
        if self.tier is Tier.NAMESPACES:
            return ""
        path = tempfile.mkdtemp(prefix="tenth-scratch-")
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        stack.callback(_remove, path)
        return path


def _results(watched: Watched, num_tests: int) -> TestResults:
    """From the judge's lines. A judge that did not get through was stopped by the candidate: not passed."""
    lines = [json.loads(line) for line in watched.output[0].splitlines(keepends=True) if line.endswith(b"\n")]
    if lines and "broken" in lines[0]:
        raise VerifierError(f"the tests are no Python ({lines[0]['broken']}); mend or remove the problem.")
    reasons = [line["reason"] for line in lines][:num_tests]
    late = "the deadline" if watched.status is Status.LATE else "the judge ended early"
    reasons += [late] * (num_tests - len(reasons))
    return TestResults(passed=tuple(not reason for reason in reasons), reasons=tuple(reasons))


def _sealed(stack: contextlib.ExitStack, text: str) -> int:
    """A file in memory that holds `text` and cannot be changed."""
    number = os.memfd_create("text", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, number)
    with open(number, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", errors="replace"))
    os.lseek(number, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    return number


def _pipe(stack: contextlib.ExitStack) -> tuple[int, BinaryIO]:
    """(end to read, which never blocks; end to write, closed early by whoever passed it on)."""
    read_end, write_end = os.pipe()
    stack.callback(os.close, read_end)
    os.set_blocking(read_end, False)
    return read_end, stack.enter_context(open(write_end, "wb", buffering=0))


def _remove(path: str) -> None:
    """A folder and everything in it, however deep."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.exists(path):  # deeper than Python recurses, or made unreadable
        subprocess.run(["chmod", "-R", "u+rwX", "--", path], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--", path], check=False, capture_output=True)
