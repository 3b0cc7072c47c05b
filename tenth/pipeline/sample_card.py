"""A set of training samples, and beside it what it is made of, what was left out and why.

Why: a set that nobody can account for cannot be trusted or mended, and an empty one must say which rule
emptied it. The table is that of DeepSeek-R1 (arXiv:2501.12948v2), table 5.
In:  rows as data/conversations.py reads them, with `domain`, `language`, `lineage`; what was dropped.
Out: samples.jsonl, card.json, card.md, dropped.json.
Not here: deciding what is dropped (sample_filter.py).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tenth.base.errors import RunError
from tenth.base.files import write_json, write_lines, write_whole
from tenth.base.records import Message, Problem, Role

SAMPLES = "samples.jsonl"
Row = Mapping[str, Any]

_EXAMPLES_PER_RULE = 2
_EXAMPLE_CHARS = 300
_SENTENCE_CHARS = 60  # of an example inside an error's sentence
_TOTAL = "total"


class Drops:
    """What was left out, by the first rule that it broke, with an example or two of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, rule: str, text: str) -> None:
        """One more."""
        self.counts[rule] += 1
        shown, example = self.examples.setdefault(rule, []), _shortened(text, _EXAMPLE_CHARS)
        if len(shown) < _EXAMPLES_PER_RULE and example not in shown:
            shown.append(example)

    def absorb(self, other: "Drops", *, prefix: str) -> None:
        """Those of a later filter, under names of their own."""
        for rule, count in other.counts.items():
            self.counts[prefix + rule] += count
            self.examples.setdefault(prefix + rule, other.examples[rule])

    def to_dict(self) -> dict[str, Any]:
        """The most frequent rule first."""
        return {
            rule: {"samples": count, "examples": self.examples[rule]}
            for rule, count in self.counts.most_common()
        }

    def nothing_left(self, what: str, *, advice: str) -> RunError:
        """The error of a filter that kept nothing."""
        rules = ", ".join(
            f"{rule} {count} (such as {_shortened(self.examples[rule][0], _SENTENCE_CHARS)!r})"
            for rule, count in self.counts.most_common()
        )
        total = self.counts.total()
        return RunError(f"{what} kept none of {total:,} samples; dropped were: {rules or 'none'}; {advice}")


def sample_row(
    messages: Sequence[Message], text: str, problem: Problem, *, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    """A conversation to learn from: what was asked, and `text` as the answer."""
    turns = [*messages, Message(role=Role.ASSISTANT, content=text)]
    return {
        "messages": [{"role": str(turn.role), "content": turn.content} for turn in turns],
        "domain": problem.task,
        "language": problem.language,
        "lineage": {**lineage, "problem_id": problem.problem_id},
    }


def write_set(
    directory: Path,
    rows: Sequence[Row],
    *,
    tokens_of: Callable[[Row], int],
    drops: Drops,
    paid: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """The rows, and beside them what they are and what was dropped.

    `tokens_of`: how many tokens a row's conversation has; `paid`: the `model` behind an endpoint that helped,
    and the `usd` that the run has paid for it; `notes`: sentences about the set.
    """
    write_lines(directory / SAMPLES, rows)
    tokens = [tokens_of(row) for row in rows]
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["domain"], []).append(place)

    def described(members: Sequence[int]) -> dict[str, Any]:
        return {
            "samples": len(members),
            "average_rounds": fmean(_rounds(rows[place]) for place in members),
            "average_tokens": fmean(tokens[place] for place in members),
            "share_samples": len(members) / len(rows),
            "share_tokens": sum(tokens[place] for place in members) / max(1, sum(tokens)),
        }

    card: dict[str, Any] = {
        "domains": {domain: described(members) for domain, members in sorted(places.items())},
        _TOTAL: described(range(len(rows))) if rows else {"samples": 0},
        "languages": dict(sorted(Counter(row["language"] for row in rows).items())),
        "dropped": dict(drops.counts.most_common()),
        **({} if paid is None else {"paid": dict(paid)}),
        **({"notes": list(notes)} if notes else {}),
    }
    write_json(directory / "card.json", card)
    write_json(directory / "dropped.json", drops.to_dict())
    write_whole(directory / "card.md", _markdown(card, drops).encode())


def _rounds(row: Row) -> int:
    return sum(message["role"] == Role.ASSISTANT for message in row["messages"])


def _markdown(card: Mapping[str, Any], drops: Drops) -> str:
    lines = [
        "# Samples",
        "",
        "| domain | samples | average rounds | average tokens | share of samples | share of tokens |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_table_row(domain, row) for domain, row in card["domains"].items()]
    if card["domains"]:
        lines.append(_table_row(_TOTAL, card[_TOTAL]))
    lines += ["", "Languages: " + ", ".join(f"{name} {count:,}" for name, count in card["languages"].items())]
    if "paid" in card:
        lines += ["", f"Asked of {card['paid']['model']} in this run: ${card['paid']['usd']:.4f} so far"]
    lines += [line for note in card.get("notes", ()) for line in ("", note)]
    lines += ["", "## Dropped, by the first rule that was broken", ""]
    for rule, count in drops.counts.most_common():
        lines.append(f"- **{rule}**: {count:,}")
        # Indented code: whatever a sample holds, it stays text.
        lines += ["", *(f"      {each!r}" for each in drops.examples[rule]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table_row(name: str, row: Mapping[str, Any]) -> str:
    return (
        f"| {name} | {row['samples']:,} | {row['average_rounds']:.1f} | {row['average_tokens']:.1f} | "
        f"{row['share_samples']:.1%} | {row['share_tokens']:.1%} |"
    )


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
