"""Run one function in a child process that is killed when it is late.

Why: verifiers parse or execute what a model wrote, and chat templates are programs that came with somebody's
weights, so they may hang, crash, print, or eat memory. None of that may touch the process that trains. A
thread cannot be killed; a process group can.
In:  the name of a function, and JSON-able arguments.
Out: its JSON-able result, or a VerifierError (late, crashed, raised, answered too much).
Not here: what the functions do; the child's side of the pipe (deadline_child.py).
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Self

from tenth.base.errors import VerifierError

START_SECONDS = 120.0  # imports of a loaded machine count here, not against the deadline
MEMORY_BYTES = 4 << 30  # of address space, for untrusted functions
MAX_REPLY_BYTES = 1 << 20
SLICE_SECONDS = 0.25
UNTRUSTED_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


class Worker:
    """One child, started at the first call, kept for the next, killed when late and then started anew.

    `function` and `prepare` are written `module:function`; `prepare` takes nothing and runs once per child,
    before the clock of the first call starts. An untrusted worker has none of our environment variables, an
    empty working directory and a limit on memory. It is a guard against accidents and hangs, not a jail: it
    can still read files and reach the network, unless `prepare` gives that up.
    """

    def __init__(
        self,
        function: str,
        *,
        deadline_seconds: float,
        prepare: str = "",
        is_trusted: bool = False,
        memory_bytes: int = MEMORY_BYTES,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self.function = function
        self.deadline_seconds = deadline_seconds
        self._prepare = prepare
        self._is_trusted = is_trusted
        self._memory_bytes = memory_bytes
        self._max_reply_bytes = max_reply_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def call(self, *arguments: Any) -> Any:
        """The function's result. VerifierError when there is none; the next call starts afresh."""
        request = json.dumps(arguments).encode() + b"\n"
        with self._lock:
            child = self._started()
            reply = self._exchange(child, request, seconds=self.deadline_seconds)
        if "error" in reply:
            raise VerifierError(f"{self.function} raised {reply['error']}.")
        return reply["value"]

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        self._directory = None if self._is_trusted else tempfile.TemporaryDirectory(prefix="tenth-worker-")
        self._child = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._directory.name if self._directory else None,
            env=self._environment(),
            start_new_session=True,  # so that what the child starts dies with it, and Ctrl-C is ours alone
        )
        ready = self._exchange(self._child, b"", seconds=START_SECONDS)
        if "error" in ready:
            self._kill()
            raise VerifierError(f"{self.function} could not be loaded: {ready['error']}.")
        return self._child

    def _command(self) -> list[str]:
        # -P: the working directory is no place to import modules from
        child = [sys.executable, "-P", "-m", "tenth.base.deadline_child"]
        memory = "unlimited" if self._is_trusted else str(self._memory_bytes)
        return [*child, self.function, self._prepare, str(self.deadline_seconds), memory]

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if self._is_trusted or name in UNTRUSTED_ENVIRONMENT
        }
        return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def _exchange(
        self, child: "subprocess.Popen[bytes]", request: bytes, *, seconds: float
    ) -> dict[str, Any]:
        """Send one line, read one line. Whatever goes wrong, the child is gone afterwards."""
        try:
            reply = _send_and_receive(child, request, seconds=seconds, max_bytes=self._max_reply_bytes)
            return json.loads(reply)
        except TimeoutError as error:
            self._kill()
            raise VerifierError(f"{self.function} ran past its deadline of {seconds:g} s.") from error
        except (OSError, EOFError, ValueError) as error:
            self._kill()
            raise VerifierError(
                f"{self.function}: its process ended without a usable reply ({error})."
            ) from error
        except BaseException:  # Ctrl-C between the two lines: a late reply must not meet the next call
            self._kill()
            raise

    def _kill(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        if self._directory is not None:
            self._directory.cleanup()
        self._child = self._directory = None


def _send_and_receive(
    child: "subprocess.Popen[bytes]", request: bytes, *, seconds: float, max_bytes: int
) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(request)
    child.stdin.flush()
    reply = bytearray()
    left_seconds = seconds
    while not reply.endswith(b"\n"):
        # In slices, so that a pause of the whole run (Ctrl-Z, a sleeping laptop) costs one slice at most.
        slice_seconds = min(SLICE_SECONDS, left_seconds)
        readable, _, _ = select.select([child.stdout], [], [], slice_seconds)
        if not readable:
            left_seconds -= slice_seconds
            if left_seconds <= 0:
                raise TimeoutError
            continue
        chunk = os.read(child.stdout.fileno(), 1 << 16)
        if not chunk:
            raise EOFError("it crashed or was killed")
        reply += chunk
        if len(reply) > max_bytes:
            raise ValueError(f"it answered more than {max_bytes:,} bytes")
    return bytes(reply)
