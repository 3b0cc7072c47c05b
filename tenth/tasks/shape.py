"""The shapes of an answer: R1-Zero's tags, R1's thinking followed by a summary, and anybody's.

Why: what counts as the answer and what counts as well-formed belong together, and reinforcement, measuring
and the filters of the training sets must agree on both.
In:  what a model wrote.  Out: the text of its one answer; 1.0 or 0.0 for the form.
Not here: whether the answer is right (judge.py), whether it reads well (readability.py).

R1-Zero and R1 give exactly one answer behind the thinking: a text with two hedges, and hedging must not
pay. A thought that never ends has no answer, even when it mentions one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tenth.tasks.answer_text import final_answer, last_boxed

_ZERO = re.compile(r"<think>.*</think>\s*<answer>.*</answer>\s*", flags=re.DOTALL)
_R1 = re.compile(r"<think>\n.*</think>\n.*\S.*", flags=re.DOTALL)
_THINK_TAGS = ("<think>", "</think>")
_ANSWER_TAGS = ("<answer>", "</answer>")
_BOX = "\\boxed{"
# The sentence that holds the answer, by language.
_SUMMARY = {"en": "The answer is \\boxed{{{answer}}}.", "zh": "答案是\\boxed{{{answer}}}。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerShape:
    """How answers are written, found and checked for their form."""

    name: str
    extract: Callable[[str], str | None]  # the one answer; None when there is none or more than one
    format_score: Callable[[str], float]


def extract_answer(text: str) -> str | None:
    """What stands between <answer> and </answer>, None when there is no such pair or more than one."""
    if text.count("<think>") > text.count("</think>"):
        return None
    behind = text.rpartition("</think>")[2]
    if behind.count("<answer>") != 1 or behind.count("</answer>") != 1:
        return None
    before, _, rest = behind.partition("<answer>")
    answer, closed, _ = rest.partition("</answer>")
    return answer.strip() if closed and "</answer>" not in before else None


def format_score(text: str) -> float:
    """1.0 for `<think>...</think> <answer>...</answer>`: each tag once, in order, nothing before or after."""
    is_once = all(text.count(tag) == 1 for tag in (*_THINK_TAGS, *_ANSWER_TAGS))
    return 1.0 if is_once and _ZERO.fullmatch(text.lstrip()) else 0.0


def extract_boxed(text: str) -> str | None:
    """What stands in the one \\boxed{} of the summary, None when there is none or more than one."""
    if text.count("<think>") != text.count("</think>"):
        return None
    summary = text.rpartition("</think>")[2]
    boxed = last_boxed(summary) if summary.count(_BOX) == 1 else None
    return None if boxed is None else boxed.strip()


def r1_format_score(text: str) -> float:
    """1.0 for `<think>`, a line break, reasoning, `</think>`, a line break, a summary that is not empty.

    R1 (arXiv:2501.12948v1) section 2.3.1. No tag stands twice, and R1-Zero's answer tags not at all.
    """
    is_once = all(text.count(tag) == 1 for tag in _THINK_TAGS)
    has_other = any(tag in text for tag in _ANSWER_TAGS)
    return 1.0 if is_once and not has_other and _R1.fullmatch(text) else 0.0


def write_r1(thinking: str, summary: str) -> str:
    """R1's shape; an empty `thinking` still has its tags, so that they are always closed."""
    return f"<think>\n{thinking}\n</think>\n{summary}" if thinking else f"<think>\n</think>\n{summary}"


def write_summary(answer: str, *, language: str) -> str:
    """The shortest summary: one sentence in the question's language with the answer in its box."""
    return _SUMMARY[language].format(answer=answer)


ZERO_SHAPE = AnswerShape(name="zero", extract=extract_answer, format_score=format_score)
R1_SHAPE = AnswerShape(name="r1", extract=extract_boxed, format_score=r1_format_score)
# However somebody's model writes its answer.
ANY_SHAPE = AnswerShape(name="any", extract=final_answer, format_score=format_score)
