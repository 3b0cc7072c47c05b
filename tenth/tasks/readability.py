"""Whether a person would want to read an answer: closed tags, no loops, one language, short paragraphs.

Why: R1-Zero's answers are right and hard to read, so the sets that R1 learns from hold readable ones alone
(DeepSeek-R1, arXiv:2501.12948v2, B.3.2: repetition, mixed language; B.3.3: mixed language, long paragraphs,
code blocks). The paper gives no thresholds; ours are the caller's.
In:  what a model wrote, in R1-Zero's shape or in R1's; the question's language; limits.
Out: the names of its faults, in the order of `FAULTS`; none: it reads well.
Not here: whether the answer is right (judge.py), whether the form is exactly a shape's (shape.py).
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tenth.tasks.rewards import LANGUAGES, language_consistency

FAULTS = ("tags", "garbled", "empty_summary", "repetition", "language", "paragraph", "code_block", "length")

_THINK, _END = "<think>", "</think>"
_CODE = "```"
_GARBLED = "\ufffd"  # what decoding leaves of a character whose bytes were not all sampled
_ANSWER_TAG = re.compile(r"</?answer>")
# Answers, programs and LaTeX commands belong to no language.
_NO_WORDS = re.compile(r"<answer>.*?</answer>|```.*?```|\\[A-Za-z]+(?:\{[^{}]*\})?", flags=re.DOTALL)
# Long runs of letters are cut up, so that a loop inside one "word" shows as well.
_UNIT = re.compile(r"[A-Za-z]{1,8}|\S")
_UNITS_PER_GRAM = 12  # longer than a step of working, so that steps alike in form do not count


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadableLimits:
    """From where on something is a fault."""

    min_language: float  # share of the words in the question's language
    max_repetition: float  # share of what stood there before
    max_paragraph_chars: int  # between two line breaks of the thinking
    max_tokens: int | None = None


def faults(text: str, language: str, *, tokens: int, limits: ReadableLimits) -> tuple[str, ...]:
    """Every fault of the answer; without ordered tags there are no parts, so that fault stands alone."""
    parts = _parts(text)
    if parts is None:
        return ("tags",)
    thinking, summary = parts
    found = {
        "garbled": _GARBLED in text,
        "empty_summary": not _ANSWER_TAG.sub("", summary).strip(),
        "repetition": repetition(thinking) > limits.max_repetition,
        "language": _language(thinking, summary, language) < limits.min_language,
        "paragraph": any(len(line) > limits.max_paragraph_chars for line in thinking.split("\n")),
        "code_block": _CODE in thinking,
        "length": limits.max_tokens is not None and tokens > limits.max_tokens,
    }
    return tuple(name for name in FAULTS if found.get(name))


def repetition(text: str) -> float:
    """The share of lines, or of runs of twelve words and signs, that stood there before: whichever is more.

    Runs find the loops that never break a line.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    units = _UNIT.findall(text)
    runs = [tuple(units[i : i + _UNITS_PER_GRAM]) for i in range(len(units) - _UNITS_PER_GRAM + 1)]
    return max(_share_seen(lines), _share_seen(runs))


def _share_seen(items: Sequence[Hashable]) -> float:
    repeats = len(items) - len(set(items))
    return repeats / len(items) if repeats > 1 else 0.0  # said once more is no loop


def _parts(text: str) -> tuple[str, str] | None:
    """(thinking, what follows), None unless both tags stand there once, in order, and nothing before them."""
    if text.count(_THINK) != 1 or text.count(_END) != 1:
        return None
    before, _, rest = text.partition(_THINK)
    thinking, end, summary = rest.partition(_END)
    return (thinking, summary) if end and not before.strip() else None


def _language(thinking: str, summary: str, language: str) -> float:
    """Of the thinking or of the summary, whichever is more mixed; 1.0 where the language has no rule."""
    if language not in LANGUAGES:
        return 1.0
    closed = summary.rfind("</answer>") + 1
    # A tag that nothing closes is text; its end would be searched for again from each of a million.
    said = _NO_WORDS.sub(" ", summary[:closed] + summary[closed:].replace("<answer>", "< answer>"))
    return min(language_consistency(each, language) for each in (thinking, said))
