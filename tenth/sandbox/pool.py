"""Many contained programs at once: one sandbox per processor, and jobs in any number.

Why: scoring a step's answers should take as long as its slowest few, and finding out what this machine can
contain should happen once.
In:  `Program` and `FunctionTests` in any mixture.  Out: what became of each, in order.
Not here: containment (sandbox.py).
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from tenth.base.errors import SandboxUnavailable, VerifierError
from tenth.sandbox.limits import FunctionTests, Outcome, Program, Status, TestResults, Tier
from tenth.sandbox.sandbox import Sandbox

Job = Program | FunctionTests
Result = Outcome | TestResults
T = TypeVar("T")

# Every door that has to be shut: it answers "shut" only if none opened.
_PROBE = """
import os, socket
def opens(door):
    try:
        door()
    except OSError:
        return False
    return True
doors = [
    lambda: socket.socket(),
    lambda: open("/etc/passwd"),
    lambda: open("/usr/lib/tenth-probe", "w"),
    lambda: os.listdir("/proc"),
    lambda: os.fork(),
    lambda: os.kill(os.getppid() or 2, 0),
    lambda: os.execv("/bin/true", ["true"]),
]
open("scratch", "w").write("shut")
print("open" if any([opens(door) for door in doors]) else open("scratch").read())
"""


def find_tier() -> Tier:
    """The strongest tier that works here, found by trying. SandboxUnavailable where none does."""
    reasons = []
    for tier in Tier:
        try:
            with Sandbox(tier) as sandbox:
                outcome = sandbox.run_program(Program(source=_PROBE))
        except (SandboxUnavailable, VerifierError) as error:
            reasons.append(f"{tier}: {error}")
            continue
        if outcome.status is Status.OK and outcome.stdout == "shut\n":
            return tier
        reasons.append(f"{tier}: a probe ended with {outcome.stdout!r:.40} {outcome.stderr[-200:]!r}")
    raise SandboxUnavailable(
        f"this machine cannot contain a program, so no code is run ({'; '.join(reasons)}); use a "
        "Linux kernel of 5.13 or newer with Landlock and seccomp."
    )


class SandboxPool:
    """`workers` sandboxes, started when first needed. Threads may share a pool."""

    def __init__(self, *, workers: int | None = None, tier: Tier | None = None) -> None:
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._tier = tier
        self._lock = threading.Lock()
        self._free: queue.LifoQueue[Sandbox] = queue.LifoQueue()
        self._executor: ThreadPoolExecutor | None = None

    def run_many(self, jobs: Sequence[Job]) -> list[Result | VerifierError]:
        """What became of each job, in order. A VerifierError in a place: nobody knows about that one."""
        return self.read_many(jobs, lambda _, result: result)

    def read_many(self, jobs: Sequence[Job], read: Callable[[int, Result | VerifierError], T]) -> list[T]:
        """What `read` makes of each job's place and end, in order.

        It is called by the workers, as soon as a job ends: the outputs of thousands need not fit into memory.
        """
        return list(
            self._started().map(lambda place, job: read(place, self._run(job)), range(len(jobs)), jobs)
        )

    def close(self) -> None:
        """End all sandboxes."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(cancel_futures=True)
                self._executor = None
            while not self._free.empty():
                self._free.get().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._tier = self._tier or find_tier()
                for _ in range(self._num_workers):
                    self._free.put(Sandbox(self._tier))
                self._executor = ThreadPoolExecutor(self._num_workers, thread_name_prefix="sandbox")
            return self._executor

    def _run(self, job: Job) -> Result | VerifierError:
        sandbox = self._free.get()
        try:
            return sandbox.run_program(job) if isinstance(job, Program) else sandbox.run_tests(job)
        except VerifierError as error:
            return error
        finally:
            self._free.put(sandbox)
