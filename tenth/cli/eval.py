"""`tenth eval TARGET... --suite NAME`: models side by side: accuracy, tokens, time, dollars.

Why: a number is worth something beside another one that was measured alike. A model on disk, a run and a
model behind an API are asked the same questions in the same words, read and judged by the same rules.
In:  targets, suites, `key=value` settings (pipeline/eval_recipe.py).
Out: a table; in --out every answer (MODEL/SUITE.jsonl), results.json, results.md. Repeat the command to
continue: what was answered is not asked again.
Not here: targets (eval_targets.py), the table (eval_table.py), asking (pipeline/evaluate_model.py).
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tenth.base.errors import ConfigError, RunError, TenthError
from tenth.base.files import text_hash, write_json, write_whole
from tenth.cli.endpoint_options import Budget, Concurrency, KeyEnv, Prices, Timeout
from tenth.cli.eval_table import NOTE, WIDTH, Line, extras, markdown, rich_tables
from tenth.cli.eval_targets import Target, load_network, opened, read_targets
from tenth.cli.progress import progress
from tenth.cli.tune_command import typed_command

if TYPE_CHECKING:
    from tenth.pipeline.eval_recipe import EvalRecipe
    from tenth.pipeline.evaluate_model import Asked
    from tenth.tasks.rewards import CheckMany

_OVERRIDE = re.compile(r"[a-z_]+=.*", flags=re.DOTALL)
_SHOWN = 2  # prompts per suite, with --show


def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET... [KEY=VALUE]...",
            help="A model directory, a .gguf or .bin file, a run, or an API's address (https://.../v1); "
            "settings such as temperature=0.6 max_tokens=4096 shots=5 seed=1.",
        ),
    ],
    suite: Annotated[
        str, typer.Option(help="NAME[,NAME]: families (a run's own test set), gsm8k, mmlu, ...")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The directory that holds the suites' files; families needs none."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Answers per question, averaged over. Default: 1.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Questions per suite, evenly from all of them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: runs/eval-TARGETS-...")] = None,
    model: Annotated[list[str] | None, typer.Option(help="The model's name at the address.")] = None,
    key_env: KeyEnv[list[str] | None] = None,
    prices: Prices[list[str] | None] = None,
    budget: Budget = None,
    usd_per_hour: Annotated[
        float, typer.Option(min=0.0, help="What an hour of this machine costs, for models in this process.")
    ] = 0.0,
    concurrency: Concurrency = 8,
    timeout: Timeout = None,
    show: Annotated[bool, typer.Option("--show", help="Print what would be asked, and ask nothing.")] = False,
) -> None:
    """Measure models side by side on suites of questions: accuracy, tokens, latency, dollars."""
    from tenth.pipeline.evaluate_model import claim_directory

    overrides = [text for text in targets if _OVERRIDE.fullmatch(text) and not Path(text).exists()]
    recipe = _recipe(overrides, samples=samples, limit=limit)
    named = read_targets(
        [text for text in targets if text not in overrides],
        models=model or (),
        key_variables=key_env or (),
        prices=prices or (),
        budget_usd=budget,
        concurrency=concurrency,
        timeout_seconds=timeout,
    )
    if not named:
        raise ConfigError("nothing to measure: name a model directory, a run or an API's address.")
    asked = _suites(suite, named, recipe, data_dir=data)
    if show:
        _show(asked)
        return
    out_dir = out or _default_out(named, recipe)
    work = _Work(recipe=recipe, asked=asked, out=out_dir, usd_per_hour=usd_per_hour)
    for target in named:
        claim_directory(out_dir / target.name, model=target.identity, recipe=recipe)
    try:
        _measure_all(named, work)
    except KeyboardInterrupt:
        _finish(named, work)
        typer.echo(f"Stopped; every answer so far is kept. To continue: {typed_command()}", err=True)
        raise typer.Exit(130) from None
    except TenthError:
        _finish(named, work)
        raise
    lines = _finish(named, work)
    without = [target.name for target in named if not _has_answer(target, lines)]
    if without:
        raise RunError(
            f"not one answer of {', '.join(without)} could be judged; the reasons are above, and the "
            "same command asks again."
        )


def _has_answer(target: Target, lines: Sequence[Line]) -> bool:
    return any(line.score.accuracy is not None for line in lines if line.model == target.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is measured how."""

    recipe: "EvalRecipe"
    asked: "Sequence[Asked]"
    out: Path
    usd_per_hour: float


def _recipe(overrides: Sequence[str], **options: Any) -> "EvalRecipe":
    from tenth.base.config import apply_overrides, build_recipe
    from tenth.pipeline.eval_recipe import EvalRecipe

    given = {name: value for name, value in options.items() if value is not None}
    return build_recipe(EvalRecipe, apply_overrides(given, overrides), source="tenth eval")


def _suites(
    names: str, targets: Sequence[Target], recipe: "EvalRecipe", *, data_dir: Path | None
) -> "list[Asked]":
    """Every suite that is named, read and checked before anything is asked."""
    from tenth.pipeline.evaluate_model import prepare_suite
    from tenth.tasks.suites.suite import BY_LIKELIHOOD
    from tenth.tasks.suites.table import FAMILIES

    asked = []
    for name in dict.fromkeys(part.strip() for part in names.split(",") if part.strip()):
        if name == FAMILIES:
            asked.append(_families(targets, recipe))
            continue
        asked.append(prepare_suite(name, recipe, data_dir=data_dir))
        remote = next((target for target in targets if target.endpoint is not None), None)
        if asked[-1].kind in BY_LIKELIHOOD and remote is not None:
            raise ConfigError(
                f"suite '{name}' needs likelihoods of texts, which {remote.name}'s API does not give; "
                "measure it with models on disk only."
            )
    if not asked:
        raise ConfigError(f"--suite '{names}' names no suite; write it like --suite gsm8k,mmlu.")
    return asked


def _families(targets: Sequence[Target], recipe: "EvalRecipe") -> "Asked":
    """The test set of the first run among the targets."""
    from tenth.pipeline.evaluate_model import Asked
    from tenth.pipeline.frozen import held_out_problems
    from tenth.tasks.suites.suite import AnswerKind
    from tenth.tasks.suites.table import FAMILIES, thinned

    of_run = next((found for target in targets if (found := target.recipe) is not None), None)
    if of_run is None:
        raise ConfigError("suite 'families' is a run's own test set; name a run among the targets.")
    problems = thinned(held_out_problems(of_run), limit=recipe.limit)
    return Asked(name=FAMILIES, kind=AnswerKind.FAMILY, problems=tuple(problems))


def _measure_all(targets: Sequence[Target], work: _Work) -> None:
    from tenth.tasks.judge import Judge

    with Judge() as judge:
        for target in targets:
            _measure(target, work, check=judge.check_many)


def _measure(target: Target, work: _Work, *, check: "CheckMany") -> None:
    """Ask one target what is missing; where nothing is, nothing is loaded."""
    from tenth.pipeline.evaluate_model import ask_suite, missing_batches
    from tenth.pipeline.likelihood import measure_suite
    from tenth.tasks.suites.suite import BY_LIKELIHOOD

    directory = work.out / target.name
    waiting = [
        asked
        for each in work.asked
        if missing_batches(asked := _for_target(each, target), work.recipe, directory=directory)
    ]
    in_text = [asked for asked in waiting if asked.kind not in BY_LIKELIHOOD]
    if in_text:
        with opened(target, replies_dir=work.out / "replies") as responder:
            for asked in in_text:
                with progress(f"{target.name}, {asked.name}") as tell:
                    ask_suite(
                        asked,
                        responder=responder,
                        recipe=work.recipe,
                        directory=directory,
                        check=check,
                        tell=tell,
                    )
    by_likelihood = [asked for asked in waiting if asked.kind in BY_LIKELIHOOD]
    if by_likelihood:
        network = load_network(target)
        for asked in by_likelihood:
            with progress(f"{target.name}, {asked.name}") as tell:
                measure_suite(asked, network=network, recipe=work.recipe, directory=directory, tell=tell)


def _for_target(asked: "Asked", target: Target) -> "Asked":
    """A run's model knows its question without a word about the answer's form, and has a form of its own."""
    from tenth.tasks.shape import R1_SHAPE, ZERO_SHAPE
    from tenth.tasks.suites.table import FAMILIES

    if target.recipe is None:
        return asked
    own = ZERO_SHAPE if target.is_zero else R1_SHAPE
    shape = own if asked.name == FAMILIES else None
    return replace(asked, is_bare=True, max_tokens=target.max_tokens, shape=shape)


def _default_out(targets: Sequence[Target], recipe: "EvalRecipe") -> Path:
    """The same for the same targets and settings, so that the same command continues."""
    key = text_hash(*(target.identity for target in targets), str(recipe.answers_depend_on))[:6]
    return Path("runs") / f"eval-{'-'.join(target.name for target in targets)[:60]}-{key}"


def _show(asked: "Sequence[Asked]") -> None:
    for each in asked:
        typer.echo(f"== {each.name}: {len(each.problems)} questions, answers are {each.kind}")
        for problem in each.problems[:_SHOWN]:
            for message in each.conversation(problem):
                typer.echo(f"[{message.role}] {message.content}")
            typer.echo(f"[right answer] {problem.answer or problem.metadata}\n")


def _finish(targets: Sequence[Target], work: _Work) -> list[Line]:
    """Scores of what is on disk: files first, then the table."""
    lines = [line for target in targets for asked in work.asked if (line := _line(target, asked, work))]
    if not lines:
        return lines
    settings = work.recipe.model_dump()
    said = ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
    write_json(
        work.out / "results.json", {"settings": settings, "scores": [line.to_dict() for line in lines]}
    )
    write_whole(work.out / "results.md", markdown(lines, settings=f"Settings: {said}.").encode())
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for table in rich_tables(lines, width=console.width):
        console.print(table)
    for each in extras(lines):
        console.print(each, markup=False)
    console.print(f"{said}\n{NOTE}", style="dim", markup=False)
    console.print(f"Every answer is in {work.out}.", markup=False, soft_wrap=True)
    return lines


def _line(target: Target, asked: "Asked", work: _Work) -> Line | None:
    from tenth.pipeline.evaluate_model import kept_samples
    from tenth.rollout.suite_scores import score_suite

    samples = kept_samples(asked, work.recipe, directory=work.out / target.name)
    if not samples:
        return None
    price = 0.0 if target.endpoint else work.usd_per_hour
    return Line(
        model=target.name,
        score=score_suite(asked.name, samples, usd_per_hour=price),
        is_priced=bool(target.endpoint.prices if target.endpoint else price),
    )
