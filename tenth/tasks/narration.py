"""Words in front of the steps of a solution, in one language or in a mixture of both, and back into one.

Why: people narrate what they work out, a web corpus holds such narration in mixed languages, and a model
that is rewarded for right answers alone keeps mixing (R1-Zero's weakness, R1, arXiv:2501.12948v2, section
2.3). Steps of pure arithmetic could not show that.
In:  lines of working, a language.  Out: the lines, each behind a word; or the same in one language.
Not here: the families (generated/), how much is narrated and mixed (the recipe).
"""

import random
from collections.abc import Mapping
from types import MappingProxyType

# The same ideas in the same order, so that one word can take the other's place.
WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"en": ("first ", "then ", "so ", "next ", "wait, "), "zh": ("首先", "然后", "所以", "接着", "等等，")}
)
_STARTERS = 1  # the first word opens, the others go on
_CHOSEN = 4  # of the words, those that narrate; the last is only translated


def narrate(thinking: str, *, language: str, rng: random.Random, is_mixed: bool = False) -> str:
    """Every line behind a word of `language`; mixed: of either, line by line."""
    lines = []
    for number, line in enumerate(thinking.split("\n")):
        word = 0 if number == 0 else rng.randrange(_STARTERS, _CHOSEN)
        spoken = rng.choice(tuple(WORDS)) if is_mixed else language
        lines.append(WORDS[spoken][word] + line)
    return "\n".join(lines)


def translate(thinking: str, *, language: str) -> str:
    """The same thinking with every word of narration in `language`; what is not narration stays."""
    return "\n".join(_translate_line(line, language=language) for line in thinking.split("\n"))


def _translate_line(line: str, *, language: str) -> str:
    translated, rest = "", line
    # "then wait, 3+4=7" carries two words
    while (found := _leading_word(rest)) is not None:
        word, length = found
        translated += WORDS[language][word]
        rest = rest[length:].lstrip(" ")
    return translated + rest


def _leading_word(line: str) -> tuple[int, int] | None:
    """(which idea, how many characters), None where the line does not begin with one."""
    for words in WORDS.values():
        for index, word in enumerate(map(str.rstrip, words)):
            is_part_of_another = word.isascii() and line[len(word) : len(word) + 1].isalpha()
            if line.startswith(word) and not is_part_of_another:
                return index, len(word)
    return None
