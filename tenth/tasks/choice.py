"""Multiple choice: which of the options a text puts forward, as a letter; None where it is none or several.

Why: "(B)", "B.", "**B**", "答案：B" and the option's own words are one answer, and "A or B" is none: hedging
must not pay (R1's rule rewards match the option, arXiv:2501.12948v2, section 2.2).
In:  the options in order, and what a model wrote, its thinking left out.
Out: "A", "B", ...; or a Verdict for a problem whose metadata has `choices`.
Not here: where a text says its answer (answer_text.py).
"""

import re
from collections.abc import Sequence

from tenth.base.records import Problem, Verdict
from tenth.tasks.answer_text import marked_answer, stated_answers

CHOICES = "choices"
LETTERS = "ABCDEFGHIJ"
MAX_OPTION_CHARS = 2000

_OPEN, _CLOSE = r"[\s(\[{（【*_`\"'“$]*", r"[\s)\]}）】*_`\"'”$]*"
_NAMED = r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\s*(?:is)?|选项|选择|选|答案)?\s*:?：?"
# A letter alone, or in front of its option: "B", "(B)", "**B**", "B. text", "B) text", "option B: text".
_LETTER = re.compile(
    rf"{_OPEN}{_NAMED}{_OPEN}([A-Ja-j])(?![A-Za-z0-9'’]){_CLOSE}(?P<rest>.*)", flags=re.DOTALL | re.IGNORECASE
)
_SEPARATED = re.compile(r"[.:,;、，。：；)）\]-]|$|\n|\s*(?:because|since)\b|因为")
_CALLED_RIGHT = re.compile(
    r"(?:option|choice|选项)\s*[(*\"]*([A-J])[)*\"]*\s*(?:is|为|是)\s*(?:the\s+)?(?:correct|right|best|正确)",
    re.IGNORECASE,
)
_AND_ANOTHER = re.compile(
    rf"\s*(?:or|and|and/or|/|&|\||,|，|、|或者?|和|与|及)\s*{_OPEN}(?:option\s+)?([A-Ja-j])(?![A-Za-z0-9'’])",
    flags=re.IGNORECASE,
)
_MATHS_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")


def read_choice(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that a text puts forward.

    A marked answer (in its tag or box) counts alone; else the last sentence that says what the answer is;
    else the whole text, or its last line, if it is nothing but an option.
    """
    marked = marked_answer(text)
    if marked is not None:
        return _read(marked, options)
    for stated in reversed(stated_answers(text)):
        letter = _read(stated, options, has_more=True)
        if letter is not None or _is_hedged(stated):
            return letter
    called_right = {found.upper() for found in _CALLED_RIGHT.findall(text)}
    if len(called_right) == 1:
        return _in_range(called_right.pop(), options)
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    return _read(text, options) or _read(lines[-1], options)


def check_choice(problem: Problem, text: str) -> Verdict:
    """Compare with the problem's letter."""
    letter = read_choice(text, problem.metadata[CHOICES])
    return Verdict(is_correct=letter == problem.answer, extracted=letter)


def is_choice(problem: Problem) -> bool:
    """Whether a problem's metadata make it multiple choice: texts to choose from, a letter as the answer."""
    options = problem.metadata.get(CHOICES)
    return (
        isinstance(options, list)
        and 2 <= len(options) <= len(LETTERS)
        and all(isinstance(option, str) for option in options)
        and problem.answer in LETTERS[: len(options)]
        and len(problem.answer) == 1
    )


def show_options(options: Sequence[str]) -> str:
    """The options as a question shows them, one per line."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def _read(text: str, options: Sequence[str], *, has_more: bool = False) -> str | None:
    """`has_more`: other words may follow the letter, as in "B because ..."."""
    text = _MATHS_TEXT.sub(r"\1", text.strip())[: 2 * MAX_OPTION_CHARS]
    by_words = _by_words(text, options)
    if by_words is not None:
        return by_words
    found = _LETTER.match(text)
    if found is None or _is_hedged(text):
        return None
    rest = text[found.end(1) :]
    letter = _in_range(found[1].upper(), options)
    if letter is None:
        return None
    is_lone_small = found[1].islower() and not re.match(r"\s*[)\]）.*]|\s*$", rest)
    if is_lone_small:  # "a dog": an article, no letter
        return None
    is_separated = _SEPARATED.match(found["rest"]) or re.match(r"\s*[)\]}）】*.:：]", rest)
    if is_separated:
        return letter
    return letter if has_more and letter not in "AI" else None


def _in_range(letter: str, options: Sequence[str]) -> str | None:
    return letter if letter in LETTERS[: len(options)] else None


def _is_hedged(text: str) -> bool:
    """Whether another letter is offered beside the first one: "A or B", "A/B", "A和B"."""
    found = _LETTER.match(text)
    if found is None:
        return False
    another = _AND_ANOTHER.match(found["rest"])
    return another is not None and another[1].upper() != found[1].upper()


def _by_words(text: str, options: Sequence[str]) -> str | None:
    """The option that is written out, if exactly one is."""
    said = _plain(text)
    same = [letter for letter, option in zip(LETTERS, options, strict=False) if _plain(option) == said]
    return same[0] if len(same) == 1 and said else None


def _plain(text: str) -> str:
    """Without case, marks around it and a full stop behind."""
    return re.sub(r"\s+", " ", text).strip(" \t*_`$\"'“”.。").casefold()
