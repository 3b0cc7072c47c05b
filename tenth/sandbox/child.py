"""From a fork of the zygote to a contained process: scratch folder, descriptors, limits, no way back.

Why: the order matters. Folders and descriptors first, while that is still allowed, then every right is given
up, and only then the zygote hears that it worked. Whatever fails is the sandbox's failure, never the
candidate's.
In:  an `Assignment` and its descriptors.  Out: this process contained, or an OSError.
Not here: what it then does (roles.py).
"""

import fcntl
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tenth.sandbox import landlock, namespaces, seccomp
from tenth.sandbox.kernel import PR_SET_KEEPCAPS, keep_capabilities, prctl
from tenth.sandbox.limits import Limits, Tier
from tenth.sandbox.namespaces import NOBODY

_THREADS = 64  # where one process is allowed
_OTHERS = 8  # zygote, judge and whatever else counts for the same user namespace
_STACK_BYTES = 64 << 20  # deep recursion is a common way to solve a problem
_ABOVE_ALL = 128
_CAP_DAC_READ_SEARCH = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the zygote is told about one process. Nothing of what the candidate must not know."""

    role: str
    limits: Limits
    scratch: str  # a folder that exists; not used where there are namespaces


def contain(assignment: Assignment, *, tier: Tier, readable: Sequence[str]) -> None:
    """Everything but the descriptors. Afterwards this process and its children are harmless."""
    limits = assignment.limits
    is_private = tier is Tier.NAMESPACES
    scratch = namespaces.SCRATCH if is_private else assignment.scratch
    if is_private:
        namespaces.mount_scratch(num_bytes=limits.scratch_bytes, num_files=limits.scratch_files)
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch)
    os.umask(0o077)
    os.setsid()
    _forget_the_project()
    may_fork = is_private and limits.processes > 1
    if not is_private and os.geteuid() == 0:
        _become_nobody()
    else:
        keep_capabilities()
    _limit(limits, tasks=(limits.processes if may_fork else _THREADS) + _OTHERS, is_private=is_private)
    landlock.restrict(readable=readable, scratch=scratch)
    seccomp.install(may_fork=may_fork)


def place_descriptors(descriptors: Sequence[int], *, kept: int) -> int:
    """`descriptors` become 0, 1, 2, ...; `kept` becomes the next, which is returned; no others stay."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, _ABOVE_ALL) for number in (*descriptors, kept)]
    for place, number in enumerate(moved):
        os.dup2(number, place)
    os.closerange(len(moved), _ABOVE_ALL + len(moved) + 1024)  # the zygote never has many
    return len(descriptors)


def _become_nobody() -> None:
    """Root without capabilities still owns root's files, and the kernel never limits root's threads.

    The standard library may lie in root's home. Landlock says what else can be read, so one right is kept.
    """
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        keep_capabilities(_CAP_DAC_READ_SEARCH)
    except PermissionError:  # a container without it
        keep_capabilities()


def _limit(limits: Limits, *, tasks: int, is_private: bool) -> None:
    memory = limits.memory_bytes // (limits.processes if is_private else 1)
    wanted = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: _STACK_BYTES,
    }
    # Counted per user: here that means per sandbox, elsewhere everything the user runs.
    wanted[resource.RLIMIT_NPROC] = tasks if is_private else _tasks_of_this_user() + 4 * _THREADS
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _tasks_of_this_user() -> int:
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                count += os.stat(f"/proc/{name}/task").st_nlink - 2  # a folder per thread
        except OSError:  # it has ended
            continue
    return count


def _forget_the_project() -> None:
    """The standard library is all that a candidate finds to import."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tenth"]:
        del sys.modules[name]
    library = os.path.dirname(os.__file__)
    sys.path[:] = [path for path in sys.path if path == library or path.startswith(library + os.sep)]
