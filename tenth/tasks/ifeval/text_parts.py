"""Words, sentences, paragraphs: how IFEval's instructions count the parts of an English text.

Why: the official checker counts with NLTK's tokenizers, whose data has to be downloaded; what they do for
English fits on a page. Every function is linear in the text's length.
In:  a text.  Out: its parts, or how many there are.

Where this differs from NLTK: punkt learned its abbreviations from newspapers, here they are a list; a
contraction in capitals (DON'T) is one word here and two there.
"""

import re

_WORD = re.compile(r"\w+")
_CAPITAL_TOKEN = re.compile(r"\w+(?:['’.&-]\w+)*")
# From the beginning of a run of marks only, or a long run would be read once from each of them.
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’)\]*_]*+(?=\s|$)|[。！？।]++[”’」』]*")
_NEVER_LAST = frozenset(
    re.findall(r"\S+", "capt col dr e.g fig gen gov hon i.e lt mr mrs ms mt no prof rev sgt st vs")
)
_MAYBE_LAST = frozenset(
    re.findall(
        r"\S+",
        "a.m approx apr aug ave blvd co corp dec dept est etc feb inc jan jr ltd mar nov oct p.m ph.d sep sr "
        "u.k u.n u.s",
    )
)


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores; "don't" counts two, as in the official checker."""
    return len(_WORD.findall(text))


def count_capital_words(text: str) -> int:
    """Words without a small letter and with at least one capital: "NASA", "I", "3D", "WELL-KNOWN"."""
    return sum(token.isupper() for token in _CAPITAL_TOKEN.findall(text))


def count_sentences(text: str) -> int:
    """Stretches of text that end with . ! ? or with the text itself; a line break alone ends none."""
    count, start = 0, 0
    for end in _SENTENCE_END.finditer(text):
        if not _ends_here(text, start, end):
            continue
        count += bool(_WORD.search(text, start, end.end()))
        start = end.end()
    return count + bool(_WORD.search(text, start))


def _ends_here(text: str, start: int, end: "re.Match[str]") -> bool:
    """Whether a mark ends a sentence: not behind an abbreviation, an initial, a list's number, nor before a
    small letter."""
    if not end[0].startswith(".") or "!" in end[0] or "?" in end[0]:
        return True
    following = text[end.end() : end.end() + 3].lstrip()[:1]
    if following.islower():
        return False
    before = text[max(start, end.start() - 20) : end.start()].split()
    word = before[-1].lstrip("(\"'“*_").lower() if before else ""
    if word in _NEVER_LAST or (word in _MAYBE_LAST and following.isdigit()):
        return False
    if word in _MAYBE_LAST:
        return True  # a capital follows
    is_initial = len(word) == 1 and word.isalpha() and word != "i"
    is_list_number = word.isdigit() and not text[start : end.start()].strip().removesuffix(word).strip()
    return not (is_initial or is_list_number)


def delimited_parts(text: str, mark: str) -> list[str] | None:
    """The parts between `mark`s. Nothing before the first or behind the last mark is no part; None where a
    part between two marks is empty."""
    parts = text.split(mark)
    if not all(part.strip() for part in parts[1:-1]):
        return None
    return [part for part in parts if part.strip()]


def has_pair(line: str, opening: str, closing: str) -> bool:
    """Whether a line holds `opening`, something to read, `closing`."""
    start = line.find(opening)
    end = line.rfind(closing)
    if start < 0 or end < start + len(opening):
        return False
    return bool(line[start + len(opening) : end].strip("<> \t"))


def count_pairs(text: str, opening: str, closing: str) -> int:
    """How many times `opening` is followed by `closing` on the same line, none of them counted twice."""
    count = 0
    for line in text.splitlines():
        place = line.find(opening)
        while place >= 0:
            end = line.find(closing, place + len(opening))
            if end < 0:
                break
            count += 1
            place = line.find(opening, end + len(closing))
    return count
