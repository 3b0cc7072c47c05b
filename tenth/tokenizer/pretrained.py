"""A vocabulary from any file that holds one: which format it is, and which tokens begin and end a text.

Why: a model comes with `tokenizer.json`, with tiktoken ranks, with a SentencePiece model or with llama2.c's
list; and what ends an answer stands in up to four files beside it, which do not always agree.
In:  a directory or a file. Every file is bounded before it is read.
Out: a `Vocabulary`.
Ends, in directories: the tokenizer's own eos comes first, then what generation_config.json adds (for chat
models that is where the end of a turn stands), or config.json where there is no such file.
Not here: the formats themselves (tiktoken.py, sentencepiece.py, llama2c.py), running them (tokenizer.py).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenth.base.errors import CheckpointError
from tenth.base.files import open_ordinary
from tenth.tokenizer import llama2c, sentencepiece, tiktoken
from tenth.tokenizer.special import BOS, EOS
from tenth.tokenizer.vocabulary import Vocabulary

FILE_NAME, CONFIG = "tokenizer.json", "tokenizer_config.json"
MAX_FILE_BYTES = 64 << 20  # twice the largest in use
_READERS = {
    ".tiktoken": tiktoken.read_tiktoken,
    ".model": sentencepiece.read_sentencepiece,
    ".bin": llama2c.read_llama2c,
}
_PATTERNS = ("*.tiktoken", "tokenizer.model", "*.model", "tokenizer.bin", "tok*.bin")
# For a lone tokenizer.json: what vocabularies call their beginning and their end, ours first.
_USUAL_BOS = (BOS, "<|begin_of_text|>", "<s>")
_USUAL_EOS = (EOS, "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary at `path`; a CheckpointError where there is none or it is damaged."""
    if path.is_dir():
        if (path / FILE_NAME).is_file():
            return _read_directory(path)
        found = find_vocabulary(path)
        if found is None:
            raise CheckpointError(
                f"{path / FILE_NAME} does not exist, nor any other vocabulary beside it; "
                "put the tokenizer there that came with the model."
            )
        return read_vocabulary(found)
    if path.suffix == ".json":
        return _read_directory(path.parent, name=path.name)
    if path.suffix not in _READERS:
        raise CheckpointError(
            f"{path} is no vocabulary; name a directory with {FILE_NAME}, or a file that ends in "
            f"{', '.join(_READERS)}."
        )
    vocabulary = _READERS[path.suffix](read_bounded(path), source=path)
    return _with_ends_beside(path, vocabulary)


def find_vocabulary(directory: Path) -> Path | None:
    """The file of a directory that its vocabulary is read from; None where it has none."""
    every = (file for pattern in (FILE_NAME, *_PATTERNS) for file in sorted(directory.glob(pattern)))
    return next(every, None)


def read_bounded(path: Path) -> bytes:
    """The bytes of a file that is no larger than a vocabulary can be."""
    try:
        with open_ordinary(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; train a tokenizer or name its directory.") from error
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}; check the path.") from error
    if len(data) > MAX_FILE_BYTES:
        raise CheckpointError(
            f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, and no vocabulary is; "
            "restore the file that came with the model."
        )
    return data


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that may be missing: then it says nothing."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}); restore the file that came with the model."
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object; restore the file that came with the model.")
    return values


def _read_directory(directory: Path, *, name: str = FILE_NAME) -> Vocabulary:
    path = directory / name
    try:
        spec = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a tokenizer file ({error}); restore it or train again."
        ) from error
    ids = _ids_by_text(spec, path=path)
    tokens = read_object(directory / "special_tokens_map.json") | read_object(directory / CONFIG)
    bos_id, eos_ids, pad_id = _numbered_ends(directory)
    own_bos = _id_of(tokens.get("bos_token"), ids)
    own_eos = _id_of(tokens.get("eos_token"), ids)
    own_pad = _id_of(tokens.get("pad_token"), ids)
    if own_eos is not None:
        eos_ids = (own_eos, *eos_ids)
    if not eos_ids:
        eos_ids = tuple(ids[text] for text in _USUAL_EOS if text in ids)[:1]
    if "bos_token" not in tokens and bos_id is None:  # a bos_token of null says that there is none
        bos_id = next((ids[text] for text in _USUAL_BOS if text in ids), None)
    return Vocabulary(
        spec=spec,
        bos_id=own_bos if "bos_token" in tokens else bos_id,
        eos_ids=tuple(dict.fromkeys(eos_ids)),
        pad_id=pad_id if own_pad is None else own_pad,
    )


def _with_ends_beside(path: Path, vocabulary: Vocabulary) -> Vocabulary:
    """The ends that a generation_config.json beside the file adds to its own."""
    _, more, _ = _numbered_ends(path.parent)
    return replace(vocabulary, eos_ids=tuple(dict.fromkeys((*vocabulary.eos_ids, *more))))


def _numbered_ends(directory: Path) -> tuple[int | None, tuple[int, ...], int | None]:
    """bos, ends and padding as the model's own files number them."""
    values = read_object(directory / "generation_config.json")
    if "eos_token_id" not in values:
        values = read_object(directory / "config.json") | values
    ends = values.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    return (
        _number(values.get("bos_token_id")),
        tuple(each for each in map(_number, listed) if each is not None),
        _number(values.get("pad_token_id")),
    )


def _number(value: Any) -> int | None:
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
    return value if is_id else None


def _id_of(token: Any, ids: Mapping[str, int]) -> int | None:
    """A token is written as its text, or as an object with its text."""
    text = token.get("content") if isinstance(token, dict) else token
    return ids.get(text) if isinstance(text, str) else None


def _ids_by_text(spec: Any, *, path: Path) -> dict[str, int]:
    """Every token's id. What is wrong with the rest of a spec is found when the library reads it."""
    try:
        vocab = spec["model"].get("vocab", {})
        pairs = (
            vocab if isinstance(vocab, dict) else {piece: number for number, (piece, _) in enumerate(vocab)}
        )
        added = {each["content"]: each["id"] for each in spec.get("added_tokens", [])}
        return {text: each for text, each in (pairs | added).items() if _number(each) is not None}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a tokenizer file (its model holds no vocabulary); restore it or train again."
        ) from error
