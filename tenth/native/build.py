"""Build and load the C++ kernels: compiled by the user's own compiler at first use, cached, optional.

Why: on a CPU a small network's time goes to many passes over small tensors, and torch's attention runs at
a tenth of the machine's peak; a few hundred lines of C++ remove both. Without a compiler, or where
`TENTH_NATIVE=0`, `library()` is None and every caller uses its torch twin.
In:  the .cpp files beside this one.
Out: a ctypes library under the user's cache directory, named by the hash of sources, compiler, flags and
     processor.
Not here: what the kernels mean (model/ops.py).
"""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tenth.base.files import text_hash

_SOURCES = (
    *("common.h", "attention.cpp", "rowwise.cpp", "dispatch.cpp", "grouped.cpp", "sampling.cpp"),
    *("panels.h", "adapters.h", "network.h", "paged_attention.h", "routing.h", "pack.cpp", "forward.cpp"),
)
# No -ffast-math: infinities mark masked scores. This much is what sums need to become vectors.
_REDUCTIONS = ("-fassociative-math", "-fno-signed-zeros", "-freciprocal-math")
_FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-mprefer-vector-width=512"),
    *("-fno-math-errno", "-fno-trapping-math", *_REDUCTIONS),
)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, built on the first call of the machine; None where they cannot be built."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    if os.environ.get("TENTH_NATIVE") == "0" or compiler is None or not is_x86:
        return None
    sources = [Path(__file__).with_name(name) for name in _SOURCES]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    name = text_hash(*(path.read_text() for path in sources), version, *_FLAGS, _processor())
    target = _cache_dir() / f"kernels-{name}.so"
    if not target.exists() and not _compile(compiler, sources, target):
        return None
    # torch's OpenMP runtime must be in the process first: a second one brings a second pool of threads
    import torch  # noqa: F401

    try:
        return ctypes.CDLL(str(target))
    except OSError:
        return None


def _compile(compiler: str, sources: list[Path], target: Path) -> bool:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            partial = Path(folder) / target.name
            units = [str(path) for path in sources if path.suffix == ".cpp"]
            command = [compiler, *_FLAGS, *units, "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode:
                return False
            partial.replace(target)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tenth"


def _processor() -> str:
    """The processor's feature list: a cache on a shared home must not serve another kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
