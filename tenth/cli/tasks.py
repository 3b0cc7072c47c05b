"""`tenth tasks`: list the generated families, show one with its problems, working and checker's verdicts."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tenth.base.errors import ConfigError
from tenth.base.seeds import stream_random

app = typer.Typer(help="Problems and their checkers.", no_args_is_help=True)


@app.command("list")
def list_tasks() -> None:
    """Every generated family: levels, language, an example."""
    from tenth.tasks.generated import FAMILIES

    table = Table(box=None, header_style="bold")
    for column in ("family", "levels", "language", "example", "answer"):
        table.add_column(column, overflow="fold")
    for name, family in FAMILIES.items():
        example = family.make(stream_random(0, "tasks list", name), level=family.levels[0] + 1)
        low, high = family.levels
        table.add_row(name, f"{low}..{high}", family.language, example.prompt, example.answer)
    Console(highlight=False).print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="a family; `tenth tasks list` names them")],
    level: Annotated[int | None, typer.Option(help="difficulty; the middle one by default")] = None,
    count: Annotated[int, typer.Option(min=1, help="how many problems")] = 10,
    seed: Annotated[int, typer.Option(help="another seed, other problems")] = 0,
) -> None:
    """Problems of a family with the checker's verdicts, and one worked solution of each kind."""
    from tenth.tasks.generated import FAMILIES
    from tenth.tasks.task import Split, Work, guess_baseline, sample_problems

    if name not in FAMILIES:
        raise ConfigError(f"there is no task '{name}'; choose one of {', '.join(FAMILIES)}.")
    family = FAMILIES[name]
    low, high = family.levels
    level = (low + high) // 2 if level is None else level
    problems = sample_problems(family, levels=[level], split=Split.TRAIN, count=count, seed=seed)
    baseline = guess_baseline(family, levels=[level], split=Split.TRAIN, seed=seed)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{name}, level {level} of {low}..{high}; a guess earns {baseline:.1%}\n")
    rng = stream_random(seed, "tasks show", name)
    for problem in problems:
        wrong = family.work(problem, rng, kind=Work.MISTAKE).answer
        answers = (problem.answer, f" {problem.answer}. ", wrong, "no idea")
        verdicts = (f"{answer!r} {_mark(family.check(problem, answer).is_correct)}" for answer in answers)
        console.print(f"{problem.prompt}\n    {'   '.join(verdicts)}")
    for kind in Work:
        solution = family.work(problems[0], rng, kind=kind)
        verdict = _mark(family.check(problems[0], solution.answer).is_correct)
        console.print(f"\n{kind}: {problems[0].prompt}\n{solution.thinking}\n-> {solution.answer} {verdict}")


def _mark(is_correct: bool) -> str:
    return "right" if is_correct else "wrong"
