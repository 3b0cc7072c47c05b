"""The section of an R1 run's page that shows one problem answered by every model, side by side.

Why: what a stage gives and takes is seen in a minute on the same problem.
In:  `Facts` of an R1 run in any state.  Out: `Html`; every character of model text is escaped.
Problems are the first of each family in the order of content hashes, and of each the first stored sample:
chosen without looking at who was right.
Not here: how a text is shown (answers.py).
"""

from collections.abc import Mapping, Sequence

from tenth.reports.answers import mark, show_text
from tenth.reports.facts import Facts
from tenth.reports.markup import Html, element, join
from tenth.reports.pairs import first_of_each
from tenth.reports.scores import Sample, read_samples

_GENERAL = "general"
_GENERAL_SHOWN = 3  # questions

Answers = Mapping[str, Sample]  # by problem


def r1_answers_section(facts: Facts) -> Html | None:
    """One problem of each family and some general questions, by all models."""
    reasoning = _answers(facts, mode=None)
    problems = [_problem(problem_id, reasoning) for problem_id in _first_per_family(reasoning)]
    general = _answers(facts, mode=_GENERAL)
    beside = [_problem(problem_id, general) for problem_id in _first_per_family(general)[:_GENERAL_SHOWN]]
    if not problems:
        return None
    note = (
        "One problem per family, the first in the order of content hashes, and its first stored sample: "
        "chosen without looking at who was right. The thinking is dimmed; what follows it is what a user "
        "reads."
    )
    return join(
        [
            element("h2", "The same problem through all stages"),
            element("p", note, class_="note"),
            *problems,
            element("h3", "General questions") if beside else None,
            *beside,
        ]
    )


def _answers(facts: Facts, *, mode: str | None) -> dict[str, Answers]:
    """Label -> first sample of every problem; models that were not asked are left out."""
    found: dict[str, Answers] = {}
    for model in facts.models.values():
        column = model.column
        stage = facts.run.stage(column.measure)
        samples = read_samples(stage.path, mode or column.mode) if stage else []
        if samples:
            found[column.label] = first_of_each(samples)
    return found


def _first_per_family(answers: Mapping[str, Answers]) -> list[str]:
    """The first problem of each family that every model answered."""
    if not answers:
        return []
    shared = set.intersection(*(set(each) for each in answers.values()))
    asked = next(iter(answers.values()))
    chosen: dict[str, str] = {}
    for problem_id in sorted(shared):
        chosen.setdefault(asked[problem_id].family, problem_id)
    return [chosen[family] for family in sorted(chosen)]


def _problem(problem_id: str, answers: Mapping[str, Answers]) -> Html:
    samples: Sequence[tuple[str, Sample]] = [(label, each[problem_id]) for label, each in answers.items()]
    first = samples[0][1]
    level = f", level {first.level}" if first.level else ""
    asked = f"{first.family}{level} · a right answer: {first.answer}"
    sides = [
        element(
            "div",
            element("div", element("b", label), mark(sample.is_correct), class_="who"),
            show_text(sample.text),
            class_="side",
        )
        for label, sample in samples
    ]
    prompt = element("div", element("div", asked, class_="note"), first.prompt, class_="prompt")
    return element("div", prompt, element("div", *sides, class_="sides many"), class_="pair")
