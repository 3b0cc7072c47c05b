"""A byte-level BPE vocabulary from a corpus: the same texts give the same ids, every time.

Why: every byte is a token, so no text is ever unknown; digits stand alone, so that a column of a sum is a
token. The cut into pieces follows DeepSeek-V3's (runs of Chinese and kana; words with their space; runs of
punctuation) with three changes for small reasoning models: digits one by one instead of up to three, newlines
alone instead of glued to punctuation, and operators, brackets and colons alone, so that `=` is one token
wherever it stands.
In:  texts. Out: a `Tokenizer` whose ids are specials, bytes, merges, in this order.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import AddedToken, Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders as library_decoders

from tenth.base.errors import ConfigError, DataError
from tenth.tokenizer.special import SPECIAL_TOKENS
from tenth.tokenizer.tokenizer import Tokenizer

_NUM_BYTES = 256
_BLANK = "\u0120"  # how byte-level BPE writes the space character
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALONE = r"\p{N}|[\r\n]|[一-龥぀-ゟ゠-ヿ]+"  # cut out first: a digit, a newline, a run of Chinese or kana
_OPERATORS = r"\-+*/=<>^%()\[\]{}|,:;×÷"
_REST = "|".join(
    (
        rf" ?[{_OPERATORS}]",  # one operator, bracket or separator, with the space before it
        r"['._][A-Za-z]+",  # 's .com _name
        r" ?[\p{L}\p{M}]+",  # a word
        rf" ?[^\s\p{{L}}\p{{M}}{_OPERATORS}]+",  # other punctuation and symbols
        r"\s+(?=\s)",  # blanks, but the last one belongs to the word behind them
        r"\s",
    )
)


def smallest_vocab_size() -> int:
    """The special tokens and one token per byte."""
    return len(SPECIAL_TOKENS) + _NUM_BYTES


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn at most `vocab_size` tokens from texts (fewer when the texts hold no more pairs)."""
    if vocab_size < smallest_vocab_size():
        raise ConfigError(
            f"vocab_size = {vocab_size}, but {len(SPECIAL_TOKENS)} special tokens and {_NUM_BYTES} bytes "
            f"need {smallest_vocab_size()}; set it to {smallest_vocab_size()} or more."
        )
    alphabet, merges = _learn(texts, vocab_size=vocab_size)
    merges = _with_spaced_letters(merges, budget=vocab_size - smallest_vocab_size())
    tokens = [*SPECIAL_TOKENS, *alphabet, *(left + right for left, right in merges)]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    library = _untrained(models.BPE(vocab=vocab, merges=merges))
    library.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return Tokenizer(library)


def _untrained(model: models.BPE) -> LibraryTokenizer:
    library = LibraryTokenizer(model)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_ALONE), behavior="isolated"),
            pre_tokenizers.Split(Regex(_REST), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = library_decoders.ByteLevel()
    return library


def _learn(texts: Iterable[str], *, vocab_size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The alphabet and the merges, in order. Special strings are cut out: they are no words."""
    library = _untrained(models.BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    num_parts = 0

    def parts() -> Iterator[str]:
        nonlocal num_parts
        for text in texts:
            for part in special.split(text):
                num_parts += bool(part)
                yield part

    library.train_from_iterator(parts(), trainer)
    if num_parts == 0:
        raise DataError("the tokenizer got no text to learn from; name a corpus that is not empty.")
    merges = json.loads(library.to_str())["model"]["merges"]
    return alphabet, [(left, right) for left, right in merges]


def _with_spaced_letters(merges: Sequence[tuple[str, str]], *, budget: int) -> list[tuple[str, str]]:
    """Keep the longest run of merges that leaves room for every small letter with its space.

    Spelling tasks write words as "a b z"; " z" must be one token as " a" is, however rare it was. A merge
    added last acts only where no earlier merge has used the letter.
    """
    needed = [(_BLANK, letter) for letter in _LETTERS]
    if budget < len(needed):
        return list(merges[:budget])
    rank = {merge: position for position, merge in enumerate(merges)}
    for kept in range(min(len(merges), budget), -1, -1):
        missing = [merge for merge in needed if rank.get(merge, len(merges)) >= kept]
        if kept + len(missing) <= budget:
            return [*merges[:kept], *missing]
    return needed
