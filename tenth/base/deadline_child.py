"""The child's side of deadline.py: read arguments, call the function, write the result, one line each.

Why a file of its own: it is run with `python -m`, and should import nothing that the function does not need.
In:  argv: function, prepare, deadline in seconds, bytes of memory|unlimited; lines of JSON on stdin.
Out: lines {"value": ...} or {"error": "Kind: message"} on what was stdout; prints of the function go nowhere.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

ORPHAN_FACTOR = 2.0  # times the deadline, then a child whose parent is gone ends itself


def main() -> None:
    """Serve calls until the parent closes the pipe."""
    function_name, prepare_name, deadline_seconds, memory_bytes = sys.argv[1:]
    is_trusted = memory_bytes == "unlimited"
    replies = _private_stdout()
    if not is_trusted:
        _limit_memory(int(memory_bytes))
    try:
        if prepare_name:
            _find(prepare_name)()
        function = _find(function_name)
    except BaseException as error:  # noqa: BLE001  the parent turns it into a sentence
        _reply(replies, {"error": _describe(error)})
        return
    _reply(replies, {"value": "ready"})
    for line in sys.stdin.buffer:
        if not is_trusted:
            _end_ourselves_after(ORPHAN_FACTOR * float(deadline_seconds) + 1.0)
        _reply(replies, _outcome(function, json.loads(line)))


def _end_ourselves_after(cpu_seconds: float) -> None:
    """A parent that was killed cannot kill us. Its default handler ends even a loop inside C code.

    Processor time, not the clock: a machine that is slow or paused must not cost a verdict.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def _outcome(function: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        value = function(*arguments)
        json.dumps(value)
    except BaseException as error:  # noqa: BLE001  also SystemExit and MemoryError: all are the verifier's fault
        return {"error": _describe(error)}
    return {"value": value}


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return f"{type(error).__name__}: {error}"[:500] + place


def _reply(replies: BinaryIO, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value).encode() + b"\n")
    replies.flush()


def _private_stdout() -> BinaryIO:
    """Keep the reply pipe for ourselves; descriptor 1 leads nowhere, so that prints cannot forge replies."""
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    return replies


def _limit_memory(num_bytes: int) -> None:
    import resource  # absent on Windows, where nothing here runs

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _find(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


if __name__ == "__main__":
    main()
