"""The sections of an R1 run's page about what its models learn from: training sets and reward models.

Why: a set is its filter: what was dropped, by which rule, with examples, says more than what was kept.
DeepSeek-R1 (arXiv:2501.12948v2), table 5 and B.3.
In:  `Facts` of an R1 run in any state.  Out: `Html`, or None where no stage has ended yet.
Not here: making the sets and counting (pipeline/sample_card.py, pipeline/reward_model.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tenth.base.errors import DataError
from tenth.base.files import read_json
from tenth.reports.facts import Facts
from tenth.reports.markup import Html, element, join, table
from tenth.reports.runs import Stage
from tenth.reports.stages import COLD_START_DATA, REJECTION_DATA, REWARD_MODELS, STUDENT_DATA

DATA_STAGES = {
    COLD_START_DATA: "Cold start: R1-Zero's answers, rewritten",
    REJECTION_DATA: "Rejection sampling: Dev2's answers, and general data",
    STUDENT_DATA: "For the student: R1's answers",
}
T = TypeVar("T")
_Z95 = 1.959964  # two-sided 95 % of the normal distribution


def data_section(facts: Facts) -> Html | None:
    """The three training sets, each with its counts and what was dropped."""
    stages = [(stage, title) for name, title in DATA_STAGES.items() if (stage := facts.run.stage(name))]
    cards = [card for stage, title in stages if (card := _card(stage, title))]
    if not cards:
        return None
    note = (
        "A sample is dropped by the first rule that it breaks; “surplus” is right and readable but one more "
        "than its question may give, “balance” one more than its domain may."
    )
    return join([element("h2", "What the models learn from"), *cards, element("p", note, class_="note")])


def reward_models_section(facts: Facts) -> Html | None:
    """How often either reward model is right on what it has not seen, beside rules that need no model."""
    stage = facts.run.stage(REWARD_MODELS)
    path = stage.path / "scores.json" if stage else None
    if path is None or not path.exists():
        return None
    rows = _read(path, lambda value: [_reward_row(kind, scores) for kind, scores in value.items()])
    head = ("model", "accuracy", "longer wins", "shorter wins", "held out", "trained on")
    note = (
        "In %, on prompts that no training pair shares; below an accuracy its 95% interval (Wilson's, the "
        "held-out examples taken as independent). The helpful model sees the summary alone and compares "
        "pairs; the safe one sees everything and labels single answers, so its “longer wins” is how often a "
        "safe answer is longer than an unsafe one."
    )
    return join([element("h2", "Reward models"), table(head, rows), element("p", note, class_="note")])


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` independent trials (Wilson, 1927)."""
    square = _Z95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _card(stage: Stage, title: str) -> Html | None:
    path = stage.path / "card.json"
    if not path.exists():
        return None
    rows, counts = _read(path, lambda card: (_domain_rows(card), _counts(stage, card)))
    head = ("domain", "samples", "of samples, %", "of tokens, %", "average tokens", "average rounds")
    return join(
        [
            element("h3", title),
            element("p", counts),
            table(head, rows) if rows else None,
            _drops(stage),
        ]
    )


def _read(path: Path, describe: Callable[[Any], T]) -> T:
    """What `describe` makes of a file; one sentence where the file is not what its stage writes."""
    try:
        return describe(read_json(path))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{path} is not what its stage writes ({type(error).__name__}: {error}); delete the stage's "
            "DONE.json and run it again."
        ) from error


def _domain_rows(card: Mapping[str, Any]) -> list[list[object]]:
    rows = [_domain_row(name, row) for name, row in card["domains"].items()]
    return [*rows, [element("b", "total"), *_domain_row("total", card["total"])[1:]]] if rows else []


def _counts(stage: Stage, card: Mapping[str, Any]) -> str:
    languages = ", ".join(f"{name} {count:,}" for name, count in card["languages"].items())
    told = f"Languages: {languages or 'none'}."
    summary = stage.done.summary if stage.done else {}
    if not summary.get("sampled"):
        return told
    share = summary["kept"] / summary["sampled"]
    general = f" {summary['general']:,} general conversations beside them." if summary.get("general") else ""
    return (
        f"{summary['kept']:,} of {summary['sampled']:,} sampled answers kept ({share:.1%}).{general} {told}"
    )


def _domain_row(name: str, row: Mapping[str, Any]) -> list[object]:
    if not row["samples"]:
        return [name, "0", "–", "–", "–", "–"]
    return [
        name,
        f"{row['samples']:,}",
        f"{row['share_samples'] * 100:.1f}",
        f"{row['share_tokens'] * 100:.1f}",
        f"{row['average_tokens']:.1f}",
        f"{row['average_rounds']:.1f}",
    ]


def _drops(stage: Stage) -> Html | None:
    path = stage.path / "dropped.json"
    sampled = stage.done.summary.get("sampled") if stage.done else None
    rows = _read(path, lambda dropped: _drop_rows(dropped, sampled)) if path.exists() else []
    if not rows:
        return None
    total = sum(count for count, _ in rows)
    return element(
        "details",
        element("summary", f"{total:,} dropped, by {_rules(len(rows))}, with an example of each"),
        table(("rule", "samples", "of sampled, %", "for example"), (row for _, row in rows), class_="drops"),
    )


def _drop_rows(dropped: Mapping[str, Any], sampled: int | None) -> list[tuple[int, tuple[object, ...]]]:
    """How many each rule has dropped, and its row."""
    return [
        (
            row["samples"],
            (
                rule,
                f"{row['samples']:,}",
                f"{row['samples'] / sampled * 100:.1f}" if sampled else "–",
                element("pre", row["examples"][0]) if row.get("examples") else "–",
            ),
        )
        for rule, row in dropped.items()
    ]


def _rules(count: int) -> str:
    return "one rule" if count == 1 else f"{count} rules"


def _reward_row(kind: str, scores: Mapping[str, Any]) -> Sequence[object]:
    low, high = wilson_interval(scores["accuracy"], scores["held_out"])
    accuracy = [
        f"{scores['accuracy'] * 100:.1f}",
        element("span", f"{low * 100:.1f} to {high * 100:.1f}", class_="small"),
    ]
    baselines = (f"{scores[name] * 100:.1f}" for name in ("longer_wins", "shorter_wins"))
    return (kind, join(accuracy), *baselines, f"{scores['held_out']:,}", f"{scores['training']:,}")
