"""The table of `tenth eval`: models below one another, suite by suite, as text on a terminal and as Markdown.

In:  `Line`s: whose score it is.  Out: a rich table; Markdown; plain rows for results.json.
Not here: what the numbers are (rollout/suite_scores.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tenth.base.units import show_count

if TYPE_CHECKING:
    from tenth.rollout.suite_scores import SuiteScore

COLUMNS = (
    "suite",
    "model",
    "pass@1 [95 %]",
    "asked",
    "unread",
    "cut",
    "failed",
    "tokens in/cached/out",
    "s p50/p90",
    "tok/s",
    "USD",
)
WIDTH = 144  # of a terminal that shows all of a line
_MAX_NAME = 20
NOTE = (
    "pass@1 over k answers per question, interval over questions; unread: no answer found in the text; cut: "
    "by its length; tokens are means per answer, thinking included in out; s: from asking to the whole "
    "answer, of a model in this process that of its whole batch; tok/s: written by all answers together; "
    "failed: no usable answer, or its verifier failed: in no mean."
)
_EXTRA = {
    "prompt_strict": "prompts strict",
    "prompt_loose": "prompts loose",
    "instruction_strict": "instructions strict",
    "instruction_loose": "instructions loose",
    "accuracy_per_byte": "accuracy per byte",
    "perplexity_per_word": "perplexity per word",
    "perplexity_per_token": "perplexity per token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Whose score."""

    model: str
    score: "SuiteScore"
    is_priced: bool  # whether dollars are known

    def cells(self) -> tuple[str, ...]:
        """As the table shows them."""
        score = self.score
        return (
            score.suite,
            self.model[:_MAX_NAME],
            _interval(score),
            f"{score.problems}×{score.samples / max(1, score.problems):g}",
            _percent(score.unparsed),
            _percent(score.truncated),
            str(score.errors + score.verifier_errors),
            "/".join(show_count(round(value)) for value in _tokens(score)),
            _seconds(score),
            "–" if not score.tokens_per_second else f"{score.tokens_per_second:,.0f}",
            f"{score.usd:.3g}" if self.is_priced else "–",
        )

    def to_dict(self) -> dict[str, Any]:
        """A row of results.json."""
        return {
            "model": self.model,
            **self.score.to_dict(),
            "usd": self.score.usd if self.is_priced else None,
        }


def by_suite(lines: Sequence[Line]) -> list[Line]:
    """All models of a suite next to each other, suites in the order they were asked."""
    order = list(dict.fromkeys(line.score.suite for line in lines))
    return sorted(lines, key=lambda line: order.index(line.score.suite))


def rich_tables(lines: Sequence[Line], *, width: int) -> list[Table]:
    """For a terminal: one table, or where that is too narrow, what was answered and what it took."""
    half = COLUMNS.index("tokens in/cached/out")
    everything = range(2, len(COLUMNS))
    parts = [everything] if width >= WIDTH else [everything[: half - 2], everything[half - 2 :]]
    return [_table(lines, (0, 1, *part)) for part in parts]


def _table(lines: Sequence[Line], columns: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number in columns:
        table.add_column(
            COLUMNS[number], justify="left" if number < 2 else "right", overflow="fold", no_wrap=number > 1
        )
    before = None
    for line in by_suite(lines):
        cells = line.cells()
        table.add_row("" if cells[0] == before else cells[0], *(cells[number] for number in columns[1:]))
        before = cells[0]
    return table


def extras(lines: Sequence[Line]) -> list[str]:
    """What only some suites have, and why answers failed, one sentence each."""
    said = []
    for line in by_suite(lines):
        parts = [
            f"{_EXTRA[name]} {value:,.4g}" if "perplexity" in name else f"{_EXTRA[name]} {value:.1%}"
            for name, value in line.score.more.items()
            if name in _EXTRA
        ]
        if parts:
            said.append(f"{line.score.suite}, {line.model}: {', '.join(parts)}.")
        if line.score.failure is not None:
            failed = line.score.errors + line.score.verifier_errors
            said.append(
                f"{line.score.suite}, {line.model}: {failed} failed, most often: {line.score.failure}"
            )
    return said


def markdown(lines: Sequence[Line], *, settings: str) -> str:
    """results.md."""
    rows = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    rows += ["| " + " | ".join(line.cells()) + " |" for line in by_suite(lines)]
    return "\n".join([*rows, "", *(f"- {each}" for each in extras(lines)), "", f"{settings} {NOTE}", ""])


def _interval(score: "SuiteScore") -> str:
    if score.accuracy is None or score.low is None or score.high is None:
        return "–"
    return f"{100 * score.accuracy:.1f} [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def _tokens(score: "SuiteScore") -> tuple[float, float, float]:
    return score.prompt_tokens, score.cached_tokens, score.completion_tokens


def _seconds(score: "SuiteScore") -> str:
    if score.seconds_median is None or score.seconds_p90 is None:
        return "–"
    return f"{score.seconds_median:.2g}/{score.seconds_p90:.2g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
