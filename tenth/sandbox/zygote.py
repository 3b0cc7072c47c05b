"""The process that forks contained processes: warm, small, and told nothing that a candidate must not know.

Why: starting Python takes 20 ms, forking it 2. Everything a fork inherits a candidate can find, so source,
tests and expected outputs never pass through here: the host sends open descriptors, and the zygote hands
them on unread.
In:  on the descriptor in argv a packet per request: {"spawn": ..., and descriptors} or {"reap": pid}.
Out: a packet per request: {"pid": ...}, {"status": ..., "cpu_seconds": ...} or {"error": ...}.
Not here: deadlines and output, which the host watches (watch.py).
"""

import gc
import json
import os
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable

from tenth.sandbox import landlock, namespaces, roles
from tenth.sandbox.child import Assignment, contain, place_descriptors
from tenth.sandbox.kernel import PR_SET_DUMPABLE, prctl
from tenth.sandbox.limits import Limits, Tier

MAX_PACKET_BYTES = 1 << 16
MAX_DESCRIPTORS = 8
_ROLES: dict[str, Callable[[], None]] = {
    "program": roles.run_program,
    "functions": roles.lend_functions,
    "judge": roles.judge_functions,
}
# What solutions import most; imported once, they cost a candidate nothing.
_WARM = (
    *("math", "cmath", "re", "string", "random", "itertools", "functools", "collections", "heapq", "bisect"),
    *("operator", "datetime", "typing", "decimal", "fractions", "statistics", "copy", "array", "json"),
    *("dataclasses", "enum", "traceback", "linecache", "threading", "io", "queue", "textwrap", "time"),
)


def main(control_descriptor: int, tier_name: str, root: str) -> None:
    """Serve until the host hangs up. In a child this returns into the child's role."""
    control, tier = socket.socket(fileno=control_descriptor), Tier(tier_name)
    readable = readable_paths()
    try:
        _prepare(tier, readable, root)
    except OSError as error:
        _send(control, {"error": str(error)})
        return
    _send(control, {"pid": os.getpid()})
    role = _serve(control, tier, readable)
    if role is not None:
        role()


def readable_paths() -> list[str]:
    """The standard library, the C libraries it needs, time zones. No path twice."""
    library = sysconfig.get_paths()["stdlib"]
    wanted = [
        *(library, sysconfig.get_paths()["platstdlib"], os.path.join(sys.base_prefix, "lib")),
        *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"),
    ]
    found = dict.fromkeys(path for path in wanted if os.path.exists(path))
    return [path for path in found if not any(path.startswith(other + os.sep) for other in found)]


def _prepare(tier: Tier, readable: list[str], root: str) -> None:
    import site

    for name in _WARM:
        __import__(name)
    site.setquit()  # `exit()`, which programs use although it is meant for people
    landlock.version()  # both tiers need it; better said now
    if tier is Tier.NAMESPACES:
        namespaces.enter(readable=readable, root=root)
    prctl(PR_SET_DUMPABLE, 0)  # nobody of the same user may look into this process or trace it
    gc.collect()
    gc.freeze()  # else the first collection in every child would copy all pages


def _serve(control: socket.socket, tier: Tier, readable: list[str]) -> Callable[[], None] | None:
    """None at the end of the zygote; in a child, what it has to do."""
    alive: set[int] = set()
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, MAX_DESCRIPTORS)
        if not packet:
            for pid in alive:
                _kill(pid)
            return None
        request = json.loads(packet)
        if "reap" in request:
            alive.discard(request["reap"])
            _send(control, _reap(request["reap"]))
            continue
        assignment = Assignment(**request["spawn"] | {"limits": Limits(**request["spawn"]["limits"])})
        ready, report = os.pipe()
        pid = namespaces.clone_inside() if tier is Tier.NAMESPACES else os.fork()
        if pid == 0:
            control.detach()
            del control, packet, request
            return _become(assignment, descriptors, report, tier=tier, readable=readable)
        for descriptor in (*descriptors, report):
            os.close(descriptor)
        answer = _heard(ready, pid)
        if "pid" in answer:
            alive.add(pid)
        _send(control, answer)


def _become(
    assignment: Assignment, descriptors: list[int], report: int, *, tier: Tier, readable: list[str]
) -> Callable[[], None]:
    """In the child: contained and reported, or gone."""
    role = _ROLES[assignment.role]
    report = place_descriptors(descriptors, kept=report)
    try:
        contain(assignment, tier=tier, readable=readable)
    except (OSError, ValueError) as error:
        os.write(report, str(error).encode()[:1000] or b"unknown")
        os._exit(1)
    os.write(report, b"+")
    os.close(report)
    return role


def _heard(ready: int, pid: int) -> dict[str, object]:
    with open(ready, "rb") as file:
        said = file.read()
    if said == b"+":
        return {"pid": pid}
    _reap(pid)
    return {"error": said.decode(errors="replace") or "the process ended before it was contained"}


def _kill(pid: int) -> None:
    """The process and, where it is no namespace's process 1, its group: nobody in there can leave it."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _reap(pid: int) -> dict[str, object]:
    _kill(pid)
    _, status, usage = os.wait4(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    return {"exit_code": exit_code, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def _send(control: socket.socket, reply: dict[str, object]) -> None:
    control.send(json.dumps(reply).encode())
