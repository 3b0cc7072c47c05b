"""Text to token ids and back: one small class around the `tokenizers` library.

Why: the library parses every special string it meets, wherever it stands. A prompt that says `</think>` would
then end the model's thought, so here the caller says how far a text is trusted.
In:  text, or a directory with `tokenizer.json`.
Out: lists of ids; `decode(encode_plain(text)) == text` for every text.
Not here: training a vocabulary (train.py), conversations (chat.py).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import tokenizers

from tenth.base.errors import CheckpointError, ConfigError
from tenth.base.files import text_hash, write_whole
from tenth.tokenizer.special import BOS, EOS, SPECIAL_TOKENS, TAGS, Trust

FILE_NAME = "tokenizer.json"
_PARSED = {Trust.ALL: frozenset(SPECIAL_TOKENS), Trust.TAGS: frozenset(TAGS), Trust.NONE: frozenset[str]()}


class Tokenizer:
    """A byte-level BPE with our special tokens. Immutable; built by `train_bpe` or `load`."""

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        self._json = model.to_str()
        self._views = {trust: _parsing_only(self._json, parsed) for trust, parsed in _PARSED.items()}
        self.vocab_size: int = model.get_vocab_size(with_added_tokens=True)
        self.bos_id, self.eos_id = self.id_of(BOS), self.id_of(EOS)
        self.pad_id = self.eos_id
        # Tokens are then spelled in the byte alphabet, and the bytes of a text are those of its ids.
        self.is_byte_level = isinstance(model.decoder, tokenizers.decoders.ByteLevel)

    def encode(self, text: str, *, trust: Trust = Trust.ALL) -> list[int]:
        """Ids of a text; the special strings that `trust` admits become single ids. Adds no bos or eos."""
        return self._views[trust].encode(_mend(text), add_special_tokens=False).ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text that somebody else wrote: never a special id."""
        return self.encode(text, trust=Trust.NONE)

    def encode_many(self, texts: Sequence[str], *, trust: Trust = Trust.ALL) -> list[list[int]]:
        """`encode` for many texts at once, on every core."""
        mended = [_mend(text) for text in texts]
        return [row.ids for row in self._views[trust].encode_batch_fast(mended, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids: tags and roles are shown, bos and eos (= padding) are not, unknown ids vanish."""
        shown = [token_id for token_id in ids if token_id not in (self.bos_id, self.eos_id)]
        return self._views[Trust.ALL].decode(shown, skip_special_tokens=False)

    def id_of(self, token: str) -> int:
        """The id of one token by its text."""
        token_id = self._views[Trust.ALL].token_to_id(token)
        if token_id is None:
            raise ConfigError(f"the tokenizer has no token '{token}'; train it again with `train_bpe`.")
        return token_id

    def token_of(self, token_id: int) -> str | None:
        """How the vocabulary spells an id; None where `decode` shows nothing: bos, eos, unknown ids."""
        if token_id in (self.bos_id, self.eos_id):
            return None
        token: str | None = self._views[Trust.ALL].id_to_token(token_id)
        return token

    def fingerprint(self) -> str:
        """Sixteen hex digits: equal exactly when two tokenizers are the same."""
        return text_hash(self._json)

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json`, the file format of the `tokenizers` library."""
        write_whole(Path(directory) / FILE_NAME, self._json.encode())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        path = Path(directory) / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8")
            model = tokenizers.Tokenizer.from_str(text)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path} does not exist; train a tokenizer or name its directory."
            ) from error
        except Exception as error:  # what the library raises for a malformed file is a bare Exception
            raise CheckpointError(
                f"{path} is not a tokenizer file ({error}); restore it or train again."
            ) from error
        missing = [token for token in SPECIAL_TOKENS if model.token_to_id(token) is None]
        if missing:
            raise CheckpointError(
                f"{path} lacks the special tokens {missing[:3]}; train a tokenizer with `train_bpe`."
            )
        return cls(model)


def _parsing_only(model_json: str, parsed: frozenset[str]) -> tokenizers.Tokenizer:
    """The same vocabulary, but only the strings in `parsed` are recognised as special."""
    spec = json.loads(model_json)
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in parsed]
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _mend(text: str) -> str:
    """Half of a surrogate pair, which JSON can carry, is no character: show it as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
