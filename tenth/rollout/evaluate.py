"""Measuring a model on held-out problems: pass@1 over k samples, pass@k, cons@k, intervals, per family and
level.

Protocol of R1 (arXiv:2501.12948v2, appendix D.1): temperature 0.6, top-p 0.95, pass@1 averaged over k
samples; greedy only beside it. Intervals are over problems, since samples of one problem are not independent.
In:  problems, a sampler, a checker.  Out: `Answer` rows and `score` dictionaries as eval.json holds them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from statistics import fmean, pstdev
from typing import Any

from tenth.base.records import Completion, Finish, Problem, Record, Verdict
from tenth.engine.request import SamplingParams
from tenth.rollout.collect import prompt_ids
from tenth.rollout.pool import SamplerPool
from tenth.rollout.words import reflection_per_1k
from tenth.tasks.judge import answer_of
from tenth.tasks.readability import ReadableLimits, faults
from tenth.tasks.rewards import LANGUAGES, CheckMany, check_found, language_consistency
from tenth.tasks.shape import ZERO_SHAPE, AnswerShape
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer

_Z95 = 1.959964  # two-sided 95 % of the normal distribution
# What counts as readable is the same for every stage, whatever a recipe's filters let through.
_READABLE = ReadableLimits(min_language=0.99, max_repetition=0.3, max_paragraph_chars=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """One judged sample: a row of samples/MODE.jsonl."""

    problem_id: str
    family: str
    level: int
    prompt: str
    answer: str  # one right answer
    text: str  # what the model wrote, a forced start included
    extracted: str | None
    is_correct: bool
    has_format: bool
    thinks: bool
    finish: Finish
    tokens: int
    error: str | None = None
    language: float | None = None  # share of the thinking's words in the question's language
    is_readable: bool | None = None  # None: written before this was looked at


def answer_problems(
    problems: Sequence[Problem],
    pool: SamplerPool,
    check: CheckMany,
    *,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    params: SamplingParams,
    prefill: str = "",
    shape: AnswerShape = ZERO_SHAPE,
) -> list[list[Answer]]:
    """Sample and judge; `prefill` forces how the answer begins ("<think>" or "<answer>")."""
    prompts = [prompt_ids(problem, tokenizer, template=template, prefill=prefill) for problem in problems]
    groups = pool.sample(prompts, params)
    asked = [problem for problem, group in zip(problems, groups, strict=True) for _ in group]
    said = [replace(each, text=prefill + each.text) for group in groups for each in group]
    found = [answer_of(problem, each.text, shape=shape) for problem, each in zip(asked, said, strict=True)]
    verdicts = check_found(check, asked, found)
    rows = map(_answer, asked, said, found, verdicts, repeat(shape))
    return [[next(rows) for _ in group] for group in groups]


def _answer(
    problem: Problem, said: Completion, extracted: str | None, verdict: Verdict | None, shape: AnswerShape
) -> Answer:
    text, tokens = said.text, len(said.answer_ids)
    return Answer(
        problem_id=problem.problem_id,
        family=problem.task,
        level=problem.level,
        prompt=problem.prompt,
        answer=problem.answer,
        text=text,
        extracted=extracted,
        is_correct=bool(verdict and verdict.is_correct),
        has_format=shape.format_score(text) == 1.0,
        thinks="<think>" in text,
        finish=said.finish,
        tokens=tokens,
        error=verdict.error if verdict else None,
        language=language_consistency(text, problem.language) if problem.language in LANGUAGES else None,
        is_readable=not faults(text, problem.language, tokens=tokens, limits=_READABLE),
    )


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that one of k samples is right (Chen et al., arXiv:2107.03374, eq. 1)."""
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.prod((num_samples - num_correct - i) / (num_samples - i) for i in range(k))


def majority_is_correct(group: Sequence[Answer]) -> float:
    """cons@k: whether the most frequent extracted answer is right; ties share."""
    votes = Counter(row.extracted for row in group if row.extracted is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [text for text, count in votes.items() if count == most]
    right = {row.extracted for row in group if row.is_correct}
    return sum(winner in right for winner in winners) / len(winners)


def _rates(groups: Sequence[Sequence[Answer]]) -> list[float]:
    """Per problem, the share of right samples."""
    return [fmean(row.is_correct for row in group) for group in groups]


def half_width(rates: Sequence[float]) -> float:
    """Of the 95 % interval of the mean over problems."""
    return _Z95 * pstdev(rates) / math.sqrt(len(rates))


def score(groups: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Everything one table cell knows, from the answers of n problems with k samples each."""
    rates = _rates(groups)
    rows = [row for group in groups for row in group]
    languages = [row.language for row in rows if row.language is not None]
    readable = [row.is_readable for row in rows if row.is_readable is not None]
    samples = min(len(group) for group in groups)
    mean, half = fmean(rates), half_width(rates)
    ks = [k for k in (1, 4, 16) if k <= samples]
    return {
        "accuracy": mean,
        "low": max(0.0, mean - half),
        "high": min(1.0, mean + half),
        "problems": len(groups),
        "samples": samples,
        "pass_at": {
            str(k): fmean(pass_at_k(len(g), sum(r.is_correct for r in g), k) for g in groups) for k in ks
        },
        "cons": fmean(majority_is_correct(group) for group in groups) if samples > 1 else None,
        "truncated": fmean(row.finish is Finish.LENGTH for row in rows),
        "think_share": fmean(row.thinks for row in rows),
        "format": fmean(row.has_format for row in rows),
        "mean_tokens": fmean(row.tokens for row in rows),
        "reflection_per_1k": reflection_per_1k(
            [row.text for row in rows], num_tokens=sum(row.tokens for row in rows)
        ),
        "language": fmean(languages) if languages else None,
        "readable": fmean(readable) if readable else None,
        "verifier_errors": fmean(row.error is not None for row in rows),
    }


def scores_by_family(groups: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """`overall` (mean of families, so that no family weighs more for having more problems) and `families`."""
    families: dict[str, list[Sequence[Answer]]] = {}
    for group in groups:
        families.setdefault(group[0].family, []).append(group)
    by_family = {name: score(members) for name, members in families.items()}
    overall = score(groups)
    means = [row["accuracy"] for row in by_family.values()]
    # The interval of a mean of independent families: variances add.
    halves = [half_width(_rates(members)) for members in families.values()]
    half = math.sqrt(sum(each**2 for each in halves)) / len(halves)
    overall |= {
        "accuracy": fmean(means),
        "low": max(0.0, fmean(means) - half),
        "high": min(1.0, fmean(means) + half),
    }
    return {"overall": overall, "families": by_family}


def scores_by_level(groups: Sequence[Sequence[Answer]]) -> Mapping[str, Mapping[str, Any]]:
    """family -> level -> accuracy and how many problems it stands on."""
    cells: dict[tuple[str, int], list[float]] = {}
    for group in groups:
        cells.setdefault((group[0].family, group[0].level), []).append(fmean(row.is_correct for row in group))
    table: dict[str, dict[str, Any]] = {}
    for (family, level), rates in sorted(cells.items()):
        table.setdefault(family, {})[str(level)] = {"accuracy": fmean(rates), "problems": len(rates)}
    return table
