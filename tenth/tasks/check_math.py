"""Judge mathematical answers with math-verify, behind a deadline and without its known false positives.

Why: "1/2", "0.5" and "\\frac{1}{2}" are one answer, and deciding that is a library's work. But the library
searches free text for anything that fits, and may hang (9^{9^9}). So we hand it exactly one expression,
marked as such, in a process of its own.
In:  the right answer, and what a model wrote. Out: a Verdict; `error` when nobody knows.
Not here: where an answer stands in a text (answer_text.py), the process (base/deadline.py), our own families'
checkers (generated/).

Measured with math-verify 0.9.0, each guarded here and listed in tests/tasks/check_math_cases.jsonl:
"41 or 42" passed for 42; 1728 for "1331 and 1728"; 1+1/\\mathrm e for 1-1/\\mathrm e; 10^{2} for 10;
"41=42" for 42; an answer inside <think> hid the one in <answer>.
"""

import functools
import logging
import re
from fractions import Fraction
from typing import Any

from tenth.base.deadline import Worker
from tenth.base.errors import VerifierError
from tenth.base.records import Problem, Verdict
from tenth.tasks.answer_text import final_answer

MAX_EXPRESSION_CHARS = 400
DEADLINE_SECONDS = 5.0

_PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|[+-]?\.[0-9]+")
_FRACTION = re.compile(r"([+-]?[0-9]+) */ *([0-9]+)|([+-]?)\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_LITERAL = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?: */ *\d+)?")
_WORD = re.compile(r"(?<![\\a-zA-Z])(?!sqrt|frac|pi|sin|cos|tan|log|ln|exp)[a-zA-Z]{2,}|[\u4e00-\u9fff]+")


def tidy_expression(text: str) -> str:
    """Without dollar signs, math delimiters, a trailing full stop; \\mathrm e is plain e."""
    text = re.sub(
        r"\\[()\[\]]|\\[,;! ]|\\left|\\right", lambda found: _DELIMITERS.get(found[0], ""), text.strip()
    )
    text = text.replace("\\$", "").replace("$", "").replace("−", "-")
    text = re.sub(r"\\(?:mathrm|text|rm)\s*(?:\{\s*([a-zA-Z])\s*\}|([a-zA-Z])\b)", r"\1\2", text)
    return text.strip().removesuffix(".").removesuffix("。").strip()


_DELIMITERS = {"\\,": "", "\\;": " ", "\\ ": " "}


def plain_number(text: str) -> Fraction | None:
    """The value of a number written plainly: 1,234 or -0.5 or 3/4 or \\frac{3}{4}; None for all else."""
    if _PLAIN_NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    found = _FRACTION.fullmatch(text)
    if not found:
        return None
    above, below = (found[1], found[2]) if found[1] else (found[3] + found[4], found[5])
    return Fraction(int(above), int(below)) if int(below) else None


def decide_simply(gold: str, answer: str) -> bool | None:
    """What can be said without the library; None: ask it. Both texts are tidy."""
    if gold == answer:
        return True
    if len(answer) > MAX_EXPRESSION_CHARS:
        return False
    gold_value, answer_value = plain_number(gold), plain_number(answer)
    if gold_value is None:
        return None
    if answer_value is not None:
        is_same = gold_value == answer_value
        # A decimal may stand for a fraction that it cannot write out: 0.333333 for 1/3.
        is_rounded = "." in answer and ("/" in gold or "frac" in gold)
        return None if is_rounded and not is_same else is_same
    left, equals, _ = answer.partition("=")
    if equals and plain_number(left.strip()) not in (None, gold_value):
        return False  # "41=42" claims more than one thing
    without_text = re.sub(r"\\(?:text|mathrm)\{[^{}]*\}", " ", answer)
    if _WORD.search(without_text):  # prose or units: it has to hold exactly one number
        literals = _LITERAL.findall(without_text)
        return len(literals) == 1 and plain_number(literals[0].replace(" ", "")) == gold_value
    return None


def judge(gold: str, answer: str) -> bool:
    """Runs in the worker: do two tidy expressions mean the same?"""
    verify, parsed = _library()
    return bool(verify(parsed(gold), parsed(answer), timeout_seconds=None))


@functools.cache
def _library() -> tuple[Any, Any]:
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def parsed(expression: str) -> Any:
        # In dollars, and no fallback: the whole expression or nothing, never "some number in it".
        return parse(
            f"${expression}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )

    return verify, parsed


def warm_up() -> None:
    """Runs in the worker before its first call: the import takes a second, the first parse a tenth."""
    judge(r"\frac{1}{2}", "0.5")


class MathChecker:
    """Judges answers; owns one worker process, started when first needed."""

    def __init__(self, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._worker = Worker(
            "tenth.tasks.check_math:judge",
            prepare="tenth.tasks.check_math:warm_up",
            deadline_seconds=deadline_seconds,
        )

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """Compare with the problem's answer; either may be a whole solution with a marked answer."""
        answer = final_answer(answer_text)
        if answer is None:
            return Verdict(is_correct=False)
        gold = tidy_expression(final_answer(problem.answer) or problem.answer)
        answer = tidy_expression(answer)
        simple = decide_simply(gold, answer)
        if simple is not None:
            return Verdict(is_correct=simple, extracted=answer[:MAX_EXPRESSION_CHARS])
        try:
            return Verdict(is_correct=bool(self._worker.call(gold, answer)), extracted=answer)
        except VerifierError as error:
            return Verdict(is_correct=False, extracted=answer, error=str(error))

    def close(self) -> None:
        """End the worker."""
        self._worker.close()
