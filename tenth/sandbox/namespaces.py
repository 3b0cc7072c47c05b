"""A machine of its own, as far as a process can tell: namespaces for users, mounts, network, IPC, names, ids.

Why: what a process cannot name it cannot harm. In here there are libraries to read and an empty folder; no
/proc, no home, no network interface, and nobody else's process.
In:  paths to show, an empty folder to build the new root on.  Out: this process inside; `clone_inside`.
Not here: what a process inside may still ask of the kernel (seccomp.py, landlock.py).
namespaces(7), user_namespaces(7), pivot_root(2).

Root needs one thing more: root inside would be root outside wherever a file slips through, so everything
runs as "nobody", and only the building of the root folder is done as root.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from tenth.sandbox.kernel import (
    PR_SET_SECUREBITS,
    mount,
    prctl,
    syscall,
    unmount_lazily,
    unshare,
)

NOBODY = 65534
SCRATCH = "/tenth-scratch"  # not /tmp: Python itself may have been installed there
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_SIGCHLD = 17

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 1, 2, 4, 8, 32
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_KEEP_CAPABILITIES_OVER_SETUID = 1 << 2  # SECBIT_NO_SETUID_FIXUP


def enter(*, readable: Iterable[str], root: str) -> None:
    """Move this process into new namespaces with `readable` as all there is to see; OSError if refused."""
    _new_user_namespace()
    mount("none", "/", flags=_REC | _PRIVATE)
    mount("tmpfs", root, kind="tmpfs", flags=_NOSUID | _NODEV, options="size=1m,mode=755")
    for path in readable:
        _show(path, root)
    for device in _DEVICES:
        _show(device, root, is_device=True)
    os.mkdir(root + SCRATCH)
    os.chdir(root)
    syscall("pivot_root", b".", b".")
    unmount_lazily(".")
    os.chdir("/")
    mount("none", "/", flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    prctl(PR_SET_SECUREBITS, _KEEP_CAPABILITIES_OVER_SETUID)
    if os.geteuid() == 0:
        os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def clone_inside() -> int:
    """`fork` into a namespace of process ids of its own, with mounts of its own. The child is its process 1.

    When process 1 ends, by itself or killed from outside, the kernel kills all others in there.
    """
    pid = syscall("clone", _NEWPID | _NEWNS | _SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()  # what os.fork would have done
    return pid


def mount_scratch(*, num_bytes: int, num_files: int) -> None:
    """An empty folder in memory that is gone with the last process that sees it."""
    options = f"size={num_bytes},nr_inodes={num_files},mode=1777"
    mount("tmpfs", SCRATCH, kind="tmpfs", flags=_NOSUID | _NODEV | _NOEXEC, options=options)


def _new_user_namespace() -> None:
    """All new namespaces but the one of process ids, which every candidate gets anew."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if outer_uid == 0:
        users = groups = f"0 0 1\n{NOBODY} {NOBODY} 1"
    else:
        users, groups = f"{NOBODY} {outer_uid} 1", f"{NOBODY} {outer_gid} 1"
    ready, go = os.pipe()
    own_pid = os.getpid()
    helper = os.fork()
    if helper == 0:  # outside: only from there may root map more than one id
        os.close(go)
        os.read(ready, 1)
        os._exit(_write_maps(own_pid, users, groups) if outer_uid == 0 else 0)
    os.close(ready)
    try:
        unshare(_NEWUSER | _NEWNS | _NEWNET | _NEWIPC | _NEWUTS)
    finally:
        os.close(go)
        _, status = os.waitpid(helper, 0)
    if outer_uid != 0:
        _write("/proc/self/setgroups", "deny")
        status = _write_maps(own_pid, users, groups)
    if status != 0:
        raise OSError(0, "user and group ids could not be mapped")


def _write_maps(pid: int, users: str, groups: str) -> int:
    try:
        _write(f"/proc/{pid}/uid_map", users)
        _write(f"/proc/{pid}/gid_map", groups)
    except OSError:
        return 1
    return 0


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _show(path: str, root: str, *, is_device: bool = False) -> None:
    """Bind `path` below `root` at the same place, to be read only, and everything mounted below it too."""
    if not os.path.exists(path):
        return
    place = root + path
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    elif not os.path.exists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(path, place, flags=_BIND | _REC)
    attributes = _RDONLY | _NOSUID | (0 if is_device else _NODEV)
    # struct mount_attr: set, clear, propagation, user namespace. The attributes are numbered like the flags.
    packed = struct.pack("QQQQ", attributes, 0, 0, 0)
    syscall("mount_setattr", _AT_FDCWD, os.fsencode(place), _AT_RECURSIVE, packed, len(packed))
