"""Linux system calls that Python has no function for, with an OSError for every refusal.

Why: namespaces, Landlock and seccomp are asked for by number; one place knows how.
In:  numbers and buffers.  Out: what the kernel returned.
Not here: what is asked for (namespaces.py, landlock.py, seccomp.py).

`PyDLL` keeps the interpreter's lock: a `clone` in between would leave the child without it.
"""

import ctypes
import os
import platform
from typing import Any

MACHINE = platform.machine()

# name: (x86_64, aarch64)
NUMBERS = {
    "clone": (56, 220),
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "seccomp": (317, 277),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}

PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def column() -> int:
    """Which column of a table of system calls is this machine's; OSError where there is none."""
    if MACHINE not in ("x86_64", "aarch64"):
        raise OSError(0, f"no table of system calls for a {MACHINE} machine")
    return ("x86_64", "aarch64").index(MACHINE)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _libc() -> ctypes.PyDLL:
    return ctypes.PyDLL(None, use_errno=True)


def syscall(name: str, *arguments: int | bytes | ctypes.Array | ctypes.Structure | None) -> int:
    """A call by name. Integers are passed as longs, buffers as pointers."""
    call = _libc().syscall
    call.restype = ctypes.c_long
    return _checked(call(ctypes.c_long(NUMBERS[name][column()]), *map(_passed, arguments)), name)


def _passed(value: Any) -> Any:
    if isinstance(value, int):
        return ctypes.c_long(value)
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


def prctl(option: int, value: int) -> None:
    """One property of this process."""
    _checked(_libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(_libc().unshare(flags), "unshare")


def mount(source: str, target: str, *, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        kind and kind.encode(),
        ctypes.c_ulong(flags),
        options.encode(),
    )
    _checked(result, f"mount on {target}")


def unmount_lazily(target: str) -> None:
    """umount2(2) with MNT_DETACH."""
    _checked(_libc().umount2(os.fsencode(target), 2), f"unmount {target}")


def keep_capabilities(kept: int = 0) -> None:
    """Give up all capabilities but the bits of `kept`, for good: without new privileges none comes back."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    syscall("capset", header, (ctypes.c_uint32 * 6)(kept, kept))  # effective, permitted; inheritable none
