"""Ids to text while they arrive: each piece comes out as soon as no later id can change it.

Why: one character may be spread over several tokens, so decoding token by token shows rubbish, and decoding
the whole answer again for every token takes time that grows with its square.
In:  one id at a time.
Out: pieces of text; joined, they are `Tokenizer.decode` of all ids. Half a character waits for its other
half, and becomes U+FFFD at the end if that never came.
Not here: where the text has to stop (stop_strings.py).
"""

import codecs
import re
from typing import Protocol

from tenth.tokenizer.tokenizer import Tokenizer

_FALLBACK_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # how SentencePiece-like vocabularies spell one byte
_REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """Turns the ids of one answer into text."""

    def feed(self, token_id: int) -> str:
        """The text that is certain now and was not before; often one token's, sometimes none."""
        ...

    def flush(self) -> str:
        """What is left once no id will follow."""
        ...


def build_detokenizer(tokenizer: Tokenizer) -> Detokenizer:
    """A fresh one, for one answer."""
    return ByteDetokenizer(tokenizer) if tokenizer.is_byte_level else WindowDetokenizer(tokenizer)


class ByteDetokenizer:
    """For byte-level vocabularies: every token is known bytes, and UTF-8 says where a character ends."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """See `Detokenizer`."""
        return self._utf8.decode(self._tokenizer.bytes_of(token_id))

    def flush(self) -> str:
        """See `Detokenizer`."""
        return self._utf8.decode(b"", final=True)


class WindowDetokenizer:
    """For any other vocabulary: decodes the last few ids behind those before them, and keeps what is new.

    The ids before give a token its neighbour, because decoders treat the first token of a text differently.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._shown: list[int] = []  # the last ids whose text is out
        self._shown_text = ""
        self._waiting: list[int] = []

    def feed(self, token_id: int) -> str:
        """See `Detokenizer`."""
        token = self._tokenizer.token_of(token_id)
        if token is None:
            return ""
        self._waiting.append(token_id)
        # A run of single bytes is text or rubbish as a whole, so nothing of it is certain before it ends.
        return "" if _FALLBACK_BYTE.fullmatch(token) else self._release(is_last=False)

    def flush(self) -> str:
        """See `Detokenizer`."""
        return self._release(is_last=True) if self._waiting else ""

    def _release(self, *, is_last: bool) -> str:
        text = self._tokenizer.decode([*self._shown, *self._waiting])
        if text.endswith(_REPLACEMENT) and not is_last:
            return ""
        piece = text[len(self._shown_text) :]
        # An id without text of its own is no neighbour: keep the one before it, too.
        self._shown = self._waiting if piece else [*self._shown, *self._waiting]
        self._shown_text = self._tokenizer.decode(self._shown)
        self._waiting = []
        return piece
