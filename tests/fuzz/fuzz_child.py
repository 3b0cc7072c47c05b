"""Runs damaged files through readers, in a process with little memory and little time; says what went wrong.

Why a process: a reader that eats memory, hangs inside a library or crashes must not take the tests with it.
In:  python fuzz_child.py FIRST COUNT READER...: cases FIRST to FIRST + COUNT - 1, each known by its number.
Out: a JSON line per fault, and per reader one with what became of its cases. Before each case its number goes
to the standard error, so that a crash names it.
A fault: any exception but a TenthError, a TenthError on more than a line, more memory or time than allowed, a
file that was not there before.
Not here: the readers (fuzz_readers.py), the damage (fuzz_edits.py).
"""

import collections
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch
from fuzz_edits import Swap, edited, exchange, random_edits
from fuzz_readers import READERS as CHECKPOINT_READERS
from fuzz_readers import Reader
from fuzz_results import RESULT_READERS

from tenth.base.errors import TenthError

READERS = CHECKPOINT_READERS | RESULT_READERS
ROOM_BYTES = (
    512 << 20
)  # of address space, beyond what Python and torch have taken; the files are of kilobytes
CASE_SECONDS = 10  # of processor time; a usual case takes hundredths
STUCK_SECONDS = 30  # by the clock: only a case that waits for something gets there
MAX_MESSAGE_CHARS = 2000
SOUND = -1  # the number of the case without damage
SWAPPED = 0.1  # the part of the cases in which a file becomes something else


class TooLongError(BaseException):
    """Nothing that is tested catches it."""


def too_long(signum: int, frame: object) -> None:
    """A signal's handler."""
    raise TooLongError(f"no answer: {signal.Signals(signum).name}")


def say(line: str, *, file: TextIO = sys.stdout) -> None:
    """At once: the next case may be the last."""
    file.write(line + "\n")
    file.flush()


def limit_memory() -> None:
    """From here on, only `ROOM_BYTES` more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def damage(directory: Path, reader: Reader, rng: random.Random) -> str:
    """Damage one of the files; in words, what was done."""
    files = sorted(file for pattern in reader.files for file in directory.glob(pattern))
    file = rng.choice(files)
    if rng.random() < SWAPPED:
        swap = rng.choice(list(Swap))
        exchange(file, swap, other=rng.choice([each for each in files if each != file] or [Path(__file__)]))
        return f"{file.name}: {swap.value}"
    edits = random_edits(rng)
    file.write_bytes(edited(file.read_bytes(), edits))
    return f"{file.name}: {edits}"


def outcome_of(use: Callable[[Path], None], path: Path) -> tuple[str, str]:
    """("read", ""), ("refused", its sentence) or ("fault", what is wrong)."""
    signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
    try:
        use(path)
    except TenthError as error:
        message = str(error)
        if message.strip() and message.isprintable() and len(message) <= MAX_MESSAGE_CHARS:
            return "refused", message
        return "fault", f"{type(error).__name__}, no sentence on one line: {message[:300]!r}"
    except BaseException as error:  # noqa: BLE001  whatever it is, it is a fault
        return "fault", "".join(traceback.format_exception(error))[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read", ""


def names_in(place: Path) -> set[str]:
    """Everything below a directory."""
    return {str(Path(each, name)) for each, *names in os.walk(place) for name in (*names[0], *names[1])}


def run_reader(name: str, numbers: range, place: Path) -> None:
    """All cases of one reader."""
    reader, counts = READERS[name], collections.Counter[str]()
    sound, directory = place / "sound", place / "case"
    shutil.rmtree(sound, ignore_errors=True)
    sound.mkdir()
    path = directory / reader.build(sound).relative_to(sound)
    for number in numbers:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(sound, directory)
        done = "nothing" if number == SOUND else damage(directory, reader, random.Random(f"{name} {number}"))
        before = names_in(place)
        for use in reader.uses:
            say(f"{name} {number} {use.__name__}", file=sys.stderr)
            outcome, words = outcome_of(use, path)
            if outcome == "read" and names_in(place) != before:
                outcome, words = "fault", f"wrote {names_in(place) - before}"
            counts[outcome] += 1
            if outcome == "fault" or (number == SOUND and outcome != "read"):
                case = {"case": number, "use": use.__name__, "done": done, "fault": words}
                say(json.dumps({"reader": name, **case}))
    say(json.dumps({"reader": name, "counts": counts}))


def main(first: int, count: int, names: list[str]) -> None:
    """Run them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, too_long)
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for name in names:
            run_reader(name, range(SOUND, SOUND + 1), Path(place))  # libraries take their memory uncounted
        limit_memory()
        for name in names:
            run_reader(name, range(first, first + count), Path(place))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(READERS))
