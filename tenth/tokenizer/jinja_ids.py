"""From what a foreign template wrote to ids, so that no content can become a special token.

Why: a template writes special tokens as text, and beside them what a user said. Once both are one text nobody
can tell them apart. So every special string inside a content is broken by a marker before rendering, and
tokens are looked for while the markers stand. Where no content says such a thing, the ids are those that the
tokenizers library gives for the text.
In:  messages; the text that a template made of them.  Out: marked contents; ids.
Assistants' contents may hold think and answer tags (Trust.TAGS).
Not here: rendering (jinja_template.py), which turns are learned (jinja_chat.py).
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.tokenizer.special import TAGS
from tenth.tokenizer.tokenizer import Tokenizer

_MARKERS = range(0xF0000, 0xFFFFE)  # private use: no text needs them, and one of them is in none


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The special strings of one vocabulary, and where they could begin or end across two texts."""

    ids: dict[str, int]
    splitter: re.Pattern[str]  # as the library finds tokens
    anywhere: re.Pattern[str]
    beyond_tags: re.Pattern[str]  # all but think and answer tags
    beginnings: frozenset[str]  # what a special string could begin with at the end of a content
    endings: frozenset[str]
    longest: int

    def split(self, text: str) -> list[tuple[str, int | None]]:
        """Pieces in order: ordinary text, and special tokens with their ids."""
        pieces: list[tuple[str, int | None]] = []
        place = 0
        for found in self.splitter.finditer(text):
            name = found[0] if found[0] in self.ids else found[0].strip()
            pieces += [(text[place : found.start()], None), (name, self.ids[name])]
            place = found.end()
        return [piece for piece in [*pieces, (text[place:], None)] if piece[0]]


@functools.lru_cache(maxsize=4)
def guard_of(tokenizer: Tokenizer) -> Guard:
    """Of all added tokens but whitespace and single letters, which are text however they are numbered."""
    added = [
        token
        for token in tokenizer.spec()["added_tokens"]
        if token["content"].strip() and (token["special"] or len(token["content"]) > 1)
    ]
    added.sort(key=lambda token: -len(token["content"]))  # as the library: the longest that fits
    names = [token["content"] for token in added]
    return Guard(
        ids={token["content"]: token["id"] for token in added},
        splitter=_either(map(_pattern, added)),
        anywhere=_either(map(re.escape, names)),
        beyond_tags=_either(re.escape(name) for name in names if name not in TAGS),
        beginnings=frozenset(name[:end] for name in names for end in range(1, len(name))),
        endings=frozenset(name[start:] for name in names for start in range(1, len(name))),
        longest=max(map(len, names), default=0),
    )


def unused_marker(texts: Iterable[str]) -> str:
    """A character that is in none of the texts."""
    used = set().union(*map(set, texts))
    marker = next((chr(code) for code in _MARKERS if chr(code) not in used), None)
    if marker is None:
        raise DataError("a conversation uses every private character of Unicode; take some out.")
    return marker


def marked(message: Message, *, guard: Guard, marker: str) -> str:
    """The content, its special strings broken, and set apart from what a template may put beside it."""
    special = guard.beyond_tags if message.role is Role.ASSISTANT else guard.anywhere
    content = _broken(message.content, special, marker=marker)
    body = content.strip()  # templates trim
    if not body:
        return content
    start = content.index(body)
    before = marker if _touches(body, guard.endings, guard.longest, at_end=False) else ""
    behind = marker if _touches(body, guard.beginnings, guard.longest, at_end=True) else ""
    if not before and not behind and len(body) < guard.longest and any(body in name for name in guard.ids):
        before = marker  # the middle of a special string
    return f"{content[:start]}{before}{body}{behind}{content[start + len(body) :]}"


def ids_of(tokenizer: Tokenizer, text: str, *, marker: str) -> list[int]:
    """Ids of a rendered text: special where the template wrote a token, ordinary where a marker stood."""
    guard = guard_of(tokenizer)
    pieces = [(piece.replace(marker, ""), token_id) for piece, token_id in guard.split(text)]
    pieces = [piece for piece in pieces if piece[0]]
    whole = text.replace(marker, "")
    if guard.split(whole) == pieces:  # nothing had to be broken
        ids = tokenizer.encode(whole)
        known = set(guard.ids.values())
        # A normalizer may make a special string out of other characters.
        if [each for each in ids if each in known] == [each for _, each in pieces if each is not None]:
            return ids
    return [
        each
        for piece, token_id in pieces
        for each in (tokenizer.encode_plain(piece) if token_id is None else (token_id,))
    ]


def _broken(text: str, special: re.Pattern[str], *, marker: str) -> str:
    """A marker behind the first character of every special string, of those that overlap too."""
    parts, place = [], 0
    found = special.search(text)
    while found:
        parts.append(text[place : found.start() + 1])
        place = found.start() + 1
        found = special.search(text, place)
    return marker.join([*parts, text[place:]])


def _touches(body: str, parts: frozenset[str], longest: int, *, at_end: bool) -> bool:
    lengths = range(1, min(longest, len(body) + 1))
    return any((body[-length:] if at_end else body[:length]) in parts for length in lengths)


def _either(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or "(?!)")


def _pattern(token: dict[str, Any]) -> str:
    """One added token with the blanks around it that it swallows."""
    name = re.escape(token["content"])
    if token["single_word"]:
        name = rf"(?<!\w){name}(?!\w)"
    return (r"\s*" if token["lstrip"] else "") + name + (r"\s*" if token["rstrip"] else "")
