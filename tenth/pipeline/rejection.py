"""Rejection sampling: the best of what the first RL checkpoint says, and general data, as one set.

DeepSeek-R1 (arXiv:2501.12948v2), B.3.3: several samples per prompt, kept when right; mixed languages, long
paragraphs and code blocks are dropped; prompts without a rule are judged by a model that sees the reference
answer; 600 K such samples and 200 K general ones (table 5).
Why: fine-tuning the base on this set gives it the reasoning of the checkpoint and keeps everything else.
In:  problems, a sampler, a checker, perhaps a judge, rows of general data.
Out: samples.jsonl, what was dropped and a card beside it.
Twice the same thinking to one prompt is one sample. Domains are balanced by a ceiling: none may hold more
than `max_domain_ratio` times what the median domain holds (the smallest would let one hard domain throw away
nearly everything).
Not here: the rules (sample_filter.py), the fine-tuning (supervised.py), who judges (rollout/llm_judge.py).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import median_low
from typing import Any

from tenth.base.records import Problem
from tenth.pipeline.r1_recipe import RejectionSection
from tenth.pipeline.sample_card import Drops, sample_row, write_set
from tenth.pipeline.sample_filter import (
    Candidate,
    Rules,
    at_most,
    is_for_judge,
    kept_by,
    sample_candidates,
    shuffled,
    tokens_of_rows,
)
from tenth.pipeline.stage import Outcome
from tenth.rollout.collect import prompt_messages
from tenth.rollout.pool import SamplerPool
from tenth.tasks.readability import FAULTS
from tenth.tasks.rewards import CheckMany
from tenth.tasks.shape import R1_SHAPE
from tenth.tokenizer.chat import ChatTemplate, split_thinking
from tenth.tokenizer.tokenizer import Tokenizer


def build_rejection_set(
    directory: Path,
    *,
    problems: Sequence[Problem],
    pool: SamplerPool,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    check: CheckMany,
    section: RejectionSection,
    seed: int,
    lineage: Mapping[str, str],
    general: Iterable[Mapping[str, Any]],
    judge: CheckMany | None = None,
    judged_by: str = "judge",
    paid: Callable[[], Mapping[str, Any]] | None = None,
) -> Outcome:
    """Sample, filter, deduplicate, balance, mix.

    `judge` is asked about problems whose metadata says {"verifier": "judge"}, and `paid` says what that has
    cost; `general` may be endless, and where it has too few the set has fewer.
    """
    candidates = sample_candidates(
        directory, problems, pool, tokenizer=tokenizer, template=template, section=section, seed=seed
    )
    drops = Drops()
    rules = Rules(check=check, shape=R1_SHAPE, readable=section.readable, judge=judge)
    right = _distinct(kept_by(rules, candidates, drops), drops)
    chosen = at_most(section.keep_per_prompt, right, drops, seed=seed)
    kept = _balanced(chosen, drops, ratio=section.max_domain_ratio, seed=seed)
    if not kept:
        raise drops.nothing_left(
            "rejection sampling",
            advice="train the stage before it longer, raise the samples per prompt, or loosen the limits in "
            "its section `readable`.",
        )
    described = {**lineage, "filters": ["cut_off", "no_answer", "wrong", "form", *FAULTS, "duplicate"]}
    judged = described | {"verifier": judged_by}
    reasoning = [
        sample_row(
            prompt_messages(each.problem),
            each.text,
            each.problem,
            lineage=judged if is_for_judge(each) else described,
        )
        for each in kept
    ]
    num_general = _num_general(len(reasoning), share=section.general_share)
    mixed_in = list(islice(general, num_general))
    rows = shuffled([*reasoning, *mixed_in], seed=seed, stream="rejection-order")
    bill = None if paid is None else paid()
    write_set(
        directory,
        rows,
        tokens_of=tokens_of_rows(tokenizer, template),
        drops=drops,
        paid=bill,
        notes=_notes(len(mixed_in), num_general),
    )
    summary = {
        "sampled": len(candidates),
        "kept": len(reasoning),
        "general": len(mixed_in),
        "dropped": dict(drops.counts),
    }
    return Outcome(
        summary=summary if bill is None else summary | {"usd": bill["usd"]},
        tokens=float(sum(each.tokens for each in candidates)),
    )


def _distinct(candidates: Iterable[Candidate], drops: Drops) -> list[Candidate]:
    """The first of those that think alike, blanks and case aside, about one problem."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for each in candidates:
        thinking = split_thinking(each.text).thinking or ""
        key = (each.problem.problem_id, "".join(thinking.split()).casefold())
        if key in seen:
            drops.add("duplicate", each.text)
        else:
            seen.add(key)
            kept.append(each)
    return kept


def _balanced(candidates: Sequence[Candidate], drops: Drops, *, ratio: float, seed: int) -> list[Candidate]:
    """No domain above `ratio` times the median domain; which of its samples stay is drawn."""
    sizes = Counter(each.problem.task for each in candidates)
    most = ceil(ratio * median_low(sizes.values())) if sizes else 0
    taken: Counter[str] = Counter()
    kept = []
    for each in shuffled(candidates, seed=seed, stream="balance"):
        taken[each.problem.task] += 1
        if taken[each.problem.task] <= most:
            kept.append(each)
        else:
            drops.add("balance", each.text)
    return kept


def _notes(num_mixed_in: int, num_general: int) -> list[str]:
    if num_mixed_in >= num_general:
        return []
    return [
        f"General data: {num_mixed_in:,} conversations where general_share asks for {num_general:,}; each is "
        "taken once, so their share is smaller."
    ]


def _num_general(num_reasoning: int, *, share: float) -> int:
    """So many that they are `share` of all rows."""
    return round(num_reasoning * share / (1 - share))
