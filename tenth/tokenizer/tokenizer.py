"""Text to token ids and back, for any vocabulary: one small class around the `tokenizers` library.

Why: the library parses every special string it meets, wherever it stands. A prompt that says `</think>` would
then end the model's thought, so here the caller says how far a text is trusted.
In:  text, or a path to a vocabulary in any of the formats of pretrained.py.
Out: lists of ids; `decode(encode_plain(text)) == text` for byte-level vocabularies without a normalizer.
Not here: training a vocabulary (train.py), formats of files (pretrained.py), conversations (chat.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import tokenizers

from tenth.base.errors import CheckpointError, ConfigError, DataError
from tenth.base.files import text_hash, write_json, write_whole
from tenth.tokenizer.pretrained import CONFIG, FILE_NAME, read_vocabulary
from tenth.tokenizer.special import BOS, EOS, TAGS, Trust
from tenth.tokenizer.vocabulary import Vocabulary, build_library, byte_alphabet, panics_as

_BYTE_OF = {char: byte for byte, char in enumerate(byte_alphabet())}


class Tokenizer:
    """A vocabulary with its ends. Immutable; built by `train_bpe`, `load` or `from_vocabulary`."""

    def __init__(
        self,
        model: tokenizers.Tokenizer,
        *,
        bos_id: int | None = None,
        eos_ids: Sequence[int] = (),
        pad_id: int | None = None,
    ) -> None:
        """Without `eos_ids` the ends are our own: bos and eos by name, padding with eos."""
        self._json = model.to_str()
        self._library = model
        self.special_tokens: Mapping[str, int] = {
            token.content: token_id for token_id, token in sorted(model.get_added_tokens_decoder().items())
        }
        self._views = self._build_views()
        self.vocab_size: int = 1 + max(model.get_vocab(with_added_tokens=True).values())
        self.bos_id = bos_id if eos_ids else self.id_of(BOS)
        self.eos_ids: tuple[int, ...] = tuple(eos_ids) or (self.id_of(EOS),)
        self.eos_id = self.eos_ids[0]
        self.pad_id = self.eos_id if pad_id is None else pad_id
        self._hidden = {self.bos_id, *self.eos_ids, self.pad_id}
        # Tokens are then spelled in the byte alphabet, and the bytes of a text are those of its ids.
        self.is_byte_level = isinstance(model.decoder, tokenizers.decoders.ByteLevel)
        # An added token is spelled as it is shown; some vocabularies add one that the alphabet would misread.
        self._literal = {
            token_id: token
            for token, token_id in self.special_tokens.items()
            if self.is_byte_level and not token.isascii() and all(char in _BYTE_OF for char in token)
        }

    def _build_views(self) -> dict[Trust, tokenizers.Tokenizer]:
        """For each trust the same vocabulary, in which only the strings that it admits are recognised."""
        spec = json.loads(self._json)
        admitted = {
            Trust.TAGS: frozenset(TAGS).intersection(self.special_tokens),
            Trust.NONE: frozenset[str](),
        }
        built: dict[frozenset[str], tokenizers.Tokenizer] = {}
        for parsed in admitted.values():
            if parsed not in built:
                built[parsed] = _parsing_only(spec, parsed)
        return {Trust.ALL: self._library} | {trust: built[parsed] for trust, parsed in admitted.items()}

    def encode(self, text: str, *, trust: Trust = Trust.ALL) -> list[int]:
        """Ids of a text; the special strings that `trust` admits become single ids. Adds no bos or eos."""
        with panics_as(_too_hard()):
            return self._views[trust].encode(_mend(text), add_special_tokens=False).ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text that somebody else wrote: never a special id."""
        return self.encode(text, trust=Trust.NONE)

    def encode_many(self, texts: Sequence[str], *, trust: Trust = Trust.ALL) -> list[list[int]]:
        """`encode` for many texts at once, on every core."""
        mended = [_mend(text) for text in texts]
        with panics_as(_too_hard()):
            rows = self._views[trust].encode_batch_fast(mended, add_special_tokens=False)
        return [row.ids for row in rows]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids: tags and roles are shown, bos, ends and padding are not, unknown ids vanish."""
        shown = [token_id for token_id in ids if token_id not in self._hidden]
        with panics_as(_too_hard()):
            if not self._literal:
                return self._library.decode(shown, skip_special_tokens=False)
            parts = groupby(shown, key=self._literal.get)
            return "".join(
                self._library.decode(list(run), skip_special_tokens=False)
                if literal is None
                else literal * len(list(run))
                for literal, run in parts
            )

    def id_of(self, token: str) -> int:
        """The id of one token by its text."""
        token_id = self._library.token_to_id(token)
        if token_id is None:
            raise ConfigError(f"the tokenizer has no token '{token}'; train it again with `train_bpe`.")
        return token_id

    def token_of(self, token_id: int) -> str | None:
        """How the vocabulary spells an id; None where `decode` shows nothing: bos, ends, unknown ids."""
        if token_id in self._hidden:
            return None
        token: str | None = self._library.id_to_token(token_id)
        return token

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes that an id of a byte-level vocabulary stands for; none where `decode` shows nothing."""
        token = self.token_of(token_id)
        if token is None:
            return b""
        if token_id in self._literal:
            return token.encode()
        try:
            return bytes([_BYTE_OF[char] for char in token])
        except KeyError:  # a special token, spelled as it is shown
            return token.encode()

    def fingerprint(self) -> str:
        """Sixteen hex digits: equal exactly when two vocabularies are the same."""
        return text_hash(self._json)

    def spec(self) -> dict[str, Any]:
        """The parsed `tokenizer.json`."""
        spec: dict[str, Any] = json.loads(self._json)
        return spec

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json`, the library's format, and `tokenizer_config.json`, which names the ends."""
        spelled = self._library.id_to_token
        # Further ends are generation_config.json's to say, which is written with the weights.
        ends = {"bos_token": self.bos_id, "eos_token": self.eos_id, "pad_token": self.pad_id}
        values: dict[str, Any] = {key: None if each is None else spelled(each) for key, each in ends.items()}
        values |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        write_whole(Path(directory) / FILE_NAME, self._json.encode())
        write_json(Path(directory) / CONFIG, values)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, or anybody's vocabulary: a directory or a file, see pretrained.py."""
        return cls.from_vocabulary(read_vocabulary(Path(path)), source=path)

    @classmethod
    def from_vocabulary(cls, vocabulary: Vocabulary, *, source: object) -> Self:
        """A tokenizer from what a file says; `source` names it in errors."""
        library = build_library(vocabulary.spec, source=source)
        bos_id, eos_ids, pad_id = vocabulary.bos_id, vocabulary.eos_ids, vocabulary.pad_id
        known = [token_id for token_id in dict.fromkeys(eos_ids) if library.id_to_token(token_id) is not None]
        if not known:
            raise CheckpointError(
                f"{source} names no token that ends a text ({list(eos_ids)} are no ids of it); set eos_token "
                f"in {CONFIG} to one of its tokens."
            )
        if bos_id is not None and library.id_to_token(bos_id) is None:
            bos_id = None
        if pad_id is not None and library.id_to_token(pad_id) is None:
            pad_id = None
        return cls(library, bos_id=bos_id, eos_ids=known, pad_id=pad_id)


def _too_hard() -> DataError:
    return DataError(
        "the tokenizer gave up on this text: a regular expression of it needs too many steps, or it has no "
        "token for an unknown character; use the tokenizer that came with the model."
    )


def _parsing_only(spec: Mapping[str, Any], parsed: frozenset[str]) -> tokenizers.Tokenizer:
    """The vocabulary of `spec`, in which no added token but those in `parsed` can come out of a text.

    Added whitespace stays: runs of blanks are no commands, and the model has learnt to read them so.
    """
    added = spec["added_tokens"]
    kept = [each for each in added if each["content"] in parsed or _is_blank(each)]
    lost = {each["content"] for each in added} - {each["content"] for each in kept}
    lost.discard(spec["model"].get("unk_token"))
    numbered = {each["content"]: each["id"] for each in kept}
    model = _without(spec["model"], lost, numbered)
    return tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": kept, "model": model}))


def _is_blank(added: Mapping[str, Any]) -> bool:
    return not added["special"] and not added["content"].strip()


def _without(model: Mapping[str, Any], lost: set[str], numbered: Mapping[str, int]) -> dict[str, Any]:
    """The model, unable to spell the tokens in `lost` out of ordinary characters; ids stay what they were.

    The library numbers an added token anew, unless the model knows its number.
    """
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: a piece's place is its id; an empty piece matches nothing
        unknown = model.get("unk_id")
        pieces = [
            ["" if piece in lost and number != unknown else piece, score]
            for number, (piece, score) in enumerate(vocab)
        ]
        pieces += [["", 0.0] for _ in range(len(vocab), 1 + max(numbered.values(), default=-1))]
        for token, number in numbered.items():
            pieces[number][0] = token
        return {**model, "vocab": pieces}
    rest = {token: number for token, number in vocab.items() if token not in lost} | dict(numbered)
    if "merges" not in model:
        return {**model, "vocab": rest}
    merges = [
        (left, right) for left, right in model["merges"] if not lost.intersection((left, right, left + right))
    ]
    return {**model, "vocab": rest, "merges": merges}


def _mend(text: str) -> str:
    """Half of a surrogate pair, which JSON can carry, is no character: show it as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
