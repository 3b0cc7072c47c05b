"""SentencePiece models (`tokenizer.model`): BPE and unigram vocabularies with a score for every piece.

Why: Llama's family comes with one. The file is a protocol buffer that its own library parses in C++; the few
fields that matter are read here with a bounded reader, since the file may come from anybody.
In:  the bytes of a file. Out: a `Vocabulary`.
Kept: scores, byte fallback, the character map (`nmt_nfkc` and the like), surplus blanks, the blank before a
text, control pieces (never spelled by a text), user-defined pieces (always whole).
Not kept: WORD and CHAR models, pieces marked unused, blanks as suffixes; they are refused or were never met.
"""

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

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

# Field numbers of sentencepiece_model.proto, and how each field is written.
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3  # of a piece
_MODEL_TYPE, _BOS_ID, _EOS_ID, _PAD_ID, _BLANK_IS_SUFFIX = 3, 41, 42, 43, 24  # of the trainer
_CHARACTER_MAP, _HAS_PREFIX, _REMOVES_BLANKS = 2, 3, 4  # of the normalizer
_NUMBER, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_FILE_FIELDS = dict.fromkeys((_PIECE, _TRAINER, _NORMALIZER), _BYTES)
_PIECE_FIELDS = {_TEXT: _BYTES, _SCORE: _FOUR_BYTES, _KIND: _NUMBER}
_TRAINER_FIELDS = dict.fromkeys((_MODEL_TYPE, _BOS_ID, _EOS_ID, _PAD_ID, _BLANK_IS_SUFFIX), _NUMBER)
_NORMALIZER_FIELDS = {_CHARACTER_MAP: _BYTES, _HAS_PREFIX: _NUMBER, _REMOVES_BLANKS: _NUMBER}
_UNIGRAM, _BPE = 1, 2


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One token: its place in the file is its id."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How texts are prepared, and which ids begin and end them (None: there is none)."""

    is_unigram: bool = False
    has_prefix: bool = True
    removes_blanks: bool = True
    character_map: bytes = b""
    bos_id: int | None = 1
    eos_id: int | None = 2
    pad_id: int | None = None


def read_sentencepiece(data: bytes, *, source: object) -> Vocabulary:
    """The vocabulary of a SentencePiece model file."""
    try:
        pieces, rules = _parse(data)
    except (ValueError, struct.error, IndexError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{source} is no SentencePiece model ({error}); restore the file that came with the model."
        ) from error
    if rules.eos_id is None or not pieces:
        raise CheckpointError(
            f"{source} has {len(pieces)} pieces and no token that ends a text; use the tokenizer.json of "
            "this model instead."
        )
    return vocabulary_from_pieces(pieces, rules)


def vocabulary_from_pieces(pieces: Sequence[Piece], rules: Rules) -> Vocabulary:
    """The same pieces as a vocabulary of the `tokenizers` library. Also for GGUF, which lists them alike."""
    added = [
        added_token(number, piece.text, is_special=piece.kind is not Kind.USER_DEFINED)
        for number, piece in enumerate(pieces)
        if piece.kind in (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
    ]
    build = _unigram_model if rules.is_unigram else _bpe_model
    has_whole_pieces = any(piece.kind is Kind.USER_DEFINED for piece in pieces)
    # A normalizer sees every stretch between user-defined pieces, but only the text's first gets a prefix:
    # the pre-tokenizer knows which that is. Blanks at the ends of a stretch stay there, the text's own too.
    later = rules.has_prefix and has_whole_pieces
    cleanup = _cleanup(rules, keeps_outer_blanks=later)
    parts = sentencepiece_parts(has_prefix=rules.has_prefix, cleanup=cleanup)
    if later:
        parts["normalizer"] = {"type": "Sequence", "normalizers": cleanup}
        parts["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        }
    spec = spec_of(build(pieces), added_tokens=added, **parts)
    ends = () if rules.eos_id is None else (rules.eos_id,)
    return Vocabulary(spec=spec, bos_id=rules.bos_id, eos_ids=ends, pad_id=rules.pad_id)


def _bpe_model(pieces: Sequence[Piece]) -> dict[str, Any]:
    ids = {piece.text: number for number, piece in enumerate(pieces)}
    scores = {piece.text: piece.score for piece in pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    unknown = next((piece.text for piece in pieces if piece.kind is Kind.UNKNOWN), None)
    has_bytes = any(piece.kind is Kind.BYTE for piece in pieces)
    return bpe_model(ids, merges_by_score(scores, ids), unk_token=unknown, byte_fallback=has_bytes)


def _unigram_model(pieces: Sequence[Piece]) -> dict[str, Any]:
    unknown = next((number for number, piece in enumerate(pieces) if piece.kind is Kind.UNKNOWN), None)
    # A text never spells an unused piece: an empty one matches nothing.
    vocab = [["" if piece.kind is Kind.UNUSED else piece.text, piece.score] for piece in pieces]
    has_bytes = any(piece.kind is Kind.BYTE for piece in pieces)
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": has_bytes}


def _cleanup(rules: Rules, *, keeps_outer_blanks: bool) -> list[dict[str, Any]]:
    """What happens to a text before its blanks are written as ▁."""
    steps: list[dict[str, Any]] = []
    if rules.character_map:
        encoded = base64.b64encode(rules.character_map).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if rules.removes_blanks:
        surplus = r"(?<= ) +" if keeps_outer_blanks else r"\A +| +\z| +(?= )"
        steps.append({"type": "Replace", "pattern": {"Regex": surplus}, "content": ""})
    return steps


def _parse(data: bytes) -> tuple[list[Piece], Rules]:
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for field, value in _fields(data, _FILE_FIELDS):
        if field == _PIECE:
            pieces.append(_piece(value))
        elif field == _TRAINER:
            trainer.update(_fields(value, _TRAINER_FIELDS))
        elif field == _NORMALIZER:
            normalizer.update(_fields(value, _NORMALIZER_FIELDS))
        if len(pieces) > MAX_TOKENS:
            raise ValueError(f"more than {MAX_TOKENS:,} pieces")
    model_type = trainer.get(_MODEL_TYPE, _UNIGRAM)
    if model_type not in (_UNIGRAM, _BPE) or trainer.get(_BLANK_IS_SUFFIX, 0):
        raise ValueError(f"it is of kind {model_type}, and only unigram (1) and BPE (2) are read")
    if len({piece.text for piece in pieces}) != len(pieces):
        raise ValueError("two of its pieces are the same")

    def end(field: int, usual: int) -> int | None:
        number: int = trainer.get(field, usual)
        return number if number < len(pieces) else None  # -1: there is none

    return pieces, Rules(
        is_unigram=model_type == _UNIGRAM,
        has_prefix=bool(normalizer.get(_HAS_PREFIX, 1)),
        removes_blanks=bool(normalizer.get(_REMOVES_BLANKS, 1)),
        character_map=bytes(normalizer.get(_CHARACTER_MAP, b"")),
        bos_id=end(_BOS_ID, 1),
        eos_id=end(_EOS_ID, 2),
        pad_id=end(_PAD_ID, len(pieces)),
    )


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, int(Kind.NORMAL)
    for field, value in _fields(data, _PIECE_FIELDS):
        if field == _TEXT:
            text = bytes(value).decode()
        elif field == _SCORE:
            (score,) = struct.unpack("<f", value)
        elif field == _KIND:
            kind = value
    if not text or score != score or abs(score) == float("inf"):
        raise ValueError(f"a piece is '{text}' with the score {score}")
    return Piece(text, score, Kind(kind))


def _fields(data: Any, known: Mapping[int, int]) -> Iterator[tuple[int, Any]]:
    """(number, value) of each known field of a message: an int, or the bytes of a number, text or message."""
    data = memoryview(data)
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        field, wire = key >> 3, key & 7
        if wire not in (_NUMBER, _EIGHT_BYTES, _BYTES, _FOUR_BYTES) or known.get(field, wire) != wire:
            raise ValueError(f"field {field} has the wire type {wire}")
        value: Any
        if wire == _NUMBER:
            value, place = _varint(data, place)
        else:
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire, 0)
            if wire == _BYTES:
                size, place = _varint(data, place)
            if size > len(data) - place:
                raise ValueError(f"field {field} claims {size} bytes and {len(data) - place} are left")
            value = data[place : place + size]
            place += size
        if field in known:
            yield field, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, at most ten groups, and the place behind it."""
    value = 0
    for group in range(10):
        if place >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << 7 * group
        if byte < 0x80:
            return value, place
    raise ValueError("a number has more than ten bytes")
