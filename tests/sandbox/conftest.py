"""A sandbox of each tier that this machine has, and a machine with something to lose."""

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tenth.base.errors import SandboxUnavailable
from tenth.sandbox.limits import MIB, Limits, Program, Tier
from tenth.sandbox.pool import SandboxPool, find_tier
from tenth.sandbox.sandbox import Sandbox

# Small enough that an attack of a few seconds is over its limit, large enough for an honest program.
ATTACKED = Limits(
    wall_seconds=1.0,
    cpu_seconds=1,
    memory_bytes=256 * MIB,
    scratch_bytes=4 * MIB,
    file_bytes=2 * MIB,
    scratch_files=200,
    output_bytes=64 << 10,
)


@pytest.fixture(scope="session", params=list(Tier))
def tier(request) -> Tier:
    """Both tiers, the second although the first would be taken."""
    try:
        find_tier()
        with Sandbox(request.param) as sandbox:
            sandbox.run_program(Program(source=""))
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="session")
def sandbox(tier) -> Iterator[Sandbox]:
    with Sandbox(tier) as made:
        yield made


@pytest.fixture(scope="session")
def pool(tier) -> Iterator[SandboxPool]:
    with SandboxPool(workers=2, tier=tier) as made:
        yield made


@dataclass
class Victim:
    """What attacks aim at, and whether it was hit."""

    canary: Path
    listener: socket.socket
    stream: socket.socket
    datagrams: socket.socket
    name: str
    signals: list[int] = field(default_factory=list)

    def aim(self, source: str) -> str:
        """The attack with this machine's facts in it."""
        facts = {
            "PORT": self.listener.getsockname()[1],
            "CANARY": self.canary,
            "HOME": self.canary.parent,
            "SOCKET": self.name,
            "PID": os.getpid(),
        }
        for word, fact in facts.items():
            source = source.replace(word, str(fact))
        return source

    def assert_unharmed(self) -> None:
        """Nobody called, nobody wrote, nobody signalled."""
        assert self.canary.read_text() == "untouched"
        assert [path.name for path in self.canary.parent.iterdir()] == [self.canary.name]
        assert self.canary.stat().st_mode & 0o777 == 0o666
        assert self.canary.stat().st_mtime > 1
        assert not Path("/dev/shm/tenth-attack").exists()
        for socket_ in (self.listener, self.stream, self.datagrams):
            with pytest.raises(BlockingIOError):
                socket_.recv(1) if socket_.type == socket.SOCK_DGRAM else socket_.accept()
        assert not self.signals


@pytest.fixture
def victim(tmp_path, monkeypatch) -> Iterator[Victim]:
    """Open doors: a file and folder that everybody may write, sockets that anybody may reach, a secret."""
    monkeypatch.setenv("TENTH_TEST_SECRET", "do-not-tell")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    canary = home / "canary"
    canary.write_text("untouched")
    canary.chmod(0o666)
    name = f"tenth-attack-{os.getpid()}"
    with (
        socket.socket() as listener,
        socket.socket(socket.AF_UNIX) as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        listener.bind(("127.0.0.1", 0))
        stream.bind("\0" + name)
        datagrams.bind(f"\0{name}-datagrams")
        made = Victim(canary, listener, stream, datagrams, name)
        for socket_ in (listener, stream):
            socket_.listen()
        for socket_ in (listener, stream, datagrams):
            socket_.setblocking(False)
        before = signal.signal(signal.SIGUSR1, lambda number, _: made.signals.append(number))
        yield made
        signal.signal(signal.SIGUSR1, before)


def processes_of(sandbox: Sandbox) -> list[int]:
    """Every process of a sandbox: forks keep the command line, which holds the sandbox's folder."""
    assert sandbox._folder is not None
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if sandbox._folder.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found
