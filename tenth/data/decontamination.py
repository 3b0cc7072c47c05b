"""Evaluation files as a set of 10-grams, and which of them a text holds.

Why: a text that shares ten words in a row with a test question may have taught its answer (R1,
arXiv:2501.12948v2, D.1: any match removes). Who drops a row wants to know which file it hit, and where.
In:  .jsonl, .json, .txt, .parquet (also .gz) in whatever shape the test is published: every text in a field
     that asks something is taken, with its context before it; on request the solutions, too. Directories are
     searched.
Out: `TestSet.find(text, subject)`: the first match or None.
Not here: dropping (survey.py). A question under ten words is found only where it is the whole subject.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenth.base.errors import DataError
from tenth.base.files import file_hash
from tenth.data.rows import MAX_ARRAY_BYTES, read_json_file, read_rows, read_text_lines
from tenth.data.shingles import NGRAM_WORDS, Hashes, run_hashes, words_and_signs_of, words_of
from tenth.data.user_rows import KINDS

# In the order in which they are asked: a question stands behind its story.
QUESTION_FIELDS = (
    *("context", "passage", "body", "premise", "sentence", "text", "instruction", "problem", "prompt"),
    *("question", "query", "input", "content", "value", "turns", "messages", "conversations"),
)
SOLUTION_FIELDS = ("solution", "canonical_solution", "rationale", "answer", "output", "completion", "target")
MAX_GRAMS = 50_000_000  # 16 bytes each
_DEPTH = 8  # of objects in objects


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFile:
    """One evaluation file."""

    path: Path
    fingerprint: str
    num_texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What was found: in which file (by number), which of its texts, and the words."""

    file: int
    text_number: int  # from 1
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """10-grams of all files and short questions as a whole, sorted, each with where it came from first."""

    files: tuple[TestFile, ...]
    grams: Hashes
    gram_origins: Hashes  # file << 32 | text number
    short: Mapping[int, int]  # hash of a whole short question -> origin

    def find(self, text: str, *, subject: str) -> Hit | None:
        """The first ten words of `text` that a test holds, or a short test that is all of `subject`."""
        if not self.files:
            return None
        words = words_of(text)
        runs = run_hashes(words, NGRAM_WORDS)
        if len(runs) and len(self.grams):
            places = np.minimum(np.searchsorted(self.grams, runs), len(self.grams) - 1)
            matches = np.flatnonzero(self.grams[places] == runs)
            if len(matches):
                start = int(matches[0])
                return _hit(int(self.gram_origins[places[start]]), words[start : start + NGRAM_WORDS])
        asked = words_and_signs_of(subject[: 40 * NGRAM_WORDS])  # longer is no short question
        origin = self.short.get(_whole(asked)) if asked else None
        return _hit(origin, asked) if origin is not None else None


def read_tests(paths: Sequence[Path], *, with_solutions: bool, ignore: str = "") -> TestSet:
    """All of these files, and the files in these directories, without the 10-grams of `ignore`.

    A prompt template that one test question quotes would otherwise remove every row that uses it.
    """
    files: list[TestFile] = []
    grams: list[Hashes] = []
    origins: list[Hashes] = []
    short: dict[int, int] = {}
    num_grams = 0
    for number, path in enumerate(file for each in paths for file in _files_of(each)):
        num_texts = 0
        for num_texts, text in enumerate(_texts(path, with_solutions=with_solutions), start=1):
            origin = number << 32 | num_texts
            runs = run_hashes(words_of(text), NGRAM_WORDS)
            asked = words_and_signs_of(text) if len(runs) == 0 else []
            if asked:
                short.setdefault(_whole(asked), origin)
            grams.append(runs)
            origins.append(np.full(len(runs), origin, dtype=np.uint64))
            num_grams += len(runs)
            if num_grams > MAX_GRAMS:
                raise DataError(f"{path}: over {MAX_GRAMS:,} 10-grams of test questions; name fewer files.")
        if num_texts == 0:
            raise DataError(
                f"{path} has no field that asks something (such as {', '.join(QUESTION_FIELDS[7:11])}); "
                "rename the questions' field or leave the file out."
            )
        files.append(TestFile(path=path, fingerprint=file_hash(path), num_texts=num_texts))
    ignored = run_hashes(words_of(ignore), NGRAM_WORDS)
    # the first of equal ones stays: unique() sorts stably
    unique, first = np.unique(np.concatenate([np.empty(0, np.uint64), *grams]), return_index=True)
    is_kept = ~np.isin(unique, ignored)
    return TestSet(
        files=tuple(files),
        grams=unique[is_kept],
        gram_origins=np.concatenate([np.empty(0, np.uint64), *origins])[first[is_kept]],
        short=short,
    )


def _hit(origin: int, words: list[str]) -> Hit:
    return Hit(file=origin >> 32, text_number=origin & 0xFFFFFFFF, words=" ".join(words))


def _whole(words: list[str]) -> int:
    return int(run_hashes(words, len(words))[0])


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) in KINDS)
    if not found:
        raise DataError(f"{path} holds no {', '.join(KINDS)} file to decontaminate against; name another.")
    return found


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _texts(path: Path, *, with_solutions: bool) -> Iterator[str]:
    if _kind(path) not in KINDS:
        raise DataError(f"{path} is none of {', '.join(KINDS)} (.gz allowed); convert it.")
    if _kind(path) == ".txt":
        yield _whole_file(path)
    elif _kind(path) == ".json":
        yield from _asked(read_json_file(path), with_solutions=with_solutions, depth=_DEPTH)
    else:
        for row in read_rows(path):
            yield from _asked(row.values, with_solutions=with_solutions, depth=_DEPTH)


def _whole_file(path: Path) -> str:
    lines: list[str] = []
    num_characters = 0
    for _, line in read_text_lines(path):
        lines.append(line)
        num_characters += len(line)
        if num_characters > MAX_ARRAY_BYTES:
            raise DataError(f"{path} is larger than {MAX_ARRAY_BYTES >> 20} MiB; no test is; split it.")
    return "".join(lines)


def _asked(value: Any, *, with_solutions: bool, depth: int) -> Iterator[str]:
    """Texts of all objects that ask something, however they are nested."""
    if depth == 0:
        return
    if isinstance(value, list):
        for item in value:
            yield from _asked(item, with_solutions=with_solutions, depth=depth - 1)
    if not isinstance(value, Mapping):
        return
    fields = {str(name).lower(): item for name, item in value.items()}
    question = "\n".join(text for name in QUESTION_FIELDS for text in _strings(fields.get(name)))
    if question.strip():
        yield question
        if with_solutions:
            yield from (text for name in SOLUTION_FIELDS for text in _strings(fields.get(name)))
    else:
        yield from _asked(list(value.values()), with_solutions=with_solutions, depth=depth - 1)


def _strings(value: Any) -> Iterator[str]:
    """A text, texts, or the contents of messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, str):
                yield item
            elif isinstance(item, Mapping) and item.get("role", item.get("from")) in ("user", "human"):
                yield from _strings(item.get("content", item.get("value")))
