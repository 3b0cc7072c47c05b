"""What every tokenizer file is read into: a `tokenizer.json` of the `tokenizers` library, and its ends.

Why: ranks, SentencePiece models and llama2.c files say the same things in other words, so each has a reader
that writes them down in one form, and one class (tokenizer.py) runs that form.
Out: `Vocabulary`; the pieces of a spec that several readers need; `build_library`, which checks a spec that
somebody else wrote before it is run.
What is contained: a spec runs no code. Its regular expressions are Oniguruma's, which gives up a match after
ten million steps, so the worst one ends with a DataError, slowly; rules that would multiply a text without
bound are refused here; padding, truncation and dropout, which would change ids, are left out.
Not here: bytes of files (pretrained.py, tiktoken.py, sentencepiece.py, llama2c.py).
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tokenizers

from tenth.base.errors import CheckpointError, TenthError

MAX_TOKENS = 1 << 20  # four times the largest in use
MAX_PIECE_CHARS = 128  # of a piece with a score; cutting one in all ways takes the square of its length
_MAX_GROWTH = 1024  # how much longer than a text its normalised form may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A parsed `tokenizer.json` and the ids that begin, end and pad a text; `eos_ids[0]` ends an answer."""

    spec: Mapping[str, Any]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None = None


def build_library(spec: Mapping[str, Any], *, source: object) -> tokenizers.Tokenizer:
    """The library's tokenizer for a spec from a file; a CheckpointError that names `source` otherwise."""
    wanted = {"added_tokens": [], **spec, "truncation": None, "padding": None}
    model = wanted.get("model")
    if isinstance(model, Mapping) and "dropout" in model:  # it would split the same text anew each time
        wanted["model"] = {**model, "dropout": None}
    try:
        _require_whole_maps(wanted.get("normalizer"))
        is_bounded = _growth(wanted.get("normalizer")) * _growth(wanted.get("decoder")) <= _MAX_GROWTH
        if is_bounded:
            with panics_as(CheckpointError("its rules cannot be run")):
                library = tokenizers.Tokenizer.from_str(json.dumps(wanted))
    except Exception as error:  # what the library raises for a malformed spec is a bare Exception
        raise CheckpointError(
            f"{source} is not a tokenizer file ({error}); restore it or train again."
        ) from error
    if not is_bounded:
        raise CheckpointError(
            f"{source} has replacement rules that could make a text {_MAX_GROWTH} times longer and more; "
            "such a tokenizer is not run."
        )
    for added in wanted["added_tokens"]:
        if library.token_to_id(added["content"]) != added["id"]:
            raise CheckpointError(
                f"{source} numbers its token '{added['content']}' {added['id']}, which leaves a gap or "
                "is taken; restore the file that came with the model."
            )
    ids = library.get_vocab(with_added_tokens=True).values()
    if not ids or max(ids) >= MAX_TOKENS:
        raise CheckpointError(
            f"{source} numbers its {len(ids):,} tokens up to {max(ids, default=0):,}, and a vocabulary holds "
            f"1 to {MAX_TOKENS:,}; restore the file that came with the model."
        )
    if len(set(ids)) < len(ids):
        raise CheckpointError(
            f"{source} gives two tokens one number; restore the file that came with the model."
        )
    return library


@contextmanager
def panics_as(error: TenthError) -> Iterator[None]:
    """What the library raises is a bare Exception or a panic; make it an error that people can read."""
    try:
        yield
    except BaseException as raised:
        if type(raised) is not Exception and type(raised).__name__ != "PanicException":
            raise
        raise error from raised


def _growth(step: Any) -> float:
    """By which factor the rules of a normalizer or decoder may lengthen a text."""
    if isinstance(step, Sequence) and not isinstance(step, str):
        factor = 1.0
        for part in step:
            factor *= _growth(part)
        return factor
    if not isinstance(step, Mapping):
        return 1.0
    if step.get("type") == "Replace":
        pattern = step.get("pattern", {})
        matched = len(str(pattern["String"])) if "String" in pattern else 0  # a regex may match nothing
        return max(1.0, (len(str(step.get("content", ""))) + (matched == 0)) / max(1, matched))
    own = 1.0 + len(str(step.get("prepend", ""))) / 64
    return own * _growth(step.get("normalizers")) * _growth(step.get("decoders"))


def _require_whole_maps(step: Any) -> None:
    """SentencePiece's character maps begin with the bytes of a table that follows, and the library sets aside
    memory for as many as it is told; when there is none, the process ends."""
    if isinstance(step, Sequence) and not isinstance(step, str):
        for part in step:
            _require_whole_maps(part)
    if not isinstance(step, Mapping):
        return
    encoded = step.get("precompiled_charsmap")
    if isinstance(encoded, str):
        data = base64.b64decode(encoded, validate=True)
        if len(data) < 4 or int.from_bytes(data[:4], "little") > len(data) - 4:
            raise ValueError("its character map is cut off")
    _require_whole_maps(step.get("normalizers"))


def added_token(token_id: int, content: str, *, is_special: bool = True) -> dict[str, Any]:
    """One entry of `added_tokens`."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": is_special}


def spec_of(model: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """A whole `tokenizer.json`; what `parts` does not name is absent."""
    absent = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor"))
    return {"version": "1.0", **absent, "added_tokens": [], "decoder": None, **parts, "model": dict(model)}


def byte_level_spec(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    patterns: Sequence[str],
    added: Sequence[Mapping[str, Any]],
    normalizer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A byte-level BPE whose texts are cut at each match of `patterns`, one pattern after the other."""
    cuts = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return spec_of(
        bpe_model(vocab, merges),
        added_tokens=list(added),
        normalizer=normalizer,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [*cuts, to_bytes]},
        decoder={**to_bytes, "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    )


def bpe_model(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    unk_token: str | None = None,
    byte_fallback: bool = False,
) -> dict[str, Any]:
    """The `model` of a BPE spec."""
    settings: dict[str, Any] = {
        "dropout": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    settings |= {"unk_token": unk_token, "fuse_unk": unk_token is not None, "byte_fallback": byte_fallback}
    return {"type": "BPE", **settings, "vocab": dict(vocab), "merges": [list(merge) for merge in merges]}


def byte_alphabet() -> tuple[str, ...]:
    """The character that byte-level BPE (GPT-2) writes for each byte: visible Latin-1 characters stand for
    their own number, the other 68 bytes are, in order, the characters from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in visible else chr(next(others)) for byte in range(256))


def merges_by_score(scores: Mapping[str, float], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges of a vocabulary that has scores in place of them, the best first.

    SentencePiece joins the neighbours whose union scores best: every way to cut a piece into two others is a
    merge with that piece's score. Two cuts of one piece never compete but for the place of a repetition.
    """
    ranked = []
    for piece, score in scores.items():
        for cut in range(1, len(piece) if len(piece) <= MAX_PIECE_CHARS else 0):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                ranked.append((-score, ids[piece], ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def sentencepiece_parts(*, has_prefix: bool, cleanup: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Normalizer and decoder of a vocabulary that writes blanks as ▁ and unknown characters as bytes."""
    prefix = [{"type": "Prepend", "prepend": "▁"}] if has_prefix else []
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_prefix else []
    steps = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*cleanup, *prefix, blanks]},
        "decoder": {"type": "Sequence", "decoders": steps},
    }
