"""Building the kernels: once, into a cache, and never a reason to fail."""

import os
import platform
import shutil

import pytest

from tenth.native import build

HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None and platform.machine() in (
    "x86_64",
    "AMD64",
)
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
build_now = build.library.__wrapped__  # without the memory of this process
QUICK = ("-O0", "-std=c++17", "-fPIC", "-shared")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TENTH_NATIVE", raising=False)
    monkeypatch.setattr(build, "_SOURCES", ("common.h", "sampling.cpp"))  # the smallest file, unoptimised
    monkeypatch.setattr(build, "_FLAGS", QUICK)
    return tmp_path / "tenth"


@needs_compiler
@pytest.mark.skipif(os.environ.get("TENTH_NATIVE") == "0", reason="kernels are switched off")
def test_where_a_compiler_is_the_kernels_are_used():
    kernels = build.library()
    assert kernels is not None
    for name in (
        "attention_forward",
        "rms_forward",
        "cross_entropy",
        "plan_dispatch",
        "forward",
        "sample",
    ):
        assert hasattr(kernels, f"tenth_{name}")


@needs_compiler
def test_a_second_process_finds_the_first_ones_build(empty_cache, monkeypatch):
    assert build_now() is not None
    (built,) = empty_cache.iterdir()  # and no partial file or folder is left beside it
    assert built.suffix == ".so"
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build_now() is not None


@needs_compiler
@pytest.mark.parametrize("changed", ["flags", "processor"])
def test_other_flags_or_another_processor_build_anew(empty_cache, monkeypatch, changed):
    build_now()
    if changed == "flags":
        monkeypatch.setattr(build, "_FLAGS", (*QUICK, "-DOTHER"))
    else:
        monkeypatch.setattr(build, "_processor", lambda: "another kind")
    build_now()
    assert len(list(empty_cache.iterdir())) == 2


def test_tenth_native_0_switches_them_off(empty_cache, monkeypatch):
    monkeypatch.setenv("TENTH_NATIVE", "0")
    assert build_now() is None
    assert not empty_cache.exists()


def test_without_a_compiler_there_is_no_library(empty_cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build_now() is None


def test_on_another_architecture_there_is_no_library(empty_cache, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert build_now() is None


@needs_compiler
def test_a_compiler_that_refuses_leaves_nothing_behind(empty_cache, monkeypatch):
    monkeypatch.setattr(build, "_FLAGS", ("--no-such-flag",))
    assert build_now() is None
    assert list(empty_cache.iterdir()) == []


@needs_compiler
def test_a_cache_that_cannot_be_written_is_no_error(empty_cache, monkeypatch, tmp_path):
    blocked = tmp_path / "a-file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert build_now() is None


@needs_compiler
def test_a_damaged_library_is_no_error(empty_cache, monkeypatch):
    def write_half(compiler, sources, target):
        target.parent.mkdir(parents=True)
        return bool(target.write_bytes(b"half a file"))

    monkeypatch.setattr(build, "_compile", write_half)
    assert build_now() is None
