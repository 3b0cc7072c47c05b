"""The one thread that an engine runs in, and how others talk to it: commands in, pieces out.

Why: an engine belongs to one thread and a step takes long, while an event loop must never wait. So whoever
wants something leaves a command, which is obeyed between two steps, and finds the answer in a mailbox.
In:  prepared requests, aborts, calls.
Out: pieces in `Mailbox`es. Each has at most one wake-up under way and gathers what is not read yet, so a slow
reader costs the length of the answer and nothing more.
When a step raises: every request that waits gets the error and is taken back; the engine starts over by
itself, so the thread goes on with requests that come later.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import torch

from tenth.llm.outputs import Gathered, Piece
from tenth.llm.text_requests import TextRequest, TextRequests

T = TypeVar("T")


class EngineFaultError(Exception):
    """A step of the engine raised; `__cause__` is what."""


class EngineStoppedError(Exception):
    """The engine takes no more requests: it was closed, or it is past mending; then `__cause__` says why."""


class Mailbox:
    """Pieces of one request on their way from the engine's thread to an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, num_samples: int) -> None:
        self._loop = loop
        self._ready = asyncio.Event()  # touched by the loop only
        self._lock = threading.Lock()  # guards the rest
        self._gathered = Gathered(num_samples)
        self._error: Exception | None = None
        self._is_waking = False

    def put(self, piece: Piece) -> bool:
        """From the engine's thread. False: the loop is gone, nobody will ever read this."""
        with self._lock:
            self._gathered.add(piece)
        return self._wake()

    def fail(self, error: Exception) -> None:
        """From any thread: the reader gets this error instead of more pieces."""
        with self._lock:
            self._error = error
        self._wake()

    @property
    def is_finished(self) -> bool:
        """Whether the last piece of every sample was put."""
        return self._gathered.is_finished

    async def take(self) -> list[Piece]:
        """Wait for pieces; everything since the last time, one per sample."""
        await self._ready.wait()
        self._ready.clear()
        with self._lock:
            self._is_waking = False
            if self._error is not None:
                raise self._error
            return self._gathered.take()

    def _wake(self) -> bool:
        with self._lock:
            if self._is_waking:
                return True
            self._is_waking = True
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop is closed
            return False
        return True


class EngineThread:
    """Steps the engine while there is work. Starts with the first command."""

    def __init__(self, requests: TextRequests) -> None:
        self._requests = requests
        self._thread: threading.Thread | None = None
        self._mailboxes: dict[str, Mailbox] = {}  # touched by the thread only
        self._changed = threading.Condition()  # guards the rest
        self._commands: deque[tuple[Callable[[], None], Callable[[Exception], None]]] = deque()
        self._is_draining = self._is_closing = self._has_ended = False
        self._failure: BaseException | None = None

    # from any thread

    def add(self, asked: TextRequest, mailbox: Mailbox) -> None:
        """Start a request; if the engine refuses it, the mailbox gets the reason."""
        self._post(lambda: self._add(asked, mailbox), mailbox.fail)

    def abort(self, key: str) -> None:
        """End a request; its mailbox gets the last pieces. One that has ended is left alone."""
        self._post(lambda: self._abort(key), lambda _: None)

    def call(self, action: Callable[[], T]) -> "Future[T]":
        """Run something between two steps; its exception is the caller's."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(action())
            except Exception as error:  # noqa: BLE001  the caller's, whatever it is
                future.set_exception(error)

        self._post(run, future.set_exception)
        return future

    def drain(self) -> None:
        """Refuse new requests; end when those under way have ended."""
        with self._changed:
            self._is_draining = True
            self._changed.notify()

    def close(self) -> None:
        """Refuse new requests and abort those under way."""
        with self._changed:
            self._is_draining = self._is_closing = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end that `drain` or `close` asked for."""
        with self._changed:
            self._start()  # one that never began ends in the same way
        assert self._thread is not None
        self._thread.join()

    def check(self) -> None:
        """Raise if no request can be taken any more."""
        with self._changed:
            if self._is_draining or self._has_ended:
                raise self._stopped()

    def _post(self, action: Callable[[], None], refuse: Callable[[Exception], None]) -> None:
        with self._changed:
            if not self._has_ended:
                self._commands.append((action, refuse))
                self._start()
                self._changed.notify()
                return
        refuse(self._stopped())

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: a program that forgot to close it ends all the same.
            self._thread = threading.Thread(target=self._run, name="tenth-engine", daemon=True)
            self._thread.start()

    def _stopped(self) -> EngineStoppedError:
        if self._failure is None:
            return EngineStoppedError("the engine was closed; build a new one.")
        error = EngineStoppedError(f"the engine is past mending ({self._failure!r}); build a new one.")
        error.__cause__ = self._failure
        return error

    # in the thread

    def _run(self) -> None:
        # OpenMP counts per thread and forgets what the process was told; kernels of ours ask OpenMP alone.
        torch.set_num_threads(torch.get_num_threads())
        try:
            while self._obey():
                self._step()
            for key in list(self._mailboxes):
                self._abort(key)
            self._requests.engine.close()
        except BaseException as failure:  # noqa: BLE001  whatever it is, nobody may wait for ever
            self._failure = failure
        with self._changed:
            self._has_ended = True
            commands, self._commands = self._commands, deque()
        for mailbox in self._mailboxes.values():
            mailbox.fail(self._stopped())
        for _, refuse in commands:
            refuse(self._stopped())

    def _step(self) -> None:
        try:
            pieces = self._requests.step() if self._requests.has_work else []
        except Exception as cause:  # noqa: BLE001  whatever it is, nobody may wait for ever
            for key, mailbox in self._mailboxes.items():
                self._requests.abort(key)
                error = EngineFaultError(f"the engine failed ({cause!r}), this request is lost; ask again.")
                error.__cause__ = cause
                mailbox.fail(error)
            self._mailboxes = {}
        else:
            for key, piece in pieces:
                self._deliver(key, piece)

    def _obey(self) -> bool:
        """Wait for something to do, do what was asked. False: the end."""
        with self._changed:
            while not (self._commands or self._requests.has_work or self._is_draining):
                self._changed.wait()
            if self._is_closing or not (self._commands or self._requests.has_work):
                return False
            commands, self._commands = self._commands, deque()
        for action, _ in commands:
            action()
        return True

    def _add(self, asked: TextRequest, mailbox: Mailbox) -> None:
        try:
            self._requests.add(asked)
        except Exception as error:  # noqa: BLE001  a full queue, say: this request's trouble, not the engine's
            mailbox.fail(error)
        else:
            self._mailboxes[asked.key] = mailbox

    def _abort(self, key: str) -> None:
        for piece in self._requests.abort(key):
            self._deliver(key, piece)

    def _deliver(self, key: str, piece: Piece) -> None:
        mailbox = self._mailboxes.get(key)
        if mailbox is None:
            return
        is_read = mailbox.put(piece)
        if mailbox.is_finished or not is_read:
            del self._mailboxes[key]
        if not is_read:
            self._requests.abort(key)
