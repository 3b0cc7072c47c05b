"""Documents for pre-training: read them, drop repeats and test questions, mix sources, hold some out.

Why: each step is a function from an iterator of texts to an iterator of texts, so a corpus of any size
streams through, and generated documents enter like files do.
In:  .txt, .jsonl (field `text`), .json arrays, each also gzipped; or any iterator of strings.
Out: iterators of document texts.
Not here: text to tokens on disk (shards.py), the order in which training sees them (pretrain_stream.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenth.base.errors import ConfigError, DataError
from tenth.base.files import text_hash
from tenth.data.rows import read_rows, read_text_lines, require_file
from tenth.data.shingles import NGRAM_WORDS, run_hashes, words_of

TEXT_DOCUMENT_CHARACTERS = 65_536  # a longer .txt file is cut at the next blank line
TEXT_DOCUMENT_MOST = 1 << 20  # and where none comes, at the next line
_KINDS = (".txt", ".jsonl", ".json")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Documents and how much of the mixture's text they should be."""

    name: str
    documents: Iterable[str]
    weight: float


def read_documents(paths: Sequence[Path]) -> Iterator[str]:
    """Documents of files and of directories' files (by name). Paths are checked now, lines as they come."""
    files = [file for path in paths for file in _files_of(Path(path))]
    if not files:
        raise DataError(f"the corpus {[str(path) for path in paths]} names no .txt or .jsonl file; add one.")
    return _stream(files)


def dedupe(documents: Iterable[str]) -> Iterator[str]:
    """Each text once, at its first place. Remembers eight bytes per document, not the text."""
    seen: set[int] = set()
    for text in documents:
        key = int(text_hash(text), 16)
        if key not in seen:
            seen.add(key)
            yield text


def decontaminate(documents: Iterable[str], *, against: Iterable[str]) -> Iterator[str]:
    """Documents that share no run of ten words with a text in `against`, whatever the case and punctuation.

    A test question under ten words cannot be found like this; splits by content hash guard those.
    """
    forbidden = {gram for text in against for gram in _ngrams(text)}
    for text in documents:
        if forbidden.isdisjoint(_ngrams(text)):
            yield text


def mix(sources: Sequence[Source]) -> Iterator[str]:
    """Documents of several sources, interleaved so that each has its share of the text at any moment.

    The next document comes from the source that is furthest behind its share: no draw, so no seed. A source
    that ends leaves the mixture, the others go on.
    """
    bad = [source for source in sources if not source.weight > 0]
    if bad:
        raise ConfigError(
            f"source '{bad[0].name}' has weight {bad[0].weight}; set it above 0 or leave it out."
        )
    open_sources = [iter(source.documents) for source in sources]
    spent = [0.0] * len(sources)  # characters so far, divided by weight
    alive = list(range(len(sources)))
    while alive:
        behind = min(alive, key=lambda index: (spent[index], index))
        text = next(open_sources[behind], None)
        if text is None:
            alive.remove(behind)
            continue
        spent[behind] += max(len(text), 1) / sources[behind].weight
        yield text


def is_held_out(text: str, *, share: float) -> bool:
    """Whether a document belongs to the held-out part: decided by its content alone, so it never moves."""
    if not 0 <= share < 1:
        raise ConfigError(f"the held-out share is {share}; set it from 0 to below 1, such as 0.01.")
    return int(text_hash("held-out", text), 16) < share * 2**64


def training_part(documents: Iterable[str], *, held_out_share: float) -> Iterator[str]:
    """The documents to learn from."""
    return (text for text in documents if not is_held_out(text, share=held_out_share))


def held_out_part(documents: Iterable[str], *, held_out_share: float) -> Iterator[str]:
    """The documents to measure bits per byte on."""
    return (text for text in documents if is_held_out(text, share=held_out_share))


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if _kind(file) in _KINDS)
    if _kind(require_file(path)) not in _KINDS:
        raise DataError(f"{path} is none of {', '.join(_KINDS)} (.gz allowed); rename or convert it.")
    return [path]


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _stream(files: Sequence[Path]) -> Iterator[str]:
    num_documents = 0
    for file in files:
        for text in _text_documents(file) if _kind(file) == ".txt" else _row_documents(file):
            if text.strip():
                num_documents += 1
                yield text
    if num_documents == 0:
        raise DataError(f"the corpus {[str(file) for file in files]} holds no text; name files that do.")


def _text_documents(path: Path) -> Iterator[str]:
    lines: list[str] = []
    num_characters = 0
    for _, line in read_text_lines(path):
        if num_characters >= TEXT_DOCUMENT_CHARACTERS and not line.strip():
            yield "".join(lines)
            lines, num_characters = [], 0
            continue
        if num_characters >= TEXT_DOCUMENT_MOST:
            yield "".join(lines)
            lines, num_characters = [], 0
        lines.append(line)
        num_characters += len(line)
    yield "".join(lines)


def _row_documents(path: Path) -> Iterator[str]:
    for row in read_rows(path):
        text = row.values.get("text")
        if not isinstance(text, str):
            raise row.error(
                f"no string field 'text' (fields: {sorted(row.values)}); rename the text's field."
            )
        yield text


def _ngrams(text: str) -> set[int]:
    return set(run_hashes(words_of(text), NGRAM_WORDS).tolist())
