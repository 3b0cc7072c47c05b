"""A vocabulary as the keys of a GGUF file, and back: byte-level BPE ("gpt2") and SentencePiece BPE ("llama").

Why: without its vocabulary a model's file answers in numbers.
In:  a Tokenizer and the width of the embedding; or the keys of a file.
Out: keys; or a `Vocabulary`. llama.cpp cuts texts by rules it knows by name (gguf_pretokenizers.py): a cut
that it does not know is refused, but for our own, which goes under the nearest name, with its tokenizer.json
whole beside it (the format's own key for that), and `own_cut_warning` says what the difference is.
Tokens that the embedding has room for and the vocabulary lacks are filled up as unused. Think and answer tags
are user-defined tokens, as DeepSeek-R1 has them: control tokens would not be shown in an answer.
Not here: how a text becomes ids (tokenizer/).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_pretokenizers import Cut, cut_named, cut_of, known_names
from tenth.tokenizer.sentencepiece import Kind, Piece, Rules, vocabulary_from_pieces
from tenth.tokenizer.special import SPECIAL_TOKENS, TAGS
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.vocabulary import Vocabulary, added_token, byte_level_spec

_PREFIX = "tokenizer.ggml."
_WHOLE = "tokenizer.huggingface.json"
_NEAREST = "qwen2"  # how near: benchmarks/llama_golden.py
_NORMALIZERS = ("NFC",)  # what llama.cpp leaves out and texts rarely need


def own_cut_warning(tokenizer: Tokenizer) -> str | None:
    """What to tell whoever exports a vocabulary of our own; None for the ones that llama.cpp cuts alike."""
    if not tokenizer.is_byte_level or cut_of(tokenizer.spec()) is not None:
        return None
    return (
        f"llama.cpp does not know how tenth cuts texts into words and will cut them as '{_NEAREST}' does: "
        "documents of the built-in tasks get the same ids, other texts may differ at runs of blanks and of "
        "punctuation; pass ids instead of text where every id matters."
    )


def vocabulary_keys(tokenizer: Tokenizer, *, vocab_size: int) -> dict[str, Any]:
    """The keys under tokenizer.ggml for a model whose embedding has `vocab_size` rows."""
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the embedding {vocab_size:,} rows; they "
            "do not belong together, name the tokenizer that came with the model."
        )
    spec = tokenizer.spec()
    if spec["model"]["type"] != "BPE":
        raise ConfigError(
            f"a {spec['model']['type']} vocabulary is not written to GGUF files here, BPE vocabularies are; "
            "convert the model to a Hugging Face directory instead."
        )
    keys = _byte_level_keys(spec) if tokenizer.is_byte_level else _sentencepiece_keys(spec)
    tokens, types = _tokens(spec, vocab_size=vocab_size, is_byte_level=tokenizer.is_byte_level)
    has_bos = keys.pop("add_bos_token") or _adds_bos(spec, tokenizer)
    keys |= {"tokens": tokens, "token_type": types, "eos_token_id": tokenizer.eos_id}
    if not tokenizer.is_byte_level:
        keys["scores"] = _scores(spec, tokens)
    keys |= dict(zip(("eot_token_id", "eom_token_id"), tokenizer.eos_ids[1:], strict=False))
    keys["padding_token_id"] = tokenizer.pad_id
    if tokenizer.bos_id is not None:
        keys["bos_token_id"] = tokenizer.bos_id
    keys["add_bos_token"] = has_bos and tokenizer.bos_id is not None
    keys["add_eos_token"] = False
    named = {_PREFIX + key: value for key, value in keys.items()}
    return named if own_cut_warning(tokenizer) is None else {**named, _WHOLE: json.dumps(spec)}


def read_vocabulary(keys: Mapping[str, Any], *, source: object) -> Vocabulary:
    """The vocabulary that a file's keys describe."""
    kind = keys.get(f"{_PREFIX}model")
    if kind not in ("gpt2", "llama"):
        raise CheckpointError(
            f"{source} carries a vocabulary of kind {str(kind)[:40]!r}, and gpt2 and llama are read; "
            "take the tokenizer.json of the model instead."
        )
    pieces = _pieces(keys, source=source)
    ids = {end: keys.get(f"{_PREFIX}{end}_token_id") for end in ("bos", "eos", "eot", "eom", "padding")}
    known = {end: each for end, each in ids.items() if isinstance(each, int) and 0 <= each < len(pieces)}
    eos_ids = tuple(dict.fromkeys(known[end] for end in ("eos", "eot", "eom") if end in known))
    if kind == "llama":
        spec = vocabulary_from_pieces(
            pieces,
            Rules(has_prefix=keys.get(f"{_PREFIX}add_space_prefix", True) is not False, removes_blanks=False),
        ).spec
    else:
        spec = _whole_spec(keys, source=source) or _byte_level_spec(keys, pieces, source=source)
    return Vocabulary(spec=spec, bos_id=known.get("bos"), eos_ids=eos_ids, pad_id=known.get("padding"))


def _byte_level_keys(spec: Mapping[str, Any]) -> dict[str, Any]:
    cut = cut_of(spec) or _own_cut(spec)
    normalizer = (spec.get("normalizer") or {}).get("type")
    if cut is None or normalizer not in (None, *_NORMALIZERS):
        what = "cut into words" if cut is None else f"normalised by {normalizer}"
        raise ConfigError(
            f"texts of this vocabulary are {what} in a way that llama.cpp does not know (it knows those of "
            f"{', '.join(known_names())}); a GGUF file of it would read texts wrongly."
        )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
    return {"model": "gpt2", "pre": cut.name, "merges": merges, "add_bos_token": cut.starts_with_bos}


def _own_cut(spec: Mapping[str, Any]) -> Cut | None:
    """Vocabularies that `train_bpe` made begin with our special tokens, in their order."""
    first = {token["id"]: token["content"] for token in spec["added_tokens"]}
    is_own = all(first.get(number) == token for number, token in enumerate(SPECIAL_TOKENS))
    return Cut(name=_NEAREST, patterns=(), starts_with_bos=True) if is_own else None


def _sentencepiece_keys(spec: Mapping[str, Any]) -> dict[str, Any]:
    steps = (spec.get("normalizer") or {}).get("normalizers", [spec.get("normalizer") or {}])
    splitter = spec.get("pre_tokenizer") or {}
    has_prefix = any(step.get("type") == "Prepend" for step in steps)
    has_prefix |= splitter.get("prepend_scheme", "never") != "never"
    return {"model": "llama", "pre": "default", "add_space_prefix": has_prefix, "add_bos_token": True}


def _adds_bos(spec: Mapping[str, Any], tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer.json itself puts bos in front."""
    after = spec.get("post_processor") or {}
    steps = after.get("processors", [after])
    firsts = [step.get("single", [{}])[0].get("SpecialToken", {}).get("id", "") for step in steps]
    return tokenizer.bos_id is not None and tokenizer.bos_id in map(tokenizer.special_tokens.get, firsts)


def _tokens(spec: Mapping[str, Any], *, vocab_size: int, is_byte_level: bool) -> tuple[list[str], list[int]]:
    """Every row of the embedding: its text and its kind."""
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    types = [int(Kind.UNUSED)] * vocab_size
    bytes_ = set() if is_byte_level else {f"<0x{byte:02X}>" for byte in range(256)}
    for token, number in spec["model"]["vocab"].items():
        tokens[number], types[number] = token, Kind.BYTE if token in bytes_ else Kind.NORMAL
    for added in spec["added_tokens"]:
        is_control = added["special"] and added["content"] not in TAGS
        tokens[added["id"]] = added["content"]
        types[added["id"]] = Kind.CONTROL if is_control else Kind.USER_DEFINED
    unknown = spec["model"].get("unk_token")
    if unknown is not None and unknown in spec["model"]["vocab"]:
        types[spec["model"]["vocab"][unknown]] = Kind.UNKNOWN
    return tokens, [int(each) for each in types]


def _scores(spec: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """llama.cpp joins the neighbours whose union scores best: the earlier a merge, the better its union."""
    order: dict[str, float] = {}
    for merge in spec["model"]["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        order.setdefault(left + right, -float(len(order)))
    return [order.get(token, -float(len(order))) for token in tokens]


def _pieces(keys: Mapping[str, Any], *, source: object) -> list[Piece]:
    tokens = keys.get(f"{_PREFIX}tokens")
    try:
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError("no list of texts")
        types = keys.get(f"{_PREFIX}token_type") or [int(Kind.NORMAL)] * len(tokens)
        scores = keys.get(f"{_PREFIX}scores") or [0.0] * len(tokens)
        rows = zip(tokens, scores, types, strict=True)
        return [Piece(token, float(score), Kind(int(kind))) for token, score, kind in rows]
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"the tokens of {source}, their scores and their types do not fit together ({error}); fetch or "
            "convert it again."
        ) from error


def _whole_spec(keys: Mapping[str, Any], *, source: object) -> dict[str, Any] | None:
    """The tokenizer.json that a file may carry; the library checks it when it is built."""
    try:
        spec = json.loads(keys[_WHOLE]) if _WHOLE in keys else None
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the {_WHOLE} of {source} is damaged; fetch or convert it again.") from error
    if spec is not None and not isinstance(spec, dict):
        raise CheckpointError(f"the {_WHOLE} of {source} is no JSON object; fetch or convert it again.")
    return spec


def _byte_level_spec(keys: Mapping[str, Any], pieces: Sequence[Piece], *, source: object) -> dict[str, Any]:
    name = keys.get(f"{_PREFIX}pre")
    cut = cut_named(str(name))
    if cut is None:
        raise CheckpointError(
            f"{source} says that its texts are cut as {str(name)[:40]!r}, and "
            f"{', '.join(known_names())} are known; take the tokenizer.json of the model instead."
        )
    merges = keys.get(f"{_PREFIX}merges", [])
    listed = merges if isinstance(merges, list) else [merges]
    pairs = [tuple(str(merge).split(" ")) for merge in listed]
    if any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(f"the merges of {source} are no pairs; fetch or convert it again.")
    kept = {Kind.NORMAL, Kind.BYTE}
    spec = byte_level_spec(
        {piece.text: number for number, piece in enumerate(pieces) if piece.kind in kept},
        [(left, right) for left, right in pairs],
        patterns=cut.patterns,
        normalizer=None if cut.normalizer is None else {"type": cut.normalizer},
        added=[
            added_token(number, piece.text, is_special=piece.kind is not Kind.USER_DEFINED)
            for number, piece in enumerate(pieces)
            if piece.kind in (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
        ],
    )
    spec["model"]["ignore_merges"] = cut.ignores_merges
    return spec
