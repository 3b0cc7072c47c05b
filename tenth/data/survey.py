"""One pass over a user's files: every row judged by itself and beside all others.

Why: `tenth data prepare` drops what `tenth data check` reports; both must see the same facts.
In:  files, evaluation files, a folder for what does not fit into memory.
Out: `Survey`: the rows that may stay, the dropped ones with rule and reason, clusters of near-duplicates.
Memory: a few hundred bytes a row, beside what one row and the test questions take.
Not here: files out (prepare.py), the card (card.py), words about it (cli/data.py).
"""

import functools
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tenth.base.errors import DataError
from tenth.base.files import text_hash
from tenth.data.corpus import is_held_out
from tenth.data.decontamination import TestSet
from tenth.data.final_answers import final_answer
from tenth.data.near_duplicates import find_clusters, jaccard, shingles
from tenth.data.row_store import EXAMPLES, Drop, Drops, RowStore, normal
from tenth.data.shingles import Hashes
from tenth.data.user_rows import Fault, Item, Rule, scan

_KEPT_COMPARED = 64  # of a cluster, with which each further row is compared
_CACHED_SHINGLES = 256
HeldOut = Callable[[Item], str | None]  # why a row must not be trained on


@dataclass(kw_only=True)
class FileFacts:
    """What one file holds."""

    path: Path
    num_rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class Survey:
    """Everything that is known. `kept` and `drops` together are all rows."""

    files: list[FileFacts]
    store: RowStore
    drops: Drops
    kept: "array[int]"  # numbers in the store, in order
    groups: "array[int]"  # of each stored row: the first subject of its cluster
    hits: Counter[int] = field(default_factory=Counter)  # test file -> rows
    phrases: Counter[str] = field(default_factory=Counter)  # the words that matched -> rows
    copies: list[tuple[str, str]] = field(default_factory=list)  # equal rows in two files
    num_copies: int = 0

    def items(self) -> Iterator[tuple[int, Item]]:
        """The kept rows with their numbers."""
        return ((number, self.store.read(number)) for number in self.kept)


def survey(
    paths: Sequence[Path],
    *,
    folder: Path,
    tests: TestSet,
    threshold: float,
    lengths: tuple[int, int],
    held_out: HeldOut,
) -> Survey:
    """Judge every row. `lengths` are the fewest and most characters of a row."""
    found = Survey(
        files=[FileFacts(path=path) for path in paths],
        store=RowStore(folder),
        drops=Drops(folder / "dropped"),
        kept=array("q"),
        groups=array("q"),
    )
    seen: dict[int, str] = {}
    for file, facts in enumerate(found.files):
        for row in scan(facts.path):
            facts.num_rows += 1
            if isinstance(row, Item):
                facts.kinds[row.kind] += 1
                row_id = _row_id(row)
                judged = _judge(row, lengths=lengths, held_out=held_out)
                judged = (
                    judged
                    or _repeated(row, row_id, seen, facts, found)
                    or _contaminated(row, found, tests=tests)
                )
                if judged is None and (judged := _store(row, found.store, file=file, row_id=row_id)):
                    del seen[row_id]  # a readable copy may follow
            else:
                judged, row_id = row, int(text_hash(row.place), 16)
            if judged is not None:
                found.drops.add(Drop(row_id=f"{row_id:016x}", file=file, fault=judged))
        if facts.num_rows == 0:
            raise DataError(f"{facts.path} holds no rows; leave it out or name another.")
    _compare(found, threshold=threshold)
    found.drops.close()
    return found


def _judge(row: Item, *, lengths: tuple[int, int], held_out: HeldOut) -> Fault | None:
    fewest, most = lengths
    if not fewest <= len(row.text) <= most:
        detail = f"{len(row.text)} characters"
        return Fault(place=row.place, rule=Rule.LENGTH, detail=detail)
    reason = held_out(row)
    return Fault(place=row.place, rule=Rule.HELD_OUT, detail=reason) if reason else None


def _repeated(row: Item, row_id: int, seen: dict[int, str], facts: FileFacts, found: Survey) -> Fault | None:
    if row_id in seen:
        if not seen[row_id].startswith(f"{facts.path}, "):
            found.num_copies += 1
            if len(found.copies) < EXAMPLES:
                found.copies.append((seen[row_id], row.place))
        return Fault(place=row.place, rule=Rule.EXACT, detail=f"as {seen[row_id]}")
    seen[row_id] = row.place
    return None


def _contaminated(row: Item, found: Survey, *, tests: TestSet) -> Fault | None:
    hit = tests.find(row.text, subject=row.subject)
    if hit is None:
        return None
    found.hits[hit.file] += 1
    found.phrases[hit.words] += 1
    where = f"{tests.files[hit.file].path.name}, text {hit.text_number}"
    return Fault(place=row.place, rule=Rule.CONTAMINATED, detail=f"'{hit.words}' stands in {where}")


def _store(row: Item, store: RowStore, *, file: int, row_id: int) -> Fault | None:
    try:
        store.add(row, file=file, row_id=row_id)
    except (TypeError, ValueError, RecursionError) as error:  # bytes of Parquet, a lone surrogate, too deep
        return Fault(place=row.place, rule=Rule.UNREADABLE, detail=f"cannot be written as JSON: {error}")
    return None


def _row_id(row: Item) -> int:
    return int(text_hash(*map(normal, (row.prompt, row.answer, row.rejected))), 16)


class _Comparison:
    """The rows that passed by themselves, beside each other."""

    def __init__(self, store: RowStore, *, threshold: float) -> None:
        self.store, self.threshold = store, threshold
        # texts are read again for each comparison; neighbours of a cluster come one after the other
        self._runs = functools.lru_cache(maxsize=_CACHED_SHINGLES)(self._read_runs)

    def _read_runs(self, row: int, part: str) -> Hashes:
        return shingles(getattr(self.store.read(row), part))

    def similarity(self, one: int, other: int) -> float:
        """Of two subjects."""
        rows = (self.store.row_of_subject(one), self.store.row_of_subject(other))
        return jaccard(*(self._runs(row, "subject") for row in rows))

    def twin(self, row: int, earlier: Sequence[int]) -> int | None:
        """An earlier row that asks nearly the same and is answered nearly alike, short answers equal."""
        final = final_answer(self.store.read(row))
        for other in earlier[-_KEPT_COMPARED:]:
            one, two = self.store.subjects[row], self.store.subjects[other]
            if (
                (one == two or self.similarity(one, two) >= self.threshold)
                and final == final_answer(self.store.read(other))
                and all(self._part_similarity(row, other, part) for part in ("answer", "rejected"))
            ):
                return other
        return None

    def _part_similarity(self, row: int, other: int, part: str) -> bool:
        return jaccard(self._runs(row, part), self._runs(other, part)) >= self.threshold


def _compare(found: Survey, *, threshold: float) -> None:
    """Contradictions, then near-duplicates, among the rows that are left."""
    store = found.store
    comparison = _Comparison(store, threshold=threshold)
    contradicting = _contradictions(store)
    clusters = find_clusters(store.signatures.close(), threshold=threshold, similarity=comparison.similarity)
    found.groups = array("q", (clusters.first_of(subject) for subject in store.subjects))
    sizes = Counter(found.groups)
    kept_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(found.groups):
        subject = store.subjects[row]
        if subject in contradicting:
            rule, detail = Rule.CONTRADICTION, contradicting[subject]
        elif sizes[group] == 1:
            found.kept.append(row)
            continue
        else:
            twin = comparison.twin(row, kept_of[group])
            if twin is None:
                found.kept.append(row)
                kept_of[group].append(row)
                continue
            rule, detail = Rule.NEAR, f"as {store.read(twin).place}"
        fault = Fault(place=store.read(row).place, rule=rule, detail=detail)
        found.drops.add(Drop(row_id=f"{store.row_ids[row]:016x}", file=store.files[row], fault=fault))


def _contradictions(store: RowStore) -> Mapping[int, str]:
    """Subjects that are answered in more than one way, with the first two answers."""
    answers: dict[int, tuple[str, str]] = {}  # subject -> final answer, place
    found: dict[int, str] = {}
    for row in range(len(store)):
        item = store.read(row)
        final = final_answer(item)
        if final is None:
            continue
        subject = store.subjects[row]
        first, place = answers.setdefault(subject, (final, item.place))
        if first != final:
            found.setdefault(subject, f"'{first[:40]}' in {place}, '{final[:40]}' in {item.place}")
    return found


def sides_of(found: Survey, *, share: float) -> Callable[[int], bool]:
    """Whether a row is held out: by the content of its cluster alone, so a cluster is never divided."""
    least: dict[int, int] = {}
    for subject, group in zip(found.store.subjects, found.groups, strict=True):
        key = found.store.subject_keys[subject]
        least[group] = min(key, least.get(group, key))
    return lambda row: is_held_out(f"{least[found.groups[row]]:016x}", share=share)
