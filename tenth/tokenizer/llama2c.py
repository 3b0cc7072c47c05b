"""llama2.c's vocabularies (`tokenizer.bin`, `tok512.bin`): a score and the bytes of every token.

Why: the trained story models come with nothing else. They are SentencePiece vocabularies written anew: blanks
are blanks, ids 0 to 2 are unknown, bos and eos, the next 256 are single bytes, and the neighbours whose union
scores best are joined first.
In:  the bytes of a file: int32 longest token, then per token float32 score, int32 length, bytes.
Out: a `Vocabulary`. A story ends where the next would begin: the models were trained on bos, story, bos, and
never saw eos, so bos is what ends a text.
"""

import math
import struct

from tenth.base.errors import CheckpointError
from tenth.tokenizer.vocabulary import (
    MAX_TOKENS,
    Vocabulary,
    added_token,
    bpe_model,
    merges_by_score,
    sentencepiece_parts,
    spec_of,
)

_SPECIALS = ("<unk>", "<s>", "</s>")
_NUM_BYTES = 256
_HEADER, _ENTRY = struct.Struct("<i"), struct.Struct("<fi")


def read_llama2c(data: bytes, *, source: object) -> Vocabulary:
    """The vocabulary of a llama2.c file."""
    tokens = _parse(data, source=source)
    bytes_at = len(_SPECIALS)
    first = bytes_at + _NUM_BYTES
    if len(tokens) <= first:
        raise CheckpointError(
            f"{source} holds {len(tokens)} tokens, and llama2.c's vocabularies begin with {first} for "
            "specials and bytes; restore the file that came with the model."
        )
    texts = [*_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(_NUM_BYTES))]
    try:
        texts += [token.decode().replace(" ", "▁") for token, _ in tokens[first:]]
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{source} holds a token that is no text ({error}); restore the file that came with the model."
        ) from error
    ids = {text: number for number, text in enumerate(texts)}
    scores = {text: score for text, (_, score) in zip(texts[first:], tokens[first:], strict=True)}
    spec = spec_of(
        bpe_model(ids, merges_by_score(scores, ids), unk_token=_SPECIALS[0], byte_fallback=True),
        added_tokens=[added_token(number, text) for number, text in enumerate(_SPECIALS)],
        **sentencepiece_parts(has_prefix=True),
    )
    return Vocabulary(spec=spec, bos_id=1, eos_ids=(1, 2))


def _parse(data: bytes, *, source: object) -> list[tuple[bytes, float]]:
    """(bytes, score) of every token, in the order of their ids."""
    tokens: list[tuple[bytes, float]] = []
    place = _HEADER.size
    try:
        (longest,) = _HEADER.unpack_from(data)
        while place < len(data) and len(tokens) < MAX_TOKENS:
            score, length = _ENTRY.unpack_from(data, place)
            place += _ENTRY.size
            if not 0 <= length <= len(data) - place or not math.isfinite(score):
                raise ValueError(f"token {len(tokens)} claims {length} bytes and the score {score}")
            tokens.append((data[place : place + length], score))
            place += length
    except (struct.error, ValueError) as error:
        raise CheckpointError(
            f"{source} is no llama2.c vocabulary ({error}); restore the file that came with the model."
        ) from error
    del longest  # rounded in some files, and nobody needs it
    return tokens
