"""The sections of an R1 run's page that speak of its models: headline, aims, the stage table, the student.

Why: one table says what every stage gave and took; DeepSeek-R1 (arXiv:2501.12948v2), table 3.
In:  `Facts` of an R1 run in any state.  Out: `Html`, or None where there is nothing to say yet.
Not here: the numbers (stages.py, stage_table.py), curves (r1_curves.py), the training sets (r1_data.py).
"""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from tenth.base.units import show_count, show_seconds
from tenth.reports.facts import Facts
from tenth.reports.markup import Html, element, join, table
from tenth.reports.r1_aims import check_r1_aims
from tenth.reports.r1_seeds import row_name, show_cell
from tenth.reports.scores import Score
from tenth.reports.sections import aims_table, interval, tile
from tenth.reports.spread import Spread
from tenth.reports.stage_table import Cell, Row, show_value, stage_rows
from tenth.reports.stages import Model, compute_of, share_activated, share_kept

_TILES = (
    ("base", "base", "tile"),
    ("zero", "R1-Zero", "tile"),
    ("r1", "R1", "tile main"),
    ("student", "student of R1", "tile"),
    ("control", "student by RL only", "tile"),
)


def r1_headline(facts: Facts) -> Html:
    """The name, what the run shows in two sentences, and the numbers that matter most."""
    info = facts.run.info
    made = [info.get("created"), f"commit {str(info.get('commit') or 'unknown')[:10]}"]
    tiles = [
        tile(label, f"{score.accuracy:.1%}", f"95%: {interval(score)}", class_=class_)
        for key, label, class_ in _TILES
        if (score := _score(facts.models, key))
    ]
    if facts.total.seconds is not None:
        paid = f"${facts.total.usd:.2f}" if facts.total.usd is not None else "no price set"
        tiles.append(tile("whole run", show_seconds(facts.total.seconds), paid))
    sentences = headline_sentences(facts) or ["R1 is not measured yet; this page shows the run so far."]
    return join(
        [
            element("h1", facts.run.name),
            element("p", " · ".join(str(part) for part in made if part), class_="muted"),
            element("p", " ".join(sentences), class_="lead"),
            element("div", *tiles, class_="tiles"),
        ]
    )


def headline_sentences(facts: Facts) -> list[str]:
    """One about R1, one about its student; what is not measured is not spoken of."""
    models, sentences = facts.models, []
    base, zero, r1 = (_score(models, key) for key in ("base", "zero", "r1"))
    if base and zero and r1:
        sentences.append(
            f"R1 solves {r1.accuracy:.1%} of the held-out problems (95% interval {interval(r1)}), R1-Zero "
            f"{zero.accuracy:.1%} ({interval(zero)}) and the base {base.accuracy:.1%}; of R1's answers "
            f"{_percent(r1.reads_well)} are readable and {_percent(r1.language)} of the words they think are "
            f"in the question's language, of R1-Zero's {_percent(zero.reads_well)} and "
            f"{_percent(zero.language)}."
        )
    student, kept, size = _score(models, "student"), share_kept(models), share_activated(models)
    if student and kept is not None and size is not None:
        controls = [score for key in ("control_small", "control") if (score := _score(models, key))]
        beside = (
            f"; the same student by reinforcement alone reaches "
            f"{' and '.join(f'{score.accuracy:.1%}' for score in controls)} for the same compute"
            f"{', without and with the teacher’s sampling' if len(controls) == 2 else ''}"
            if controls
            else ""
        )
        sentences.append(
            f"A dense student with {size:.0%} of R1's activated parameters solves {student.accuracy:.1%}, "
            f"{kept:.0%} of what R1 does{beside}."
        )
    return sentences


def r1_aims_section(facts: Facts) -> Html | None:
    """The aims of the whole recipe, reached or not."""
    seconds = facts.total.seconds if facts.total.is_done else None  # half a run is always in time
    measured = any(_score(facts.models, key) for key in ("r1", "student"))
    aims = check_r1_aims(facts.models, seconds=seconds) if measured else []
    if not aims:
        return None
    return join([element("h2", "Aims"), aims_table(aims)])


def stage_table_section(facts: Facts) -> Html | None:
    """Every model of the run in a column, everything measured in a row."""
    models = [model for model in facts.models.values() if model.score() or model.own]
    rows = stage_rows(models)
    if not rows:
        return None
    settings = next((model.evaluation.settings for model in models if model.evaluation), {})
    asked = next((score for model in models if (score := model.score())), None)
    note = (
        f"Sampled at temperature {settings.get('temperature', '?')}, top-p {settings.get('top_p', '?')}, "
        f"{settings.get('samples', '?')} answers or more to each of {asked.problems if asked else '?'} "
        "problems; below an accuracy its 95% interval. ★ and bold: the best of a row; models that tie share "
        "it. Base, R1-Zero and the student by RL only answer in R1-Zero's form, the others in R1's, and each "
        "is judged by its own. Costs are of making the models, not of measuring them; “without”: the teacher "
        "and its sampling not counted."
    )
    return join(
        [
            element("h2", "The stages"),
            _stage_table(models, rows),
            element("p", note, class_="note"),
        ]
    )


def distillation_section(facts: Facts) -> Html | None:
    """The student of R1's answers beside the same student reinforced, at equal compute."""
    student, teacher = facts.models.get("student"), facts.models.get("r1")
    if not student or not teacher or not student.score():
        return None
    compute = compute_of(facts.run)
    given = compute.get("distillation", {})
    rows = [_side("R1, the teacher", teacher, None, None)]
    learning, sampling = given.get("training_flops"), given.get("teacher_sampling_flops")
    whole = learning + sampling if learning is not None and sampling is not None else None
    rows.append(_side("student, SFT on R1's answers", student, learning, whole))
    for key, name, label in (
        ("control_small", "control_without_sampling", "student by RL only, without the teacher's sampling"),
        ("control", "control_with_sampling", "student by RL only, with it"),
    ):
        if key in facts.models and facts.models[key].score():
            reached = compute.get(name, {})
            steps = f", {reached['steps']} steps" if "steps" in reached else ""
            compared = (
                (reached.get("flops"), None) if key == "control_small" else (None, reached.get("flops"))
            )
            rows.append(_side(label + steps, facts.models[key], *compared))
    head = ("", "accuracy, %", "activated parameters", "FLOPs of training", "and of the teacher's sampling")
    kept, size = share_kept(facts.models), share_activated(facts.models)
    words = (
        f"The student keeps {_percent(kept)} of R1's accuracy with {_percent(size)} of its activated "
        "parameters. Compare within a column: reinforcement stops with the step that reaches what "
        "distillation took, its own sampling counted. Pre-training of the student's base is the same on both "
        "sides and left out."
    )
    return join(
        [
            element("h2", "Distillation, or reinforcement of the small model"),
            table(head, rows),
            element("p", words, class_="note"),
        ]
    )


def seeds_tables(summary: Mapping[str, Any]) -> Html:
    """Several seeds: the stage table of means and ranges, and how many reached each aim."""
    columns, count = summary["table"]["columns"], len(summary["runs"])
    rows = [[row_name(row), *map(_range_cell(row), row["cells"])] for row in summary["table"]["rows"]]
    aims = [
        (aim["text"], f"{aim['reached']} of {count}", "; ".join(aim["measured"])) for aim in summary["aims"]
    ]
    note = "Means over the runs; below them the lowest and the highest."
    return join(
        [
            element("h2", "The stages"),
            table(("", *columns), rows, class_="stages"),
            element("p", note, class_="note"),
            element("h2", "Aims"),
            table(("aim", "reached", "measured, run by run"), aims, class_="words"),
            element("h2", "Numbers beside the table"),
        ]
    )


def zero_part(facts: Facts) -> Html | None:
    """A heading above the sections that R1-Zero's own page has, too."""
    return element("h2", "R1-Zero in detail", class_="part") if facts.base else None


def _stage_table(models: list[Model], rows: list[Row]) -> Html:
    head = element(
        "tr",
        element("th", "", scope="col"),
        *(
            element(
                "th",
                element("b", model.column.label),
                element("span", model.column.how, class_="small"),
                scope="col",
            )
            for model in models
        ),
    )
    body: list[Html] = []
    for group, members in groupby(rows, key=lambda row: row.group):
        title = element("th", group, scope="rowgroup", colspan=len(models) + 1)
        body.append(element("tr", title, class_="group"))
        body += [_table_row(row) for row in members]
    whole = element("table", element("thead", head), element("tbody", *body), class_="stages")
    return element("div", whole, class_="scroll", tabindex=0)


def _table_row(row: Row) -> Html:
    cells = [
        element(
            "td",
            *_cell_parts(row, cell, is_best=i in row.best),
            class_="best" if i in row.best else None,
        )
        for i, cell in enumerate(row.cells)
    ]
    return element("tr", element("th", row.label, scope="row"), *cells)


def _cell_parts(row: Row, cell: Cell | None, *, is_best: bool) -> list[object]:
    if cell is None:
        return ["–"]
    parts: list[object] = [("★ " if is_best else "") + show_value(row.measure, cell.value)]
    if cell.low is not None and cell.high is not None:
        parts.append(element("span", f"{cell.low * 100:.1f}–{cell.high * 100:.1f}", class_="small"))
    if cell.untaught is not None:
        parts.append(element("span", f"without: {show_value(row.measure, cell.untaught)}", class_="small"))
    return parts


def _range_cell(row: Mapping[str, Any]) -> Callable[[Spread], object]:
    def show(cell: Spread) -> object:
        mean, bracket, rest = show_cell(row["measure"], cell).partition(" (")
        return join([mean, element("span", rest.removesuffix(")"), class_="small")]) if bracket else mean

    return show


def _side(label: str, model: Model, learning: float | None, whole: float | None) -> list[object]:
    score = model.score()
    accuracy: object = "–"
    if score is not None:
        parts = [f"{score.accuracy * 100:.1f}", element("span", interval(score), class_="small")]
        accuracy = join(parts)
    counts = [None if each is None else show_count(each) for each in (model.parameters, learning, whole)]
    return [label, accuracy, *(shown or "–" for shown in counts)]


def _score(models: Mapping[str, Model], key: str) -> Score | None:
    return models[key].score() if key in models else None


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"
