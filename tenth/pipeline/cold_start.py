"""The cold start: R1-Zero's own answers, the right and readable ones, rewritten for people.

DeepSeek-R1 (arXiv:2501.12948v2), B.3.2: thousands of prompts, R1-Zero sampled at temperature 1, kept when
right and readable, the thinking brought into the question's language, a summary with the answer in a box.
Why: reinforcement that begins from these answers keeps thinking in a form that people can follow.
In:  training problems, a sampler of R1-Zero, a checker, a way of rewriting.
Out: samples.jsonl (at most one answer per prompt), what was dropped and a card beside it.
By default the rewriting is by template: words of narration are translated, the summary is one sentence with
the answer in a box. A program, or a reply under instructions, fits into none and is its own summary. A large
run hands over a rewriter that asks a model. Either way the rewritten answer is judged again.
Not here: the rules (sample_filter.py), the fine-tuning (supervised.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenth.base.records import Problem
from tenth.pipeline.r1_recipe import ColdStartSection
from tenth.pipeline.sample_card import Drops, sample_row, write_set
from tenth.pipeline.sample_filter import (
    Candidate,
    Rules,
    at_most,
    kept_by,
    sample_candidates,
    shuffled,
    tokens_of_rows,
)
from tenth.pipeline.stage import Outcome
from tenth.rollout.collect import prompt_messages
from tenth.rollout.pool import SamplerPool
from tenth.tasks.check_code import is_code
from tenth.tasks.judge import summary_of
from tenth.tasks.narration import translate
from tenth.tasks.readability import FAULTS
from tenth.tasks.rewards import LANGUAGES, CheckMany
from tenth.tasks.shape import R1_SHAPE, ZERO_SHAPE, write_r1
from tenth.tokenizer.chat import Answer, ChatTemplate, Template, split_thinking
from tenth.tokenizer.tokenizer import Tokenizer

# Many at once, since whoever rewrites may answer many at a time. Out: R1's shape; None where it failed.
Rewrite = Callable[[Sequence[Problem], Sequence[Answer]], Sequence[str | None]]

_TEMPLATE_REWRITER = "template"


def rewrite_by_template(problems: Sequence[Problem], answers: Sequence[Answer]) -> list[str | None]:
    """Narration in the question's language, then one sentence with the answer, or what fits into no box."""
    return [
        write_r1(_thinking(problem, each), summary_of(problem, each.answer))
        if problem.language in LANGUAGES
        else None
        for problem, each in zip(problems, answers, strict=True)
    ]


def _thinking(problem: Problem, answer: Answer) -> str:
    """Where programs are asked for, a line that begins with "next" or "so" may be one of code."""
    thinking = (answer.thinking or "").strip()
    return thinking if is_code(problem) else translate(thinking, language=problem.language)


def build_cold_start(
    directory: Path,
    *,
    problems: Sequence[Problem],
    pool: SamplerPool,
    tokenizer: Tokenizer,
    template_from: ChatTemplate,
    check: CheckMany,
    section: ColdStartSection,
    seed: int,
    lineage: Mapping[str, str],
    rewrite: Rewrite | None = None,
    paid: Callable[[], Mapping[str, Any]] | None = None,
) -> Outcome:
    """Sample, filter, choose one per prompt, rewrite, filter again.

    `lineage["rewriter"]` names who rewrites, `paid` says what that has cost.
    """
    candidates = sample_candidates(
        directory, problems, pool, tokenizer=tokenizer, template=template_from, section=section, seed=seed
    )
    drops = Drops()
    written = Rules(check=check, shape=ZERO_SHAPE, readable=section.readable)
    chosen = at_most(1, kept_by(written, candidates, drops), drops, seed=seed)
    rewritten = _rewritten(chosen, rewrite or rewrite_by_template, tokenizer, drops)
    again = Rules(check=check, shape=R1_SHAPE, readable=section.rewritten)
    kept = shuffled(_kept_after_rewriting(again, rewritten, drops), seed=seed, stream="cold-start-order")
    if not kept:
        raise drops.nothing_left(
            "the cold start",
            advice="train R1-Zero longer, raise cold_start.samples, or loosen cold_start.readable.",
        )
    described = {
        **lineage,
        "filters": ["cut_off", "no_answer", "wrong", "form", *FAULTS],
        "rewriter": _TEMPLATE_REWRITER if rewrite is None else lineage.get("rewriter", "given"),
    }
    rows = [
        sample_row(prompt_messages(each.problem), each.text, each.problem, lineage=described) for each in kept
    ]
    bill = None if paid is None else paid()
    tokens_of = tokens_of_rows(tokenizer, Template.DEEPSEEK)
    write_set(directory, rows, tokens_of=tokens_of, drops=drops, paid=bill)
    summary = {"sampled": len(candidates), "kept": len(rows), "dropped": dict(drops.counts)}
    return Outcome(
        summary=summary if bill is None else summary | {"usd": bill["usd"]},
        tokens=float(sum(each.tokens for each in candidates)),
    )


def _rewritten(
    chosen: Sequence[Candidate], rewrite: Rewrite, tokenizer: Tokenizer, drops: Drops
) -> list[Candidate]:
    """Those that could be rewritten, with their new texts."""
    problems = [each.problem for each in chosen]
    answers = [
        Answer(split_thinking(each.text).thinking, ZERO_SHAPE.extract(each.text) or "") for each in chosen
    ]
    texts = rewrite(problems, answers) if chosen else []
    done = []
    for candidate, text in zip(chosen, texts, strict=True):
        if text is None:
            drops.add("rewrite_failed", candidate.text)
        else:
            # +1: the end token
            done.append(replace(candidate, text=text, tokens=len(tokenizer.encode(text)) + 1))
    return done


def _kept_after_rewriting(rules: Rules, rewritten: Sequence[Candidate], drops: Drops) -> list[Candidate]:
    """A rewriter can spoil an answer; its rules are counted apart."""
    again = Drops()
    kept = kept_by(rules, rewritten, again)
    drops.absorb(again, prefix="rewritten_")
    return kept
