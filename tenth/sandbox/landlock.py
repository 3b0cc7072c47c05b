"""Which files a candidate may touch: libraries to read, one scratch folder to write. Landlock (Linux 5.13).

Why: a program that nobody has read runs as the user, and the user can write everything of the user's.
Landlock takes that away from a process for good, and needs no privileges.
In:  paths to read, one folder to write.  Out: the restriction, in force.
Not here: attributes such as mode and owner, which Landlock leaves alone (seccomp.py refuses those calls).
Kernel: Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
from collections.abc import Iterable

from tenth.sandbox.kernel import syscall

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15  # truncate, device ioctl
# Rights over files that each version of the interface knows: one bit more in versions 2, 3 and 5.
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_BIND_AND_CONNECT = 3  # from version 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 3  # from version 6
_ASK_VERSION = 1
_PATH_BENEATH = 1
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's interface; OSError where there is none."""
    return syscall("landlock_create_ruleset", None, 0, _ASK_VERSION)


def restrict(*, readable: Iterable[str], scratch: str) -> None:
    """From here on this process and its children open `readable` for reading and `scratch` for everything."""
    known = version()
    handled = _HANDLED[min(known, max(_HANDLED))]
    ruleset = _Ruleset(
        handled,
        _TCP_BIND_AND_CONNECT if known >= 4 else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if known >= 6 else 0,
    )
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    rules = syscall("landlock_create_ruleset", ruleset, size, 0)
    for path in readable:
        _allow(rules, path, (_READ_FILE | _READ_DIR) & handled)
    for path in _DEVICES:
        _allow(rules, path, (_READ_FILE | _WRITE_FILE) & handled)
    _allow(rules, scratch, handled & ~_EXECUTE)
    syscall("landlock_restrict_self", rules, 0)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    if not os.path.exists(path):
        return
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        rights &= _FILE_RIGHTS
    syscall("landlock_add_rule", rules, _PATH_BENEATH, _Beneath(rights, descriptor), 0)
    os.close(descriptor)
