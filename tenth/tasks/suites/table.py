"""The suites there are: name, file, kind of answer, reader, language.

Why: what is measured, and from which file, should be seen at one glance.
Left out: Arena-Hard and MT-Bench have no right answers; they need a judge's opinion, and no number of theirs
would stand beside these.
"""

from collections.abc import Mapping
from pathlib import Path

from tenth.base.errors import ConfigError
from tenth.base.records import Problem
from tenth.tasks.code_sets import read_humaneval, read_mbpp
from tenth.tasks.suites import rows
from tenth.tasks.suites.suite import AnswerKind, Suite, by_row, read_suite

FAMILIES = "families"  # a run's own test set: no file
_JUDGED = ("arena_hard", "arena-hard", "mt_bench", "mt-bench")


def _humaneval(path: Path, suite: str) -> list[Problem]:
    del suite  # the checker goes by the task's own name
    return read_humaneval(path)


def _mbpp(path: Path, suite: str) -> list[Problem]:
    del suite
    return read_mbpp(path)


_ALL = (
    Suite(name="gsm8k", files="gsm8k*test*.jsonl", kind=AnswerKind.NUMBER, read=by_row(rows.gsm8k)),
    Suite(name="math", files="math*.jsonl", kind=AnswerKind.MATH, read=by_row(rows.math)),
    Suite(name="svamp", files="svamp*.jsonl", kind=AnswerKind.NUMBER, read=by_row(rows.svamp)),
    Suite(name="mawps", files="mawps*.jsonl", kind=AnswerKind.NUMBER, read=by_row(rows.input_and_number)),
    Suite(
        name="multiarith",
        files="multiarith*.jsonl",
        kind=AnswerKind.NUMBER,
        read=by_row(rows.input_and_number),
    ),
    Suite(name="aqua", files="aqua*.jsonl", kind=AnswerKind.CHOICE, read=by_row(rows.aqua)),
    Suite(name="cmath", files="cmath*.jsonl", kind=AnswerKind.NUMBER, read=by_row(rows.cmath), language="zh"),
    Suite(
        name="mmlu",
        files="mmlu_val.jsonl",
        kind=AnswerKind.CHOICE,
        read=by_row(rows.mmlu),
        examples="mmlu_dev.jsonl",
    ),
    Suite(
        name="bbh_boolean", files="bbh/boolean_expressions.json", kind=AnswerKind.WORD, read=by_row(rows.bbh)
    ),
    Suite(
        name="bbh_arithmetic",
        files="bbh/multistep_arithmetic_two.json",
        kind=AnswerKind.NUMBER,
        read=by_row(rows.bbh),
    ),
    Suite(name="bbh_navigate", files="bbh/navigate.json", kind=AnswerKind.WORD, read=by_row(rows.bbh)),
    Suite(name="humaneval", files="humaneval*.jsonl", kind=AnswerKind.CODE, read=_humaneval),
    Suite(name="mbpp", files="mbpp*.jsonl", kind=AnswerKind.CODE, read=_mbpp),
    Suite(name="ifeval", files="ifeval*.jsonl", kind=AnswerKind.INSTRUCTIONS, read=by_row(rows.ifeval)),
    Suite(
        name="arc_easy",
        files="lm/arc_easy.jsonl",
        kind=AnswerKind.CHOICE,
        read=by_row(rows.query_and_choices),
    ),
    Suite(name="copa", files="lm/copa.jsonl", kind=AnswerKind.CHOICE, read=by_row(rows.copa)),
    Suite(
        name="arc_easy_lm",
        files="lm/arc_easy.jsonl",
        kind=AnswerKind.OPTIONS,
        read=by_row(rows.by_likelihood),
    ),
    Suite(name="copa_lm", files="lm/copa.jsonl", kind=AnswerKind.OPTIONS, read=by_row(rows.by_likelihood)),
    Suite(name="lambada", files="lm/lambada*.jsonl", kind=AnswerKind.CONTINUATION, read=by_row(rows.lambada)),
)
SUITES: Mapping[str, Suite] = {suite.name: suite for suite in _ALL}


def find_suite(name: str) -> Suite:
    """The suite of that name; a ConfigError names those there are."""
    if name in _JUDGED:
        raise ConfigError(
            f"suite '{name}' has no right answers, only a judge's opinions, and is not measured here; choose "
            f"from {', '.join(SUITES)}."
        )
    if name not in SUITES:
        raise ConfigError(f"there is no suite '{name}'; choose from {FAMILIES}, {', '.join(SUITES)}.")
    return SUITES[name]


def load_suite(name: str, data_dir: Path, *, limit: int | None = None) -> list[Problem]:
    """The questions of a suite; a limit takes them evenly from the whole file, which may be sorted."""
    problems = read_suite(find_suite(name), data_dir)
    return thinned(problems, limit=limit)


def load_examples(suite: Suite, data_dir: Path) -> list[Problem]:
    """Solved questions for few-shot prompts, from the suite's other file."""
    if suite.examples is None:
        with_examples = ", ".join(each.name for each in _ALL if each.examples)
        raise ConfigError(
            f"suite '{suite.name}' has no file of solved questions; set shots=0, or ask {with_examples}."
        )
    return read_suite(
        Suite(name=suite.name, files=suite.examples, kind=suite.kind, read=suite.read), data_dir
    )


def thinned(problems: list[Problem], *, limit: int | None) -> list[Problem]:
    """`limit` problems at even distances."""
    if limit is None or limit >= len(problems):
        return problems
    return [problems[index * len(problems) // limit] for index in range(limit)]
