"""What a candidate gets, what came of it, and how it is contained: the room's records.

Not here: how limits are put in force (child.py for those of the kernel, watch.py for time and output).
"""

from dataclasses import dataclass
from enum import StrEnum

from tenth.base.errors import ConfigError
from tenth.base.records import Record

MIB = 1 << 20
MIN_MEMORY_BYTES = 128 * MIB  # the interpreter and its modules alone take a third of that


class Tier(StrEnum):
    """How a candidate is contained, the stronger first; docs/sandbox.md says what each holds."""

    NAMESPACES = "namespaces"  # a machine of its own, with Landlock and seccomp inside
    LANDLOCK = "landlock"  # Landlock and seccomp alone


class Status(StrEnum):
    """How a program ended."""

    OK = "ok"  # exit code 0
    FAILED = "failed"  # another exit code, an exception, or a signal: memory, processor time, a crash
    LATE = "late"  # killed at the deadline
    TOO_MUCH = "too much"  # killed for more output or more files than allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Record):
    """What one process tree may use."""

    wall_seconds: float = 10.0
    cpu_seconds: int = 8
    memory_bytes: int = 512 * MIB  # of address space; several processes share it evenly
    processes: int = 1  # 1: threads only. More needs namespaces; elsewhere it is 1
    open_files: int = 64
    file_bytes: int = 16 * MIB  # one file
    scratch_bytes: int = 16 * MIB  # all files
    scratch_files: int = 1024
    output_bytes: int = 1 * MIB  # standard output, and as much again of standard error

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ConfigError(f"sandbox limit {name} = {getattr(self, name)}; it has to be positive.")
        share = self.memory_bytes // self.processes
        if share < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"{self.processes} processes share memory_bytes = {self.memory_bytes:,}, which leaves "
                f"{share:,} each, but Python needs {MIN_MEMORY_BYTES:,}; allow more memory."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Record):
    """A whole program that reads standard input and writes standard output."""

    source: str
    stdin: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTests(Record):
    """Functions to be called by tests. `setup` and `tests` are trusted not to lie, the candidate is not."""

    source: str  # the candidate
    tests: tuple[str, ...]  # statements; each passes unless it raises
    setup: str = ""  # runs before the tests, beside them
    entry_point: str | None = None  # a name that is the candidate's, even where `setup` defines it
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Record):
    """What became of a program."""

    status: Status
    stdout: str
    stderr: str
    exit_code: int  # negative: the signal that ended it
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResults(Record):
    """Which tests passed. What was not reached has not passed."""

    passed: tuple[bool, ...]
    reasons: tuple[str, ...]  # one per test; empty where it passed

    __test__ = False  # for pytest, which collects what is called Test

    @property
    def is_all_passed(self) -> bool:
        """There was something to pass, and all of it was."""
        return bool(self.passed) and all(self.passed)
