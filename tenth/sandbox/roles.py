"""What a contained process does: run a program, lend a candidate's functions, or judge them by tests.

Why two processes for functions: whoever shares an interpreter with a program can be changed by it. Asserts,
`==`, builtins and frames of the judge are out of the candidate's reach only in a process that never runs a
line of the candidate's. The judge calls over a socket and gets plain values back (values.py), so a candidate
that wants to pass has to return what the tests expect.
In:  descriptors 3 (source, or tests as JSON), 4 (the socket between the two), 5 (the judge's verdicts).
Out: for the judge one line of JSON per test on 5. A candidate has nothing but its standard output.
Not here: containment, which is complete when any of this starts (child.py).

Arguments are copied, so a test does not see that a candidate changed a list in place, and a candidate cannot
change what it is compared with.
"""

import ast
import builtins
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from tenth.sandbox.values import decode, encode, exception_named

PAYLOAD, CHANNEL, VERDICTS = 3, 4, 5
MAX_MESSAGE_BYTES = 4 << 20
_MAX_REASON_CHARS = 200


class CandidateGone(BaseException):
    """The candidate ended, or said what is no message. No test can go on, whatever exceptions it expects."""


def run_program() -> None:
    """The candidate as `__main__`; how it ends is how this process ends."""
    _open_standard_files()
    _run(_payload(), _fresh_module("__main__"))


def lend_functions() -> None:
    """Define the candidate's functions and answer calls until the judge hangs up."""
    _open_standard_files()
    module = _fresh_module("solution")  # not __main__: a program's own demonstration is not asked for
    _run(_payload(), module)
    kept: list[Any] = []

    def find(name: str | int) -> Any:
        return kept[name] if isinstance(name, int) else getattr(module, name)

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    with open(CHANNEL, "wb", buffering=0) as socket, open(CHANNEL, "rb", closefd=False) as requests:
        for line in requests:
            reply = _answer(json.loads(line), find, keep)
            _write_all(socket, json.dumps(reply).encode() + b"\n")
    os._exit(0)  # taking an interpreter apart costs more than all the rest


def judge_functions() -> None:
    """Run the tests, each with the candidate's functions in reach under their names."""
    _open_standard_files()
    task = json.loads(_payload())
    with open(VERDICTS, "wb", buffering=0) as verdicts:
        try:
            parts = [compile(part, "tests.py", "exec") for part in (task["setup"], *task["tests"])]
        except (SyntaxError, ValueError) as error:
            verdicts.write(json.dumps({"broken": str(error)}).encode() + b"\n")
            return
        channel = _Channel()
        names = {name: _foreign(name, channel) for name in _names_used(task)}
        setup_reason = _attempt(parts[0], names)
        if task["entry_point"]:  # it is the candidate's, whatever else bears that name
            names[task["entry_point"]] = Remote(channel, task["entry_point"])
        for part in parts[1:]:
            reason = setup_reason or _attempt(part, names)
            verdicts.write(json.dumps({"reason": reason}).encode() + b"\n")
    os._exit(0)


class Remote:
    """Something of the candidate's: callable, with attributes, iterable; compared with anything it fails."""

    __slots__ = ("_address", "_channel")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, channel: "_Channel", address: str | int) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_address", address)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._channel.ask("call", self, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        return self._channel.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._channel.ask("set", self, name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._channel.ask("list", self))

    def _refuse(self, *_: object) -> Any:
        raise TypeError("the candidate's result is no plain value")

    # Python's own answers go by identity: `result != 3` and `assert result` would pass for anything.
    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


class _Channel:
    """The judge's end: one question, one answer."""

    def __init__(self) -> None:
        self._socket = open(CHANNEL, "wb", buffering=0)  # noqa: SIM115  for the process's life
        self._replies = open(CHANNEL, "rb", closefd=False)  # noqa: SIM115

    def ask(self, action: str, *arguments: Any) -> Any:
        """What the candidate answers; its exception, or CandidateGone."""
        request = json.dumps([action, encode(list(arguments), self._address_of)])
        try:
            _write_all(self._socket, request.encode() + b"\n")
            line = self._replies.readline(MAX_MESSAGE_BYTES)
            kind, content = json.loads(line)
            if kind == "value":
                return decode(content, lambda address: Remote(self, int(address)))
            name, message = content
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CandidateGone("the candidate ended or answered with no value") from error
        raise exception_named(name, message)

    def _address_of(self, value: Any) -> str | int:
        if not isinstance(value, Remote):
            raise TypeError(f"a test passes a {type(value).__name__}, which is no plain value")
        return value._address


def _answer(request: list[Any], find: Callable[[Any], Any], keep: Callable[[Any], int]) -> list[Any]:
    action, arguments = request
    try:
        target, *rest = decode(arguments, find)
        if action == "call":
            value = target(*rest[0], **rest[1])
        elif action == "list":
            value = list(target)
        else:
            value = (getattr if action == "get" else setattr)(target, *rest)
        return ["value", encode(value, keep)]
    except Exception as error:  # noqa: BLE001  whatever the candidate raises is the test's to see
        return ["error", [type(error).__name__, str(error)[:500]]]


def _attempt(part: types.CodeType, names: dict[str, Any]) -> str:
    """Why the statements did not go through; empty when they did."""
    try:
        exec(part, names)
    except BaseException as error:  # noqa: BLE001  also SystemExit: a test that did not finish has not passed
        return f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARS].rstrip(": ")
    return ""


def _names_used(task: dict[str, Any]) -> set[str]:
    """Names that setup and tests read and Python does not have; those they define take their places."""
    trees = [ast.parse(part) for part in (task["setup"], *task["tests"])]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)} - set(dir(builtins))


def _foreign(name: str, channel: _Channel) -> Any:
    """A module of the standard library is the judge's own: its answers are what tests compare with."""
    return importlib.import_module(name) if name in sys.stdlib_module_names else Remote(channel, name)


def _payload() -> str:
    with open(PAYLOAD, "rb") as file:
        return file.read().decode("utf-8", errors="replace")


def _fresh_module(name: str) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    return module


def _run(source: str, module: types.ModuleType) -> None:
    exec(compile(source, "solution.py", "exec"), module.__dict__)


def _open_standard_files() -> None:
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _write_all(file: BinaryIO | Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
