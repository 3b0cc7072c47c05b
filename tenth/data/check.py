"""`tenth data check`: what is wrong with files that are about to be trained on. Reads only.

Why: a leak found after training costs the training. Each file counts as one part (train, validation, ...), so
what two files share is a leak, and what one file repeats is only a fact.
In:  files, evaluation files.  Out: `Findings`: facts, and problems with their places.
Not here: what is judged (survey.py), words and exit code (cli/data.py).
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tenth.data.decontamination import read_tests
from tenth.data.lineage import Lineage
from tenth.data.prepare import PrepareSettings
from tenth.data.row_store import EXAMPLES
from tenth.data.survey import HeldOut, Survey, survey
from tenth.data.user_rows import Rule

OVERLAP = "in two files"
FACTS = (Rule.EXACT, Rule.NEAR)  # wasteful, but no leak


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One kind of trouble: how many rows, and where the first ones are."""

    name: str
    count: int
    examples: tuple[str, ...]
    is_leak: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSummary:
    """One file in a line of a table."""

    path: Path
    num_rows: int
    kinds: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything `tenth data check` prints."""

    files: tuple[FileSummary, ...]
    problems: tuple[Problem, ...]
    test_hits: tuple[tuple[str, int, int], ...]  # evaluation file, its texts, rows that hit it first
    phrase: tuple[str, int]  # the ten words that most rows share with a test, and how many do
    lineage: Lineage

    @property
    def is_clean(self) -> bool:
        """Whether nothing speaks against training on it."""
        return not any(problem.is_leak for problem in self.problems)


def check(
    paths: Sequence[Path], *, against: Sequence[Path], settings: PrepareSettings, held_out: HeldOut
) -> Findings:
    """Judge the files as `prepare` would, and what they share."""
    tests = read_tests(against, with_solutions=settings.solutions, ignore=settings.ignore)
    with tempfile.TemporaryDirectory(prefix="tenth-data-") as folder:
        found = survey(
            paths,
            folder=Path(folder),
            tests=tests,
            threshold=settings.near_threshold,
            lengths=(settings.min_characters, settings.max_characters),
            held_out=held_out,
        )
        lineage = Lineage()
        for _, item in found.items():
            lineage.add(item)
        problems = (*_problems(found), *_overlap(found))
        found.store.close()
    return Findings(
        files=tuple(
            FileSummary(path=facts.path, num_rows=facts.num_rows, kinds=facts.kinds) for facts in found.files
        ),
        problems=problems,
        test_hits=tuple(
            (test.path.name, test.num_texts, found.hits[number]) for number, test in enumerate(tests.files)
        ),
        phrase=max(found.phrases.items(), key=lambda pair: pair[1], default=("", 0)),
        lineage=lineage,
    )


def _problems(found: Survey) -> list[Problem]:
    return [
        Problem(
            name=str(rule),
            count=found.drops.counts[rule],
            examples=tuple(f"{fault.place}: {fault.detail}" for fault in found.drops.examples[rule]),
            is_leak=rule not in FACTS,
        )
        for rule in Rule
        if found.drops.counts[rule]
    ]


def _overlap(found: Survey) -> list[Problem]:
    """Rows whose prompt, document or near-duplicate stands in an earlier file."""
    first_rows: dict[int, int] = {}
    count = found.num_copies
    examples = [f"{place}: as {other}" for other, place in found.copies]
    for row, group in enumerate(found.groups):
        first = first_rows.setdefault(group, row)
        if found.store.files[first] != found.store.files[row]:
            count += 1
            if len(examples) < EXAMPLES:
                examples.append(f"{found.store.read(row).place}: near {found.store.read(first).place}")
    if not count:
        return []
    return [Problem(name=OVERLAP, count=count, examples=tuple(examples), is_leak=True)]
