"""Token files: documents as one long row of ids on disk, read back by memory map.

Why: tokenising once makes every later pass free, and a memory map needs no memory. Documents are stored as
`bos document eos`, one behind the other, without a mask between them (DeepSeek-V3, arXiv:2412.19437, section
4.1). `index.json` is written last: a directory without it was cut off and is written again. Until the new
tokens are whole, a directory keeps its old ones.
In:  document texts and a tokenizer. Out: a `TokenSet`.
Not here: windows and their order (pretrain_stream.py).
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from tenth.base.errors import DataError, RunError
from tenth.base.files import read_json, write_json
from tenth.data.fill_in_middle import cut_document, join_pieces
from tenth.tokenizer.special import Trust
from tenth.tokenizer.tokenizer import Tokenizer

TOKENS_FILE, INDEX_FILE = "tokens.bin", "index.json"
FORMAT_VERSION = 1
_DOCUMENTS_AT_ONCE = 512  # encoded in one call, on every core


@dataclass(frozen=True, kw_only=True)
class TokenIndex:
    """What index.json says about tokens.bin."""

    num_tokens: int
    num_documents: int
    num_text_bytes: int  # UTF-8 bytes of the documents, for bits per byte
    dtype: str  # "uint16" or "uint32", by the size of the vocabulary
    vocab_size: int
    tokenizer: str  # fingerprint
    content_hash: str  # of the bytes of tokens.bin
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True)
class TokenSet:
    """Tokens on disk."""

    directory: Path
    index: TokenIndex

    @property
    def num_tokens(self) -> int:
        """Ids in the file, bos and eos included."""
        return self.index.num_tokens

    @property
    def tokens_per_byte(self) -> float:
        """Times the mean loss per token in bits: bits per byte of text."""
        return self.index.num_tokens / self.index.num_text_bytes

    def open_tokens(self) -> np.ndarray:
        """The ids as a read-only memory map of shape (num_tokens,)."""
        return np.memmap(self.directory / TOKENS_FILE, dtype=self.index.dtype, mode="r")


def write_tokens(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    directory: Path,
    *,
    max_tokens: int | None = None,
    fill_in_middle_rate: float = 0.0,
    seed: int = 0,
) -> TokenSet:
    """Tokenise whole documents into `directory` until they end or `max_tokens` is reached."""
    directory = Path(directory)
    rows = _encoded(documents, tokenizer, rate=fill_in_middle_rate, seed=seed)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        index = _write_file(rows, directory / TOKENS_FILE, tokenizer=tokenizer, max_tokens=max_tokens)
    except OSError as error:
        partial = directory / (TOKENS_FILE + ".partial")
        if partial.exists():
            partial.unlink()
        raise RunError(
            f"could not write tokens to {directory}: {error.strerror or error}; "
            "free some space or choose another directory."
        ) from error
    write_json(directory / INDEX_FILE, asdict(index))
    return TokenSet(directory=directory, index=index)


def load_tokens(directory: Path) -> TokenSet:
    """What `write_tokens` wrote; refuses a directory that was cut off or damaged."""
    directory = Path(directory)
    row = read_json(directory / INDEX_FILE)
    version = row.get("format_version") if isinstance(row, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{directory}: token format {version} is not {FORMAT_VERSION}; delete it and tokenise again."
        )
    try:
        index = TokenIndex(**row)
    except TypeError as error:
        raise DataError(f"{directory / INDEX_FILE} is damaged ({error}); tokenise again.") from error
    path = directory / TOKENS_FILE
    expected = index.num_tokens * np.dtype(index.dtype).itemsize
    found = path.stat().st_size if path.exists() else 0
    if found != expected:
        raise DataError(
            f"{path} has {found:,} bytes, not {expected:,}; delete {directory} and tokenise again."
        )
    return TokenSet(directory=directory, index=index)


def _encoded(
    documents: Iterable[str], tokenizer: Tokenizer, *, rate: float, seed: int
) -> Iterator[tuple[str, list[int]]]:
    """Each text with `bos ids eos`. A document may hold think and answer tags, but never a role or an end."""
    stream = iter(documents)
    begin = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    while texts := list(islice(stream, _DOCUMENTS_AT_ONCE)):
        cuts = (
            [cut_document(text, rate=rate, seed=seed) for text in texts]
            if rate
            else [(text,) for text in texts]
        )
        pieces = iter(tokenizer.encode_many([piece for cut in cuts for piece in cut], trust=Trust.TAGS))
        for text, cut in zip(texts, cuts, strict=True):
            ids = join_pieces(tokenizer, [next(pieces) for _ in cut])
            yield text, [*begin, *ids, tokenizer.eos_id]


def _write_file(
    rows: Iterable[tuple[str, list[int]]], path: Path, *, tokenizer: Tokenizer, max_tokens: int | None
) -> TokenIndex:
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    digest = hashlib.blake2b(digest_size=8)
    num_tokens = num_documents = num_text_bytes = 0
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        for text, ids in rows:
            data = np.asarray(ids, dtype=dtype).tobytes()
            file.write(data)
            digest.update(data)
            num_tokens += len(ids)
            num_documents += 1
            num_text_bytes += len(text.encode("utf-8", "replace"))
            if max_tokens is not None and num_tokens >= max_tokens:
                break
        file.flush()
        os.fsync(file.fileno())
    if num_documents == 0:
        partial.unlink()
        raise DataError("there is no document to tokenise; name a corpus that is not empty.")
    path.with_name(INDEX_FILE).unlink(missing_ok=True)  # it speaks of the old tokens
    partial.replace(path)
    return TokenIndex(
        num_tokens=num_tokens,
        num_documents=num_documents,
        num_text_bytes=num_text_bytes,
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.fingerprint(),
        content_hash=digest.hexdigest(),
    )
