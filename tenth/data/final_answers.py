"""The short answer at the end of a solution, to see whether two rows answer one question differently.

In:  an item. Out: a canonical text, or None where the answer is prose, of which two may both be right.
Not here: deciding equivalence of mathematics (tasks/check_math.py): 1/2 equals 0.5 here, \\sqrt{4} does not
equal 2.
"""

import re
from fractions import Fraction

from tenth.data.user_rows import Item, Kind

_SHORT_COLUMNS = ("answer", "ground_truth", "label", "target", "reward_model")
_SHORT_CHARACTERS = 40
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")


def final_answer(item: Item) -> str | None:
    """What follows `####`, stands in the last box or the last <answer>, or is a short answer column."""
    if item.kind is not Kind.ANSWERED:
        return None
    text = item.answer
    if "####" in text:
        found: str | None = text.rpartition("####")[2]
    else:
        found = _last_boxed(text)
        if found is None and (tagged := _TAGGED.findall(text)):
            found = tagged[-1]
        elif found is None and _is_short_column(item):
            found = text
    return _canonical(found) if found is not None and found.strip() else None


def _is_short_column(item: Item) -> bool:
    text = item.answer.strip()
    if len(text) > _SHORT_CHARACTERS or "\n" in text:
        return False
    return any(name in item.values for name in _SHORT_COLUMNS) and "messages" not in item.values


def _canonical(text: str) -> str:
    """Numbers as fractions; else without white space, dollar signs and a full stop."""
    text = _FRACTION.sub(r"\1/\2", text.strip().strip("$").rstrip(".").strip())
    text = "".join(text.split())
    number = text.replace(",", "")
    try:
        return (
            str(Fraction(number)) if len(number) <= _SHORT_CHARACTERS and "e" not in number.lower() else text
        )
    except (ValueError, ZeroDivisionError):
        return text.lower()


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : place]
    return None
