"""Where a text says its answer: behind the thinking, in a tag, a box, behind ####, or in a sentence.

Why: every model closes differently. A reader of answers that misses "答案是 7" measures obedience,
not ability; one that takes any number in sight pays for guessing.
In:  what a model wrote.
Out: the text of its answer, or None.  All patterns are read in time linear in the text.
Not here: whether it is right (check_math.py, choice.py), R1's own strict shapes (shape.py).
"""

import re

MAX_CHARS = 100_000  # of an answer without its thinking; what is longer is read from its end
MAX_STATED_CHARS = 400

_TAG, _END_TAG = "<answer>", "</answer>"
_STATED = re.compile(
    r"(?:\banswer(?:\s+to\s+[^\n.:]{1,80})?\s*(?:\*\*)?\s*(?:is|are|would\s+be|will\s+be|should\s+be|=|:|：)"
    r"|(?:故|应|所以|因此)\s*选择?|(?:答案|结果|选项|选择?)\s*(?:\*\*)?\s*(?:应该|应)?\s*(?:是|为|等于|：|:))\s*(?:\*\*)?\s*[:：]?",
    flags=re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|[。！？\n]")
_NUMBER = re.compile(
    r"(?<![\w.])[-−+]?\$?\d{1,3}(?:,\d{3})++(?:\.\d+)?(?!,*\d)|(?<![\d.])[-−+]?\d+(?:\.\d+)?(?:\s*/\s*\d+)?"
)


def behind_thinking(text: str) -> str | None:
    """What follows the thought; None where a thought never ends."""
    if "</think>" in text:
        return text.rpartition("</think>")[2]
    return None if "<think>" in text else text


def final_answer(text: str) -> str | None:
    """The one expression that a text puts forward: after the thinking, in the answer tag, box or behind ####.

    A thought that never ends has no answer. Text without any mark counts as a whole, if it is one line.
    """
    behind = behind_thinking(text)
    if behind is None:
        return None
    tagged = [part.partition(_TAG)[2] for part in behind.split(_END_TAG)[:-1] if _TAG in part]
    text = tagged[-1] if tagged else behind
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    if "####" in text:
        text = text.rpartition("####")[2].strip().split("\n")[0]
    text = text.strip()
    return text if text and "\n" not in text else None


def last_boxed(text: str) -> str | None:
    """What the last \\boxed{...} holds, braces balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for index in range(begin, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            if depth == 0:
                return text[begin:index]
            depth -= 1
    return None


def marked_answer(text: str) -> str | None:
    """What stands in the last answer tag, or else in the last box, or else behind the last ####.

    Inside the tag, a box counts. None where nothing is marked.
    """
    text = text[-MAX_CHARS:]
    end = text.rfind(_END_TAG)
    start = text.rfind(_TAG, 0, end) if end >= 0 else -1
    if start >= 0:
        inside = text[start + len(_TAG) : end]
        boxed = last_boxed(inside)
        return (inside if boxed is None else boxed).strip()
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    if "####" in text:
        behind = text.rpartition("####")[2].strip()
        return behind.splitlines()[0] if behind else None
    return None


def stated_answers(text: str) -> list[str]:
    """What follows each "the answer is", "Answer:", "答案是", up to the end of its sentence, in order."""
    text = text[-MAX_CHARS:]
    stated = []
    for found in _STATED.finditer(text):
        rest = text[found.end() : found.end() + MAX_STATED_CHARS].lstrip(" \t\n")
        end = _SENTENCE_END.search(rest)
        stated.append((rest[: end.start()] if end else rest).strip().strip("*").strip())
    return [each for each in stated if each]


def last_number(text: str) -> str | None:
    """The last number that is written in digits."""
    found = None
    for found in _NUMBER.finditer(text[-MAX_CHARS:]):  # noqa: B007  only the last is wanted
        pass
    return found[0].replace("$", "").replace("−", "-").replace(" ", "") if found else None


def mathematical_answer(text: str) -> str | None:
    """The expression that a text puts forward: marked, stated, or else the last number in it."""
    marked = marked_answer(text)
    if marked is not None:
        return _one_line(marked)
    stated = stated_answers(text)
    if stated and any(char.isdigit() or char in "\\$" for char in stated[-1]):
        return _stated_value(stated[-1])
    return last_number(text)


def word_answer(text: str, words: tuple[str, ...]) -> str | None:
    """The one of a few words (Yes, No; True, False) that a text puts forward: marked, stated, or the only one
    of them in its last line."""
    marked = marked_answer(text)
    if marked is not None:
        return _only(marked, words)
    stated = [_only(each, words) for each in stated_answers(text)]
    if stated:
        return stated[-1]
    lines = text.strip().splitlines()
    return _only(lines[-1], words) if lines else None


def _only(text: str, words: tuple[str, ...]) -> str | None:
    said = {found.casefold() for found in re.findall(r"[A-Za-z]+", text[:MAX_STATED_CHARS])}
    present = [word for word in words if word.casefold() in said]
    return present[0] if len(present) == 1 and "not" not in said else None


def _stated_value(stated: str) -> str:
    """Of "3 + 4 = 7 apples" what is behind the last "=", and of prose around one number the number."""
    value = stated.rpartition("=")[2].strip() if "\\" not in stated else stated
    inline = re.search(r"\$([^$\n]{1,200})\$", value)
    if inline:
        return inline[1].strip()
    numbers = _NUMBER.findall(value)
    has_words = re.search(r"[A-Za-z\u4e00-\u9fff]", value) is not None
    if "\\" not in value and has_words and len(numbers) == 1:
        return last_number(value) or value
    return value


def _one_line(text: str) -> str | None:
    text = " ".join(text.split())
    return text or None
