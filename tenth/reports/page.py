"""One self-contained page per run: everything a person wants to know, readable without a network.

Why: a report that needs an account, a server or a package is a report nobody opens next year.
In:  a run directory in any state.
Out: report.html inside it, the same bytes for the same run.
Not here: what the sections say (sections.py, answers.py, appendix.py), how they look (page.html).
"""

import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from tenth.base.errors import DataError
from tenth.base.files import write_json, write_whole
from tenth.reports import (
    answers,
    appendix,
    doctor_r1,
    r1_answers,
    r1_curves,
    r1_data,
    r1_sections,
    sections,
)
from tenth.reports.facts import gather_facts
from tenth.reports.markup import Html, element, join, table
from tenth.reports.r1_sections import seeds_tables
from tenth.reports.r1_seeds import show_r1_number
from tenth.reports.runs import Run, read_run
from tenth.reports.seeds import markdown_table, show_number, summarise_seeds
from tenth.reports.stages import is_r1

SECTIONS = (
    sections.headline,
    sections.gain_section,
    sections.aims_section,
    sections.scores_section,
    sections.levels_section,
    sections.zero_curves_section,
    answers.answers_section,
    sections.controls_section,
    sections.base_curves_section,
    appendix.documents_section,
    appendix.cost_section,
    appendix.doctor_section,
    appendix.settings_section,
)
R1_SECTIONS = (
    r1_sections.r1_headline,
    r1_sections.r1_aims_section,
    r1_sections.stage_table_section,
    r1_curves.growth_section,
    r1_sections.distillation_section,
    r1_data.data_section,
    r1_data.reward_models_section,
    r1_answers.r1_answers_section,
    r1_sections.zero_part,
    sections.gain_section,
    sections.scores_section,
    sections.levels_section,
    sections.zero_curves_section,
    sections.base_curves_section,
    appendix.documents_section,
    appendix.cost_section,
    doctor_r1.r1_doctor_section,
    appendix.settings_section,
)


def write_report(run_dir: Path) -> Path:
    """Write report.html into the run directory."""
    path = run_dir / "report.html"
    run = read_run(run_dir)
    try:
        page = build_page(run)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Every number of some thirty files is used somewhere; whoever damaged one by hand knows which.
        raise DataError(
            f"{run_dir} holds a file that is not what its stage writes ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); restore it, or run its stage again."
        ) from error
    write_whole(path, page.encode())
    return path


def build_page(run: Run) -> str:
    """The whole page of one run."""
    facts = gather_facts(run)
    shown = R1_SECTIONS if is_r1(run) else SECTIONS
    return _frame(run.name, join(section(facts) for section in shown))


def write_seeds_report(run_dirs: Sequence[Path], out: Path) -> list[Path]:
    """Write seeds.json, seeds.md and seeds.html about several runs into `out`."""
    summary = summarise_seeds([read_run(path) for path in run_dirs])
    paths = [out / name for name in ("seeds.html", "seeds.md", "seeds.json")]
    write_whole(paths[0], build_seeds_page(summary).encode())
    write_whole(paths[1], markdown_table(summary).encode())
    write_json(paths[2], summary)
    return paths


def build_seeds_page(summary: dict[str, Any]) -> str:
    """The page of several seeds: one table; of the R1 flow the stage table and the aims before it."""
    names = [run["name"] for run in summary["runs"]]
    is_of_r1 = "table" in summary
    show = show_r1_number if is_of_r1 else show_number
    rows = [
        (
            key,
            *(show(key, row[column]) for column in ("mean", "min", "max")),
            *(show(key, value) for value in row["values"]),
        )
        for key, row in summary["numbers"].items()
    ]
    seeds = ", ".join(f"{run['name']}: seed {run['seed']}, commit {run['commit']}" for run in summary["runs"])
    body = join(
        [
            element("h1", f"{len(names)} runs"),
            element("p", seeds, class_="muted"),
            seeds_tables(summary) if is_of_r1 else None,
            table(("", "mean", "min", "max", *names), rows),
        ]
    )
    return _frame(f"{len(names)} runs", body)


def _frame(title: str, body: Html) -> str:
    template = Template(resources.files("tenth.reports").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(f"{title} · tenth"), body=body)
