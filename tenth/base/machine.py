"""What this machine is and whether a run fits on it: processor, cores, memory, disk.

Why: results are bit-exact only for the same processor kind and thread count, so a run records both; and a run
that cannot fit should say so before its first step, not after an hour.
In:  /proc on Linux, what Python knows elsewhere; a container's limits count as the machine's.
Out: `Machine`; `preflight` raises a RunError with the numbers and the remedy.
Not here: applying anything to the process (native/process.py), measuring speed.
"""

import math
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tenth.base.errors import RunError
from tenth.base.records import Record
from tenth.base.units import show_bytes

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last as ARM writes it
_NO_LIMIT = 2**60  # version 1 control groups write "no limit" as an enormous number of bytes
_SPARE_SHARE = 0.05  # of the disk: a file system that is full to the brim stops more than this run


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Record):
    """Written into run.json."""

    cpu: str  # the processor's own name
    logical_cores: int  # hardware threads that this process may use
    threads: int  # physical cores among them: how many threads compute best
    memory_gib: float  # the machine's or the container's, whichever is less
    platform: str  # "Linux-6.1-x86_64"
    bf16: bool | None  # bfloat16 arithmetic in hardware; None: unknown


def describe_machine() -> Machine:
    """This machine, as far as it can be known without any library."""
    memory = _total_memory_bytes()
    return Machine(
        cpu=_cpu_name(),
        logical_cores=len(_usable_cpus()),
        threads=usable_threads(),
        memory_gib=round(memory / 2**30, 1) if memory else 0.0,
        platform=f"{platform.system()}-{platform.release()}-{platform.machine()}",
        bf16=has_bf16(),
    )


def has_bf16() -> bool | None:
    """Whether the processor multiplies bfloat16 in hardware; None where nobody says."""
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return bool(_BF16_FLAGS & set(value.split()))
    return None


def usable_threads() -> int:
    """Physical cores that this process may use, within a container's quota; at least 1.

    Two hardware threads of one core share its multipliers, so a second one slows a matrix product down.
    """
    cores = {_core_of(cpu) for cpu in _usable_cpus()}
    quota = _cpu_quota()
    return max(1, min(len(cores), math.ceil(quota) if quota else len(cores)))


def disk_free_bytes(path: Path) -> int:
    """Free bytes where `path` is or will be."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping; None where nobody says."""
    limits = [value for value in (_meminfo("MemAvailable"), _cgroup_headroom()) if value is not None]
    return min(limits) if limits else None


def preflight(*, needed_bytes_memory: int, needed_bytes_disk: int, path: Path) -> None:
    """Refuse a run that will not fit, before its first step."""
    free_memory = free_memory_bytes()
    if free_memory is not None and needed_bytes_memory > free_memory:
        raise RunError(
            f"this run needs about {show_bytes(needed_bytes_memory)} of memory and {show_bytes(free_memory)} "
            "are free; close other programs, or choose a smaller model or fewer sequences per step."
        )
    free_disk = disk_free_bytes(path)
    if needed_bytes_disk > free_disk * (1 - _SPARE_SHARE):
        raise RunError(
            f"this run needs about {show_bytes(needed_bytes_disk)} of disk at {path} and "
            f"{show_bytes(free_disk)} are free; clean old runs (`tenth runs clean NAME`), or choose another "
            "disk with --runs-dir."
        )


def _cpu_name() -> str:
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _core_of(cpu: int) -> str:
    """A name of the physical core of a hardware thread; its own number where nobody says."""
    siblings = _lines(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings[0] if siblings else str(cpu)


def _cpu_quota() -> float | None:
    """How many CPUs a container may use at once; None without a limit."""
    for text in _lines("/sys/fs/cgroup/cpu.max"):  # version 2: "200000 100000", "max 100000"
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    quota_us = _number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period_us = _number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _total_memory_bytes() -> int | None:
    limits = [value for value in (_physical_memory_bytes(), _cgroup_limit()) if value is not None]
    return min(limits) if limits else None


def _physical_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every platform
        return None


def _meminfo(key: str) -> int | None:
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _cgroup_limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _number(path)
        if limit is not None and limit < _NO_LIMIT:
            return limit
    return None


def _cgroup_headroom() -> int | None:
    limit = _cgroup_limit()
    used = _number("/sys/fs/cgroup/memory.current") or _number("/sys/fs/cgroup/memory/memory.usage_in_bytes")
    return limit - used if limit is not None and used is not None else None


def _number(path: str) -> int | None:
    text = _lines(path)[:1]
    return int(text[0]) if text and text[0].lstrip("-").isdigit() else None


def _lines(path: str) -> list[str]:
    """The lines of a file of the kernel's; none where it does not exist."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
