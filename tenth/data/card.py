"""The data card: what went in, what was left out and why, what came out. As values and as a page.

Why: a number in a report is worth what is known about the data behind it (R1, arXiv:2501.12948v2, table 5 and
D.1 do as much for theirs).
In:  a survey, the tests, the parts that were written.
Out: `card.json`'s values, the same for the same files; `card.md`'s text.
Not here: judging (survey.py), writing (prepare.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenth.base.files import file_hash
from tenth.data.decontamination import TestSet
from tenth.data.lineage import Lineage
from tenth.data.survey import Survey
from tenth.data.user_rows import Item

_PHRASES = 5  # the matches that removed most rows: a template shows up here
_EXAMPLES = 3
_DETAIL_CHARACTERS = 160


@dataclass(kw_only=True)
class Part:
    """Counts of one file that was written."""

    num_rows: int = 0
    num_characters: int = 0
    num_tokens: int | None = None
    num_rearranged: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    lineage: Lineage = field(default_factory=Lineage)

    def add(self, item: Item, *, num_tokens: int | None, is_rearranged: bool) -> None:
        """One more row."""
        self.num_rows += 1
        self.num_characters += len(item.text)
        self.num_rearranged += is_rearranged
        self.kinds[item.kind] += 1
        self.lineage.add(item)
        if num_tokens is not None:
            self.num_tokens = (self.num_tokens or 0) + num_tokens

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "rows": self.num_rows,
            "characters": self.num_characters,
            "tokens": self.num_tokens,
            "fill_in_middle": self.num_rearranged,
            "kinds": dict(sorted(self.kinds.items())),
            "synthetic": self.lineage.shown(),
        }


def describe(
    found: Survey,
    tests: TestSet,
    *,
    settings: Mapping[str, Any],
    licences: Sequence[str | None],
    parts: Mapping[str, Part],
) -> dict[str, Any]:
    """Everything the card says, as plain values."""
    return {
        "settings": dict(settings),
        "sources": [
            {
                "file": facts.path.name,
                "hash": file_hash(facts.path),
                "bytes": facts.path.stat().st_size,
                "licence": licence,
                "rows": facts.num_rows,
                "kinds": dict(sorted(facts.kinds.items())),
            }
            for facts, licence in zip(found.files, licences, strict=True)
        ],
        "rows_read": sum(facts.num_rows for facts in found.files),
        "dropped": found.drops.by_rule(),
        "examples": {
            str(rule): [
                {"place": fault.place, "detail": fault.detail[:_DETAIL_CHARACTERS]}
                for fault in faults[:_EXAMPLES]
            ]
            for rule, faults in sorted(found.drops.examples.items())
        },
        "decontamination": decontamination(found, tests),
        "parts": {name: part.shown() for name, part in parts.items()},
    }


def decontamination(found: Survey, tests: TestSet) -> dict[str, Any]:
    """Which test hit how often; None where nothing was compared."""
    if not tests.files:
        return {"done": False}
    return {
        "done": True,
        "files": [
            {
                "file": test.path.name,
                "hash": test.fingerprint,
                "texts": test.num_texts,
                "rows_removed": found.hits[number],
            }
            for number, test in enumerate(tests.files)
        ],
        "most_frequent": [
            {"words": words, "rows": count}
            for words, count in sorted(found.phrases.items(), key=lambda pair: (-pair[1], pair[0]))[:_PHRASES]
        ],
    }


def write_card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    lines = ["# Data card", "", "## Sources", "", "| file | hash | licence | rows |", "|---|---|---|--:|"]
    lines += [
        f"| {_cell(source['file'])} | {source['hash']} | {_cell(source['licence'] or 'not given')} "
        f"| {source['rows']:,} |"
        for source in card["sources"]
    ]
    lines += [
        "",
        "## Parts",
        "",
        "| part | rows | characters | tokens | synthetic |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, part in card["parts"].items():
        tokens = "not counted" if part["tokens"] is None else f"{part['tokens']:,}"
        lines.append(
            f"| {name} | {part['rows']:,} | {part['characters']:,} | {tokens} "
            f"| {part['synthetic']['with_lineage']:,} |"
        )
    lines += ["", "The split follows from the content of each cluster of near-duplicates and equal prompts."]
    lines += _dropped_text(card) + _tests_text(card["decontamination"]) + _synthetic_text(card["parts"])
    return "\n".join(lines) + "\n"


def _dropped_text(card: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Dropped", "", f"{sum(card['dropped'].values()):,} of {card['rows_read']:,} rows.", ""]
    for rule, count in card["dropped"].items():
        lines.append(f"- {rule}: {count:,}")
        lines += [f"  - {_cell(each['place'])}: {_cell(each['detail'])}" for each in card["examples"][rule]]
    return lines


def _tests_text(report: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Decontamination", ""]
    if not report["done"]:
        return [*lines, "**Not decontaminated**: no evaluation files were named."]
    lines += ["| evaluation file | texts | rows removed |", "|---|--:|--:|"]
    lines += [
        f"| {_cell(each['file'])} | {each['texts']:,} | {each['rows_removed']:,} |"
        for each in report["files"]
    ]
    lines += [
        "",
        "Rows that share a 10-gram with a test go; a row counts for the first match. Most frequent:",
        "",
    ]
    return lines + [f"- {_cell(each['words'])}: {each['rows']:,}" for each in report["most_frequent"]]


def _synthetic_text(parts: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Synthetic rows", ""]
    for name, part in parts.items():
        counts = part["synthetic"]
        models = ", ".join(f"{_cell(model)} {count:,}" for model, count in counts["models"].items()) or "none"
        lines.append(f"- {name}: with lineage {counts['with_lineage']:,} (by model: {models})")
        lines += [f"  - without {what}: {count:,}" for what, count in counts["missing"].items()]
        if counts["without_lineage"]:
            lines.append(f"  - claim to be synthetic and have no lineage: {counts['without_lineage']:,}")
    return lines


def _cell(text: str) -> str:
    """Somebody's text in one line of a table."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown.replace("|", "\\|").replace("<", "&lt;")
