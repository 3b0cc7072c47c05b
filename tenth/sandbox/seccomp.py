"""Which system calls a candidate may make: a list of what is harmless; all else is refused.

Why: the kernel offers hundreds of calls and gets new ones every year. Python programs that compute need
about a hundred, so those are named and everything else "does not exist" for them: no sockets, no new
programs, no namespaces, no tracing, no signals to others, no change of owner, mode or time of a file.
In:  this process's id and whether it may start processes.  Out: a filter, installed for good.
Not here: which files may be opened (landlock.py). Kernel: Documentation/userspace-api/seccomp_filter.rst.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from tenth.sandbox.kernel import MACHINE, column, syscall

# Allowed whatever the arguments: name, number on x86_64, number on aarch64. Paths are Landlock's to judge.
_ALLOWED = """
access 21 -, alarm 37 -, arch_prctl 158 -, brk 12 214, chdir 80 49, clock_getres 229 114,
clock_gettime 228 113, clock_nanosleep 230 115, close 3 57, copy_file_range 326 285, dup 32 23,
dup2 33 -, dup3 292 24, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21,
epoll_pwait 281 22, epoll_wait 232 -, eventfd2 290 19, exit 60 93, exit_group 231 94,
faccessat 269 48, faccessat2 439 439, fadvise64 221 223, fallocate 285 47, fchdir 81 50,
fdatasync 75 83, flock 73 32, fstat 5 80, fstatfs 138 44, fsync 74 82, ftruncate 77 46, futex 202 98,
get_robust_list 274 100, getcpu 309 168, getcwd 79 17, getdents64 217 61, getegid 108 177,
geteuid 107 175, getgid 104 176, getgroups 115 158, getitimer 36 102, getpeername 52 205,
getpgid 121 155, getpgrp 111 -, getpid 39 172, getppid 110 173, getrandom 318 278, getresgid 120 150,
getresuid 118 148, getrlimit 97 163, getrusage 98 165, getsid 124 156, getsockname 51 204,
getsockopt 55 209, gettid 186 178, gettimeofday 96 169, getuid 102 174, link 86 -, linkat 265 37,
lseek 8 62, lstat 6 -, madvise 28 233, membarrier 324 283, mincore 27 232, mkdir 83 -, mkdirat 258 34,
mmap 9 222, mprotect 10 226, mremap 25 216, msync 26 227, munmap 11 215, nanosleep 35 101,
newfstatat 262 79, open 2 -, openat 257 56, pause 34 -, pipe 22 -, pipe2 293 59, poll 7 -,
ppoll 271 73, pread64 17 67, pselect6 270 72, pwrite64 18 68, read 0 63, readlink 89 -,
readlinkat 267 78, readv 19 65, recvfrom 45 207, rename 82 -, renameat 264 38, renameat2 316 276,
restart_syscall 219 128, rmdir 84 -, rseq 334 293, rt_sigaction 13 134, rt_sigpending 127 136,
rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigsuspend 130 133, rt_sigtimedwait 128 137,
sched_getaffinity 204 123, sched_yield 24 124, select 23 -, sendfile 40 71, set_robust_list 273 99,
set_tid_address 218 96, setitimer 38 103, setsockopt 54 208, shutdown 48 210, sigaltstack 131 132,
socketpair 53 199, stat 4 -, statfs 137 43, statx 332 291, symlink 88 -, symlinkat 266 36,
sysinfo 99 179, time 201 -, times 100 153, umask 95 166, uname 63 160, unlink 87 -, unlinkat 263 35,
wait4 61 260, waitid 247 95, write 1 64, writev 20 66
"""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_THREAD = 0x00010000
_CLONE_FOREIGN = 0x7E028000  # any new namespace, or a child of the parent's
# Descriptors: duplicate, flags, locks, size of a pipe. Not whom they send signals to.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
# Is it a terminal, its size, close-on-exec, blocking, bytes waiting. Not what types into a terminal.
_IOCTL = (0x5401, 0x5413, 0x5450, 0x5451, 0x5421, 0x541B)

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_SECCOMP_SET_MODE_FILTER = 1

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(*, may_fork: bool) -> None:
    """Filter this process and whatever it starts. `kill` and `prlimit` reach nobody but itself."""
    instructions = filter_program(own_pid=os.getpid(), may_fork=may_fork)
    packed = b"".join(struct.pack("HBBI", *one) for one in instructions)
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, _Program(len(instructions), packed))


def filter_program(*, own_pid: int, may_fork: bool) -> list[Instruction]:
    """The filter as instructions of classic BPF."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, 4),  # the architecture: another one numbers its calls otherwise
        (_EQUAL, 1, 0, _ARCHITECTURES[MACHINE]),
        _give(_KILL),
        (_LOAD, 0, 0, 0),  # the number of the call; x32's have a bit that no number of ours has
    ]
    for number in _allowed_numbers():
        program += _on(number, [_give(_ALLOW)])
    fork_flags = [] if may_fork else _unless_bits(0, _CLONE_THREAD, errno.EAGAIN)
    rules = {
        (56, 220): [*_if_bits(0, _CLONE_FOREIGN, errno.EPERM), *fork_flags, _give(_ALLOW)],  # clone
        (57, None): [_give(_ALLOW) if may_fork else _refuse(errno.EAGAIN)],  # fork
        (58, None): [_give(_ALLOW) if may_fork else _refuse(errno.EAGAIN)],  # vfork
        (62, 129): _one_of(0, (own_pid,), errno.EPERM),  # kill
        (234, 131): _one_of(0, (own_pid,), errno.EPERM),  # tgkill
        (302, 261): _one_of(0, (0, own_pid), errno.EPERM),  # prlimit64
        # sendto: to the other end of a pair, to no address (a pointer, so both its halves count)
        (44, 206): [_upper_half(4), (_EQUAL, 1, 0, 0), _refuse(errno.EPERM), *_one_of(4, (0,), errno.EPERM)],
        (72, 25): _one_of(1, _FCNTL, errno.EINVAL),
        (16, 29): _one_of(1, _IOCTL, errno.ENOTTY),
    }
    for numbers, rule in rules.items():
        here = numbers[column()]
        if here is not None:
            program += _on(here, rule)
    return [*program, _refuse(errno.ENOSYS)]  # C libraries know what to do without a call


def _allowed_numbers() -> Iterable[int]:
    for entry in _ALLOWED.split(","):
        number = entry.split()[1 + column()]
        if number != "-":
            yield int(number)


def _give(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


def _refuse(number: int) -> Instruction:
    return _give(0x00050000 | number)


def _on(number: int, rule: list[Instruction]) -> list[Instruction]:
    return [(_EQUAL, 0, len(rule), number), *rule]


def _argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, 16 + 8 * index)  # its lower half, little-endian


def _upper_half(index: int) -> Instruction:
    return (_LOAD, 0, 0, 20 + 8 * index)


def _one_of(index: int, values: Iterable[int], error: int) -> list[Instruction]:
    rule = [_argument(index)]  # the kernel reads an int from the lower half alone
    for value in values:
        rule += [(_EQUAL, 0, 1, value), _give(_ALLOW)]
    return [*rule, _refuse(error)]


def _if_bits(index: int, bits: int, error: int) -> list[Instruction]:
    return [_argument(index), (_ANY_BIT, 0, 1, bits), _refuse(error)]


def _unless_bits(index: int, bits: int, error: int) -> list[Instruction]:
    return [_argument(index), (_ANY_BIT, 1, 0, bits), _refuse(error)]
