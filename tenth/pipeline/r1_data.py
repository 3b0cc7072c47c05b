"""The training sets of R1's stages: who is asked what.

DeepSeek-R1 (arXiv:2501.12948v2), B.3.2 and B.3.3.
In:  a run whose R1-Zero, or whose first RL checkpoint, is trained.  Out: samples.jsonl with its card.
Every question is of the training split; no test question is asked.
Not here: sampling, rules and cards (cold_start.py, rejection.py).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tenth.base.records import Problem
from tenth.base.seeds import stream_random, stream_seed
from tenth.engine.engine import Engine
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.cold_start import build_cold_start
from tenth.pipeline.documents import training_problem
from tenth.pipeline.flow import Work
from tenth.pipeline.frozen import recipe_families
from tenth.pipeline.measure import WIDE
from tenth.pipeline.r1_endpoints import Helper, require_key
from tenth.pipeline.r1_files import general_rows
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.rejection import build_rejection_set
from tenth.pipeline.stage import Outcome
from tenth.rollout.pool import LocalPool
from tenth.tasks.general import conversations
from tenth.tasks.judge import Judge
from tenth.tokenizer.chat import Template

_PATIENCE = 50  # draws without a new question before a family has no more


def sample_cold_start(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """R1-Zero's answers at T = 1, the right and readable ones rewritten (B.3.2)."""
    recipe, tokenizer = work.recipe, work.tokenizer()
    model = work.model("zero")
    section = recipe.cold_start.rewriter
    helper = None if section is None else Helper(section, work.run_dir, role="rewriter")
    lineage = {"model": f"{recipe.name}, zero", "verifier": "rules"}
    with Judge() as judge:
        outcome = build_cold_start(
            directory,
            problems=distinct_problems(recipe, recipe.cold_start.prompts, stream="cold-start-problems"),
            pool=LocalPool(Engine(model, WIDE), tokenizer),
            tokenizer=tokenizer,
            template_from=recipe.template,
            check=judge.check_many,
            section=recipe.cold_start,
            seed=stream_seed(recipe.seed, "cold-start-data"),
            lineage=lineage if helper is None else lineage | {"rewriter": helper.name},
            rewrite=None if helper is None else helper.rewriter(),
            paid=None if helper is None else helper.paid,
        )
    return _with_cost(outcome, model, longest=recipe.cold_start.max_completion_length)


def sample_rejection_set(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """Dev2's answers that are right and readable, and general conversations beside them (B.3.3)."""
    recipe, tokenizer = work.recipe, work.tokenizer()
    section = recipe.rejection
    model = work.model("reasoning-rl")
    helper = None if section.judge is None else Helper(section.judge, work.run_dir, role="judge")
    with Judge() as judge:
        outcome = build_rejection_set(
            directory,
            problems=distinct_problems(recipe, section.prompts, stream="rejection-problems"),
            pool=LocalPool(Engine(model, WIDE), tokenizer),
            tokenizer=tokenizer,
            template=Template.DEEPSEEK,
            check=judge.check_many,
            section=section,
            seed=stream_seed(recipe.seed, "rejection-data"),
            lineage={"model": f"{recipe.name}, reasoning-rl", "verifier": "rules"},
            general=_general(work),
            judge=None if helper is None else helper.judge().judge,
            judged_by="judge" if helper is None else helper.name,
            paid=None if helper is None else helper.paid,
        )
    return _with_cost(outcome, model, longest=section.max_completion_length)


def require_rejection(work: Work[R1Recipe]) -> None:
    """The judge's key, and general conversations that can be read."""
    section = work.recipe.rejection
    require_key(section.judge)
    general_rows(work.folder, section.general_files, seed=0)


def distinct_problems(recipe: ZeroRecipe, count: int, *, stream: str) -> list[Problem]:
    """`count` different training problems, every family in turn; fewer where the families have no more."""
    families, sections = recipe_families(recipe), list(recipe.asked)
    rng = stream_random(recipe.seed, stream)
    found: dict[str, Problem] = {}
    while sections and len(found) < count:
        for section in tuple(sections):
            drawn = (training_problem(families[section.name], section.levels, rng) for _ in range(_PATIENCE))
            new = next((problem for problem in drawn if problem.problem_id not in found), None)
            if new is None:
                sections.remove(section)
            elif len(found) < count:
                found[new.problem_id] = new
    return list(found.values())


def _general(work: Work[R1Recipe]) -> list[dict[str, Any]]:
    """General conversations, at least as many as the set can take if there are so many."""
    section, seed = work.recipe.rejection, stream_seed(work.recipe.seed, "general")
    if section.general_files:
        return general_rows(work.folder, section.general_files, seed=seed)
    most = section.prompts * section.keep_per_prompt / (1 - section.general_share)
    return conversations(seed=seed, count=round(most * section.general_share) + 1)


def _with_cost(outcome: Outcome, model: Transformer, *, longest: int) -> Outcome:
    """And the floating-point operations of sampling."""
    cost = flops_per_token(model.config, context_tokens=longest).forward
    return replace(outcome, flops=cost * (outcome.tokens or 0.0))
