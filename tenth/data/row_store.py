"""Rows of a survey on disk: those that may stay, and a line about each one that may not.

Why: a corpus is larger than memory. A row costs a few numbers here, whatever its length.
In:  items and faults in order, a folder.  Out: any row again by its number; dropped rows as JSON lines.
Not here: judging (survey.py).
"""

import json
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from tenth.base.files import text_hash
from tenth.data.near_duplicates import SignatureFile
from tenth.data.user_rows import Fault, Item, Kind, Rule

EXAMPLES = 5  # of each rule that are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A row that is left out."""

    row_id: str
    file: int  # counted from 0
    fault: Fault


class Drops:
    """All of them as lines of a file, their counts and a few examples in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self.counts: Counter[Rule] = Counter()
        self.examples: defaultdict[Rule, list[Fault]] = defaultdict(list)

    def add(self, drop: Drop) -> None:
        """One more."""
        fault = drop.fault
        row = {"id": drop.row_id, "rule": fault.rule, "place": fault.place, "detail": fault.detail}
        self._file.write(json.dumps(row) + "\n")
        self.counts[fault.rule] += 1
        if len(self.examples[fault.rule]) < EXAMPLES:
            self.examples[fault.rule].append(fault)

    def close(self) -> None:
        """No more."""
        self._file.close()

    def total(self) -> int:
        """Over all rules."""
        return self.counts.total()

    def by_rule(self) -> dict[str, int]:
        """Counts in the order in which the rules are asked."""
        return {str(rule): self.counts[rule] for rule in Rule if self.counts[rule]}


class RowStore:
    """Rows that passed by themselves, on disk, with a few numbers each in memory."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "rows").open("w+b")
        self.signatures = SignatureFile(folder / "signatures")
        self._offsets = array("q")
        self.row_ids = array("Q")
        self.files = array("H")
        self.subjects = array("q")  # which distinct subject a row has
        self._subject_numbers: dict[int, int] = {}
        self._subject_rows = array("q")  # the first row of each subject
        self.subject_keys = array("Q")  # hash of each subject

    def add(self, item: Item, *, file: int, row_id: int) -> None:
        """The next row."""
        line = json.dumps(
            [item.place, item.kind, item.values, item.prompt, item.answer, item.rejected], ensure_ascii=False
        ).encode()
        key = int(text_hash(normal(item.subject)), 16)
        if key not in self._subject_numbers:
            self._subject_numbers[key] = len(self._subject_rows)
            self._subject_rows.append(len(self._offsets))
            self.subject_keys.append(key)
            self.signatures.add(item.subject)
        self.subjects.append(self._subject_numbers[key])
        self._offsets.append(self._file.seek(0, 2))
        self._file.write(line + b"\n")
        self.row_ids.append(row_id)
        self.files.append(file)

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, number: int) -> Item:
        """A row again."""
        self._file.seek(self._offsets[number])
        place, kind, values, prompt, answer, rejected = json.loads(self._file.readline())
        return Item(
            place=place, kind=Kind(kind), values=values, prompt=prompt, answer=answer, rejected=rejected
        )

    def row_of_subject(self, subject: int) -> int:
        """The first row that has it."""
        return self._subject_rows[subject]

    def close(self) -> None:
        """Nothing more will be read."""
        self._file.close()


def normal(text: str) -> str:
    """What exact duplicates share: everything but the width of white space."""
    return " ".join(text.split())
