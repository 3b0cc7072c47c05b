"""The sections of the report that speak of the run itself: cost, findings, settings, how to repeat it.

Why: a result is worth what it takes to repeat it.
In:  `Facts`.  Out: `Html`.
Not here: results (sections.py).
"""

import json
import shlex
from collections.abc import Sequence

from tenth.base.units import show_count, show_seconds
from tenth.reports import figures
from tenth.reports.cost import StageCost
from tenth.reports.doctor import LOSS_REMINDER, Finding, diagnose, is_reinforcement
from tenth.reports.facts import Facts
from tenth.reports.markup import Html, element, join, table
from tenth.reports.runs import DOCUMENTS, Run, flatten


def doctor_section(facts: Facts) -> Html | None:
    """What the doctor found, stage by stage."""
    stages = [(stage.name, rows) for stage in facts.run.stages if (rows := stage.metrics())]
    if not stages:
        return None
    parts: list[object] = [element("h2", "The doctor")]
    for name, rows in stages:
        findings = diagnose(rows)
        parts.append(element("h3", name))
        parts.append(show_findings(findings) if findings else element("p", "No rule fired.", class_="muted"))
    if any(is_reinforcement(rows) for _, rows in stages):
        parts.append(element("p", LOSS_REMINDER, class_="note"))
    return join(parts)


def cost_section(facts: Facts) -> Html | None:
    """Time, tokens, arithmetic, utilisation and dollars per stage."""
    if not facts.costs:
        return None
    peaks = facts.run.matmul_peak_flops
    measured = ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in sorted(peaks.items()))
    price = facts.run.price_usd_per_hour
    note = (
        "Share of the peak: arithmetic of the model divided by seconds and by the highest matrix-product "
        f"rate measured on this machine ({measured or 'not measured'}). "
        + (f"Price: ${price:g} per hour." if price is not None else "No price per hour is set.")
    )
    head = ("stage", "time", "tokens", "FLOPs", "share of peak", "dollars")
    rows = [_cost_row(cost) for cost in (*facts.costs, facts.total)]
    return join(
        [
            element("h2", "Time, tokens, dollars"),
            element("figure", Html(svg)) if (svg := figures.draw_costs(facts.costs)) else None,
            table(head, rows),
            element("p", note, class_="note"),
        ]
    )


def documents_section(facts: Facts) -> Html | None:
    """What the base was trained on, as the documents stage counted it."""
    stage = facts.run.stage(DOCUMENTS)
    counts = flatten(stage.corpus()) if stage else {}
    if not counts:
        return None
    rows = [(key, _plain(value)) for key, value in counts.items()]
    body = element(
        "details", element("summary", f"{len(rows)} numbers about the corpus"), table(("", ""), rows)
    )
    return join([element("h2", "The base's documents"), body])


def settings_section(facts: Facts) -> Html:
    """The resolved recipe and how to repeat the run."""
    run = facts.run
    rows = [(key, _plain(value)) for key, value in flatten(run.recipe).items()]
    return join(
        [
            element("h2", "How to repeat it"),
            element("pre", _commands(run), class_="code"),
            table(("", ""), _machine(run), class_="words"),
            element("p", _promise(run), class_="note"),
            element(
                "details",
                element("summary", "The resolved recipe"),
                table(("setting", "value"), rows, class_="words"),
            )
            if rows
            else None,
        ]
    )


def show_findings(findings: Sequence[Finding]) -> Html:
    """A list, each with its severity in words and as the colour of its edge."""
    items = [
        element(
            "li",
            element("b", f"{f.severity}: "),
            f.sentence,
            " ",
            element("span", f"({f.metric})", class_="note"),
            class_=str(f.severity),
        )
        for f in findings
    ]
    return element("ul", *items, class_="findings")


def _cost_row(cost: StageCost) -> list[object]:
    name = cost.name if cost.is_done else f"{cost.name} (not finished)"
    return [
        element("b", name) if cost.name == "total" else name,
        show_seconds(cost.seconds) if cost.seconds is not None else "–",
        show_count(cost.tokens) if cost.tokens is not None else "–",
        show_count(cost.flops) if cost.flops is not None else "–",
        f"{cost.peak_share:.1%}" if cost.peak_share is not None else "–",
        f"${cost.usd:.4f}" if cost.usd is not None else "–",
    ]


def _commands(run: Run) -> str:
    commit = run.info.get("commit")
    lines = [f"git checkout {shlex.quote(str(commit))}"] if commit else []
    lines.append(str(run.info.get("command") or "make run"))
    return "\n".join(lines)


def _machine(run: Run) -> list[tuple[str, str]]:
    machine = run.info.get("machine") or {}
    rows = [
        ("seed", run.recipe.get("seed")),
        ("processor", machine.get("cpu")),
        ("threads", machine.get("threads")),
        ("memory", f"{machine['memory_gib']:.1f} GiB" if machine.get("memory_gib") else None),
        ("torch", run.info.get("torch")),
        ("python", run.info.get("python")),
        ("started", run.info.get("created")),
    ]
    return [(label, str(value)) for label, value in rows if value is not None]


def _promise(run: Run) -> str:
    return (
        "The same torch, thread count and processor kind give the same numbers, bit for bit; "
        f"others give close ones. This page is {run.path.name}/report.html; it needs no network."
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
