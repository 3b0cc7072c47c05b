import os

import pytest

from tenth.base import machine
from tenth.base.errors import RunError

GIB = 2**30


@pytest.fixture
def kernel(monkeypatch):
    """A made-up machine: file -> text. Two sockets' worth of nothing unless a test writes it."""
    files: dict[str, str] = {}
    monkeypatch.setattr(machine, "_lines", lambda path: files.get(path, "").splitlines())
    monkeypatch.setattr(machine, "_usable_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "_physical_memory_bytes", lambda: 8 * GIB)
    return files


def topology(kernel: dict[str, str], siblings: list[str]) -> None:
    for cpu, text in enumerate(siblings):
        kernel[f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = text + "\n"


def test_this_machine_can_be_described():
    here = machine.describe_machine()
    assert 1 <= here.threads <= here.logical_cores <= (os.cpu_count() or 1)
    assert here.cpu
    assert here.memory_gib > 0.1


def test_two_hardware_threads_of_one_core_count_once(kernel):
    topology(kernel, ["0,2", "1,3", "0,2", "1,3"])
    assert machine.usable_threads() == 2


def test_without_a_topology_every_cpu_counts(kernel):
    assert machine.usable_threads() == 4


@pytest.mark.parametrize(("quota", "threads"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
def test_a_containers_quota_limits_the_threads(kernel, quota, threads):
    kernel["/sys/fs/cgroup/cpu.max"] = quota
    assert machine.usable_threads() == threads


def test_an_older_containers_quota_limits_the_threads(kernel):
    kernel["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "300000"
    kernel["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000"
    assert machine.usable_threads() == 3
    kernel["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "-1"  # no limit
    assert machine.usable_threads() == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name : X\nflags\t\t: fpu avx512_bf16 avx512f", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2", False),
        ("", None),
    ],
)
def test_bfloat16_is_read_from_the_processors_flags(kernel, text, expected):
    kernel["/proc/cpuinfo"] = text
    assert machine.has_bf16() is expected


def test_a_containers_memory_limit_is_the_machines_memory(kernel):
    kernel["/sys/fs/cgroup/memory.max"] = str(2 * GIB)
    assert machine.describe_machine().memory_gib == 2.0
    kernel["/sys/fs/cgroup/memory.max"] = "max"
    assert machine.describe_machine().memory_gib == 8.0


def test_free_memory_is_what_both_the_machine_and_the_container_have_left(kernel):
    kernel["/proc/meminfo"] = "MemTotal: 9 kB\nMemAvailable:    3145728 kB\n"
    assert machine.free_memory_bytes() == 3 * GIB
    kernel["/sys/fs/cgroup/memory.max"] = str(2 * GIB)
    kernel["/sys/fs/cgroup/memory.current"] = str(GIB // 2)
    assert machine.free_memory_bytes() == 3 * GIB // 2


def test_a_run_that_fits_passes(tmp_path):
    machine.preflight(needed_bytes_memory=1, needed_bytes_disk=1, path=tmp_path / "not" / "there" / "yet")


def test_too_little_memory_is_refused_with_both_numbers(kernel, tmp_path):
    kernel["/proc/meminfo"] = "MemAvailable: 1048576 kB\n"
    with pytest.raises(RunError, match=r"needs about 2\.0 GiB of memory and 1\.0 GiB are free; close other"):
        machine.preflight(needed_bytes_memory=2 * GIB, needed_bytes_disk=0, path=tmp_path)


def test_too_little_disk_is_refused_with_both_numbers(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "disk_free_bytes", lambda path: 10 * GIB)
    with pytest.raises(RunError, match=r"needs about 9\.8 GiB of disk .* 10\.0 GiB are free; clean old runs"):
        machine.preflight(needed_bytes_memory=0, needed_bytes_disk=int(9.8 * GIB), path=tmp_path)


def test_where_nobody_knows_the_memory_nothing_is_refused(kernel, tmp_path):
    machine.preflight(needed_bytes_memory=2**60, needed_bytes_disk=0, path=tmp_path)
