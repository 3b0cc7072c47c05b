"""Measure anybody who answers in text on suites of questions: ask what is missing, judge, keep, score.

Protocol of R1 (arXiv:2501.12948v2, appendix D.1): temperature 0.6, top-p 0.95, k samples per question,
pass@1 averaged over them; zero-shot.
In:  `Asked` suites (questions and how they are put), a `Responder`, a directory.
Out: DIRECTORY/SUITE.jsonl, one `Sample` per line; what is there is not asked again.
Not here: who the models are and tables (cli/), scores (rollout/suite_scores.py), likelihoods
(likelihood.py).
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenth.base.errors import ConfigError
from tenth.base.files import read_json, write_json
from tenth.base.records import AskParams, Message, Problem, Reply
from tenth.base.seeds import stream_seed
from tenth.pipeline.eval_recipe import EvalRecipe
from tenth.pipeline.sample_log import SampleLog
from tenth.rollout.responder import Responder, as_one_text
from tenth.rollout.suite_scores import Sample
from tenth.tasks.judge import answer_of
from tenth.tasks.rewards import CheckMany
from tenth.tasks.shape import AnswerShape
from tenth.tasks.suites.asking import conversation, same_subject
from tenth.tasks.suites.judging import Ruling, rule, rule_on
from tenth.tasks.suites.suite import BY_LIKELIHOOD, AnswerKind
from tenth.tasks.suites.table import find_suite, load_examples, load_suite

Tell = Callable[[int, int], None]  # answers so far, of how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A suite's questions, ready to be put."""

    name: str
    kind: AnswerKind
    problems: tuple[Problem, ...]
    examples: tuple[Problem, ...] = ()  # solved ones, for few-shot prompts
    shots: int = 0
    is_bare: bool = False  # without the sentence about the answer's form
    max_tokens: int | None = None  # where the recipe sets none
    shape: AnswerShape | None = None  # of the answer; None: wherever it may stand

    def num_samples(self, recipe: EvalRecipe) -> int:
        """Answers per question; likelihoods are not drawn, so there is one of each."""
        return 1 if self.kind in BY_LIKELIHOOD else recipe.samples

    def conversation(self, problem: Problem) -> list[Message]:
        """The question as it is put."""
        shown = same_subject(problem, self.examples, count=self.shots)
        return conversation(problem, self.kind, examples=shown, is_bare=self.is_bare)


def prepare_suite(name: str, recipe: EvalRecipe, *, data_dir: Path | None) -> Asked:
    """Read a suite's files."""
    suite = find_suite(name)
    if data_dir is None:
        raise ConfigError(
            f"suite '{name}' needs files; give --data DIR, the directory that holds {suite.files}."
        )
    return Asked(
        name=name,
        kind=suite.kind,
        problems=tuple(load_suite(name, data_dir, limit=recipe.limit)),
        examples=tuple(load_examples(suite, data_dir)) if recipe.shots else (),
        shots=recipe.shots,
    )


def claim_directory(directory: Path, *, model: str, recipe: EvalRecipe) -> None:
    """Refuse to put answers beside those of another model or of other settings."""
    path = directory / "settings.json"
    now = {"model": model, **recipe.answers_depend_on}
    if path.exists():
        before = read_json(path)
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            name = changed[0]
            raise ConfigError(
                f"{directory} holds answers with {name} = {before.get(name)}, and now it is {now[name]}; "
                "choose another --out, or delete the directory."
            )
    write_json(path, now)


def ask_suite(
    asked: Asked,
    *,
    responder: Responder,
    recipe: EvalRecipe,
    directory: Path,
    check: CheckMany,
    tell: Tell,
) -> None:
    """Ask for every answer that is missing on disk; failed ones are missing."""
    total = len(asked.problems) * recipe.samples
    batches = missing_batches(asked, recipe, directory=directory)
    done = total - sum(len(problems) * count for problems, count in batches)
    log = SampleLog(directory / f"{asked.name}.jsonl")
    for problems, count in batches:
        tell(done, total)
        begin = time.perf_counter()
        params = _params(recipe, asked, count=count)
        replies = responder.respond([asked.conversation(problem) for problem in problems], params)
        share = (time.perf_counter() - begin) / (len(problems) * count)
        told = [(problem, reply) for problem, group in zip(problems, replies, strict=True) for reply in group]
        rulings = _rulings(asked, told, check=check)
        log.append(
            [
                _sample(asked, problem, reply, ruling, wall_seconds=share)
                for (problem, reply), ruling in zip(told, rulings, strict=True)
            ]
        )
        done += len(problems) * count
    tell(done, total)


def kept_samples(asked: Asked, recipe: EvalRecipe, *, directory: Path) -> list[Sample]:
    """What is on disk of these questions: `samples` per question, and failed ones only in place of missing
    ones."""
    by_problem: dict[str, list[Sample]] = {problem.problem_id: [] for problem in asked.problems}
    for sample in SampleLog(directory / f"{asked.name}.jsonl").read():
        by_problem.get(sample.problem_id, []).append(sample)
    return [
        sample
        for group in by_problem.values()
        for sample in sorted(group, key=lambda each: each.error is not None)[: asked.num_samples(recipe)]
    ]


def missing_batches(asked: Asked, recipe: EvalRecipe, *, directory: Path) -> list[tuple[list[Problem], int]]:
    """Batches of questions, each with how many more answers they all want."""
    kept = kept_samples(asked, recipe, directory=directory)
    have = Counter(sample.problem_id for sample in kept if sample.error is None)
    by_count: dict[int, list[Problem]] = {}
    for problem in asked.problems:
        by_count.setdefault(asked.num_samples(recipe) - have[problem.problem_id], []).append(problem)
    return [
        (members[at : at + max(1, recipe.batch // count)], count)
        for count, members in by_count.items()
        if count > 0
        for at in range(0, len(members), max(1, recipe.batch // count))
    ]


def _params(recipe: EvalRecipe, asked: Asked, *, count: int) -> AskParams:
    """The seed follows from how many answers are there already, so that later ones are other ones."""
    return AskParams(
        n=count,
        max_tokens=recipe.max_tokens or asked.max_tokens,
        temperature=recipe.temperature,
        top_p=recipe.top_p if recipe.temperature else 1.0,
        seed=stream_seed(recipe.seed, "eval", asked.name, recipe.samples - count) % 2**31,
    )


def _sample(asked: Asked, problem: Problem, reply: Reply, ruling: Ruling, *, wall_seconds: float) -> Sample:
    return Sample(
        suite=asked.name,
        problem_id=problem.problem_id,
        prompt=problem.prompt,
        answer=problem.answer,
        text=reply.text,
        reasoning=reply.reasoning,
        extracted=ruling.extracted,
        is_correct=ruling.is_correct,
        finish=reply.finish,
        prompt_tokens=reply.usage.prompt_tokens,
        cached_tokens=reply.usage.cached_tokens,
        completion_tokens=reply.usage.completion_tokens,
        reasoning_tokens=reply.usage.reasoning_tokens,
        seconds=reply.seconds,
        wall_seconds=wall_seconds,
        usd=reply.usd,
        error=reply.error,
        verifier_error=ruling.error,
        details=ruling.details,
    )


def _rulings(asked: Asked, told: Sequence[tuple[Problem, Reply]], *, check: CheckMany) -> list[Ruling]:
    """On a batch's answers at once; where asking failed there is nothing to judge."""
    answered = [(problem, reply) for problem, reply in told if reply.error is None]
    problems = [problem for problem, _ in answered]
    if asked.shape is None:
        ruled = rule(problems, [reply.text for _, reply in answered], asked.kind, check=check)
    else:
        shape = asked.shape
        found = [answer_of(problem, as_one_text(reply), shape=shape) for problem, reply in answered]
        ruled = rule_on(problems, found, check=check)
    rulings = iter(ruled)
    return [
        next(rulings) if reply.error is None else Ruling(is_correct=False, extracted=None)
        for _, reply in told
    ]
