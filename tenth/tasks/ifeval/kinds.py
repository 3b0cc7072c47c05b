"""The twenty-five kinds of checkable instructions of IFEval (Zhou et al., arXiv:2311.07911, table 1).

Why: "answer in capitals", "at least 300 words" and the like can be judged without anybody's opinion.
In:  a response's text and the values of one instruction, as the benchmark's file names them.
Out: whether the instruction was followed.
Not here: which instructions a problem has, strict and loose judging (check.py).

Every function is our own and takes time linear in the text. Where it knowingly differs from the official
checker: keywords are taken as they are written, not as regular expressions; text in capitals is lower-cased
before its language is judged; sentences and capital words are counted without NLTK (text_parts.py); the
language comes from another classifier (language.py).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenth.tasks.ifeval.language import is_language
from tenth.tasks.ifeval.text_parts import (
    count_capital_words,
    count_pairs,
    count_sentences,
    count_words,
    delimited_parts,
    has_pair,
)

CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
MAX_WORDS, MAX_VALUE_CHARS = 100, 20_000  # of one instruction; a prompt to be repeated is the longest
_WORD_ENDS = frozenset(".,?!'\"")


def is_related(count: int, relation: str, threshold: int) -> bool:
    """ "at least" or "less than", the two relations there are."""
    return count >= threshold if relation == "at least" else count < threshold


def has_keywords(text: str, *, keywords: list[str]) -> bool:
    """Every keyword occurs somewhere, inside a longer word too, in capitals or not."""
    folded = text.lower()
    return all(keyword.lower() in folded for keyword in keywords)


def has_keyword_often(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """Occurrences of one keyword, inside longer words too."""
    return is_related(text.lower().count(keyword.lower()), relation, frequency)


def lacks_words(text: str, *, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(
        re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in forbidden_words
    )


def has_letter_often(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Occurrences of one letter, small or capital; `#` and `!` are asked for too."""
    return is_related(text.lower().count(letter.lower()), let_relation, let_frequency)


def is_in_language(text: str, *, language: str) -> bool:
    """The whole response is in that language."""
    return is_language(text, language)


def has_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    """How many sentences there are."""
    return is_related(count_sentences(text), relation, num_sentences)


def has_words(text: str, *, num_words: int, relation: str) -> bool:
    """How many words there are."""
    return is_related(count_words(text), relation, num_words)


def has_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, separated by the divider `***`."""
    parts = delimited_parts(text, "***")
    return parts is not None and len(parts) == num_paragraphs


def begins_paragraph(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, separated by blank lines, of which the n-th begins with that word."""
    pieces = text.split("\n\n")
    filled = sum(bool(piece.strip()) for piece in pieces)
    if filled != num_paragraphs or not 1 <= nth_paragraph <= filled:
        return False
    words = pieces[nth_paragraph - 1].split()  # empty pieces keep their places, as in the official checker
    if not words:
        return False
    word = words[0].lstrip("'").lstrip('"').lower()
    end = next((place for place, char in enumerate(word) if char in _WORD_ENDS), len(word))
    return word[:end] == first_word.lower()


def has_postscript(text: str, *, postscript_marker: str) -> bool:
    """A postscript under its marker, `P.S.` or `P.P.S`, whose dots may be followed by a space."""
    marks = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = marks.get(postscript_marker, re.escape(postscript_marker.lower()))
    return re.search(pattern, text.lower()) is not None


def has_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets."""
    return count_pairs(text, "[", "]") >= num_placeholders


def has_bullets(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `* ` or `-`; `**bold**` begins none."""
    lines = (line.lstrip() for line in text.splitlines())
    return num_bullets == sum(
        line.startswith("-") or (len(line) > 1 and line[0] == "*" and line[1] != "*") for line in lines
    )


def has_title(text: str) -> bool:
    """A title in double angular brackets on one line."""
    return any(has_pair(line, "<<", ">>") for line in text.splitlines())


def has_highlights(text: str, *, num_highlights: int) -> bool:
    """At least so many sections between `*` or between `**`, with something in them."""
    single = sum(bool(found[1].strip()) for found in re.finditer(r"\*([^\n*]*)\*", text))
    double = sum(bool(found[1].strip()) for found in re.finditer(r"\*\*([^\n*]*)\*\*", text))
    return single + double >= num_highlights


def has_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections, each headed by the word and a number: `SECTION 1`."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def is_json(text: str) -> bool:
    """The whole response is JSON; it may stand in a fence of three backticks."""
    text = text.strip()
    opened = re.match(r"```(?:json)?", text, flags=re.IGNORECASE)
    text = (text[opened.end() :] if opened else text).removesuffix("```").strip()
    try:
        json.loads(text)
    except (
        ValueError,
        RecursionError,
    ):  # too many digits are a ValueError, too many brackets a RecursionError
        return False
    return True


def is_constrained(text: str) -> bool:
    """Holds one of the three answers that are allowed."""
    return any(option in text for option in CONSTRAINED)


def repeats_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """Begins with the request, word for word, in capitals or not."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def gives_two_responses(text: str) -> bool:
    """Two different responses, separated by six asterisks."""
    parts = delimited_parts(text, "******")
    return parts is not None and len(parts) == 2 and parts[0].strip() != parts[1].strip()


def is_capital(text: str) -> bool:
    """English, and no small letter in it."""
    return text.isupper() and is_language(text, "en")


def is_lowercase(text: str) -> bool:
    """English, and no capital in it."""
    return text.islower() and is_language(text, "en")


def has_capital_words(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """How many words are all capitals."""
    return is_related(count_capital_words(text), capital_relation, capital_frequency)


def has_no_comma(text: str) -> bool:
    """No `,` anywhere."""
    return "," not in text


def ends_with(text: str, *, end_phrase: str) -> bool:
    """Ends with exactly that phrase, quotation marks around the response aside."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def is_quoted(text: str) -> bool:
    """The whole response stands in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of instruction: how it is checked, and which values it needs, of which type."""

    follows: Callable[..., bool]
    values: Mapping[str, type]


_RELATED: Mapping[str, type] = {"relation": str}

KINDS: Mapping[str, Kind] = {
    "keywords:existence": Kind(has_keywords, {"keywords": list}),
    "keywords:frequency": Kind(has_keyword_often, {"keyword": str, "frequency": int, **_RELATED}),
    "keywords:forbidden_words": Kind(lacks_words, {"forbidden_words": list}),
    "keywords:letter_frequency": Kind(
        has_letter_often, {"letter": str, "let_frequency": int, "let_relation": str}
    ),
    "language:response_language": Kind(is_in_language, {"language": str}),
    "length_constraints:number_sentences": Kind(has_sentences, {"num_sentences": int, **_RELATED}),
    "length_constraints:number_paragraphs": Kind(has_paragraphs, {"num_paragraphs": int}),
    "length_constraints:number_words": Kind(has_words, {"num_words": int, **_RELATED}),
    "length_constraints:nth_paragraph_first_word": Kind(
        begins_paragraph, {"num_paragraphs": int, "nth_paragraph": int, "first_word": str}
    ),
    "detectable_content:number_placeholders": Kind(has_placeholders, {"num_placeholders": int}),
    "detectable_content:postscript": Kind(has_postscript, {"postscript_marker": str}),
    "detectable_format:number_bullet_lists": Kind(has_bullets, {"num_bullets": int}),
    "detectable_format:constrained_response": Kind(is_constrained, {}),
    "detectable_format:number_highlighted_sections": Kind(has_highlights, {"num_highlights": int}),
    "detectable_format:multiple_sections": Kind(has_sections, {"section_spliter": str, "num_sections": int}),
    "detectable_format:json_format": Kind(is_json, {}),
    "detectable_format:title": Kind(has_title, {}),
    "combination:two_responses": Kind(gives_two_responses, {}),
    "combination:repeat_prompt": Kind(repeats_prompt, {"prompt_to_repeat": str}),
    "startend:end_checker": Kind(ends_with, {"end_phrase": str}),
    "startend:quotation": Kind(is_quoted, {}),
    "change_case:capital_word_frequency": Kind(
        has_capital_words, {"capital_frequency": int, "capital_relation": str}
    ),
    "change_case:english_capital": Kind(is_capital, {}),
    "change_case:english_lowercase": Kind(is_lowercase, {}),
    "punctuation:no_comma": Kind(has_no_comma, {}),
}


def problem_with(kind: str, values: Mapping[str, Any]) -> str | None:
    """What is wrong with an instruction as a file holds it; None where nothing is."""
    if not isinstance(kind, str) or kind not in KINDS:
        return f"{repr(kind)[:60]} is none of the {len(KINDS)} kinds of instructions"
    wanted = KINDS[kind].values
    missing = next((name for name in wanted if not isinstance(values.get(name), wanted[name])), None)
    if missing is not None:
        return (
            f"'{kind}' needs {missing} as {wanted[missing].__name__}, found {repr(values.get(missing))[:60]}"
        )
    words = [word for value in values.values() if isinstance(value, list) for word in value]
    if not all(isinstance(word, str) for word in words):
        return f"'{kind}' has a word that is no text"
    texts = [*words, *(value for value in values.values() if isinstance(value, str))]
    if len(words) > MAX_WORDS or any(len(text) > MAX_VALUE_CHARS for text in texts):
        return f"'{kind}' has more than {MAX_WORDS} words or one longer than {MAX_VALUE_CHARS:,} characters"
    relations = [values[name] for name in wanted if name.endswith("relation")]
    wrong = next((value for value in relations if value not in ("at least", "less than")), None)
    if wrong is not None:
        return f"'{kind}' has the relation {wrong[:60]!r}; it is 'at least' or 'less than'"
    return None
