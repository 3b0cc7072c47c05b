"""tiktoken ranks (`*.tiktoken`): a line per token, its bytes in base64 and its rank.

Why: Qwen's first models came with nothing else. Ranks say in which order pairs are joined but not which
pairs; a token's two halves are what the ranks below its own make of its bytes.
In:  the bytes of a file. Out: a `Vocabulary`.
A file of ranks does not say how texts are cut nor which special tokens follow, so only vocabularies whose
rules are known are read; the number of ranks tells which.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenth.base.errors import CheckpointError
from tenth.tokenizer.vocabulary import MAX_TOKENS, Vocabulary, added_token, byte_alphabet, byte_level_spec

_MAX_WORK = 1 << 26  # finding the halves of a token takes the square of its length; Qwen's need 2**23


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a family of models adds to its ranks."""

    pattern: str  # the regular expression that cuts a text into words
    specials: tuple[str, ...]  # numbered behind the ranks
    eos: tuple[str, ...]
    normalizer: Mapping[str, Any] | None = None


QWEN = Rules(
    pattern=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    eos=("<|im_end|>", "<|endoftext|>"),
    normalizer={"type": "NFC"},
)
_KNOWN = {151_643: QWEN}  # by the number of ranks


def read_tiktoken(data: bytes, *, source: object) -> Vocabulary:
    """The vocabulary of a file of ranks."""
    ranks = parse_ranks(data, source=source)
    rules = _KNOWN.get(len(ranks))
    if rules is None:
        raise CheckpointError(
            f"{source} holds {len(ranks):,} ranks, and how their texts are cut is known only for Qwen's "
            "151,643; use the tokenizer.json of this model instead."
        )
    return vocabulary_from_ranks(ranks, rules)


def parse_ranks(data: bytes, *, source: object) -> dict[bytes, int]:
    """Bytes -> rank; the ranks are 0, 1, 2, ... and every single byte has one."""
    lines = data.splitlines()
    try:
        pairs = [line.split() for line in lines if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise CheckpointError(
            f"{source} is no file of ranks ({error}); restore the file that came with the model."
        ) from error
    is_numbered = sorted(ranks.values()) == list(range(len(pairs))) and len(pairs) <= MAX_TOKENS
    has_bytes = all(bytes([byte]) in ranks for byte in range(256))
    if not is_numbered or not has_bytes or sum(len(token) ** 2 for token in ranks) > _MAX_WORK:
        raise CheckpointError(
            f"{source} is no complete file of ranks (ranks from 0 without a gap, each of the 256 bytes among "
            "them, no token of thousands of bytes); restore the file that came with the model."
        )
    return ranks


def vocabulary_from_ranks(ranks: Mapping[bytes, int], rules: Rules) -> Vocabulary:
    """The same tokens as a byte-level BPE with merges."""
    alphabet = byte_alphabet()

    def spelled(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        halves = _halves(token, rank, ranks) if len(token) > 1 else ()
        if len(halves) == 2:  # otherwise no text ever becomes this token
            merges.append((spelled(halves[0]), spelled(halves[1])))
    ids = {text: len(ranks) + number for number, text in enumerate(rules.specials)}
    spec = byte_level_spec(
        {spelled(token): rank for token, rank in ranks.items()},
        merges,
        patterns=[rules.pattern],
        added=[added_token(number, text) for text, number in ids.items()],
        normalizer=rules.normalizer,
    )
    return Vocabulary(spec=spec, bos_id=None, eos_ids=tuple(ids[text] for text in rules.eos))


def _halves(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What joining by the ranks below `rank` leaves of a token; two parts, for all but odd tokens."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        best = min(
            range(len(parts) - 1),
            key=lambda place: ranks.get(parts[place] + parts[place + 1], rank),
        )
        joined = parts[best] + parts[best + 1]
        if ranks.get(joined, rank) >= rank:
            break
        parts[best : best + 2] = [joined]
    return parts
