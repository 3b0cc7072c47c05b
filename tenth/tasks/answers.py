"""Read an answer's text into a canonical form, or refuse it. Parsing only: nothing is ever evaluated.

Why: every checker should forgive the same small things (spaces around, one full stop behind) and no others.
In:  what stands in the answer tag. Out: canonical text, or None when it is not an answer of that kind.
"""

import re

MAX_ANSWER_CHARS = 200  # no right answer of ours is half as long; bounds every parser below

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_ITEMS = re.compile(r"[a-z0-9]+(?:(?: *, *| +)[a-z0-9]+)*")


def tidy(text: str) -> str | None:
    """Without surrounding space and one trailing full stop; None when it is too long to be an answer."""
    if len(text) > MAX_ANSWER_CHARS:
        return None
    text = text.strip()
    return text[:-1].rstrip() if text.endswith((".", "。")) else text


def read_integer(text: str, *, prefix: str = "", suffixes: tuple[str, ...] = ()) -> str | None:
    """A whole number, e.g. `7`, ` +7. `, with prefix 'x' also `x = 7`; with suffix 个 also `7个`."""
    tidied = tidy(text)
    if tidied is None:
        return None
    if prefix:
        tidied = re.sub(rf"^{re.escape(prefix)} *= *", "", tidied)
    for suffix in suffixes:
        tidied = tidied.removesuffix(suffix).rstrip()
    return str(int(tidied)) if _INTEGER.fullmatch(tidied) else None


def read_items(text: str) -> str | None:
    """A row of letters or numbers, separated by spaces or commas, as single-spaced text."""
    tidied = tidy(text)
    if tidied is None or not _ITEMS.fullmatch(tidied):
        return None
    return " ".join(re.findall(r"[a-z0-9]+", tidied))


def read_choice(text: str, *, choices: tuple[str, ...]) -> str | None:
    """One of the allowed words, exactly."""
    tidied = tidy(text)
    return tidied if tidied in choices else None
