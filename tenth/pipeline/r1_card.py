"""The model cards of an R1 run: what each stage's model was made from, at what price, what it can do.

In:  a run, a stage.  Out: a `ModelCard`; README.md, written again once the model has been measured.
Not here: the cards of base and R1-Zero (zero_card.py).
"""

from dataclasses import replace
from pathlib import Path

from tenth.base.files import write_whole
from tenth.checkpoint.model_card import CARD, ModelCard
from tenth.pipeline.flow import Work
from tenth.pipeline.r1_recipe import EndpointSection, R1Recipe, R1RewardModelSection, SftSection
from tenth.pipeline.recipe import RlSection
from tenth.pipeline.zero_card import cost_of, scores_of, zero_card

_ZERO = ("documents", "base", "zero")
_DEV1 = (*_ZERO, "cold-start-data", "cold-start")
_DEV2 = (*_DEV1, "reasoning-rl")
_DEV3 = (*_DEV2, "rejection-data", "general-sft")
_R1 = (*_DEV3, "reward-models", "r1")
# model -> everything that had to run for it
_MADE_BY = {
    "cold-start": _DEV1,
    "reasoning-rl": _DEV2,
    "general-sft": _DEV3,
    "r1": _R1,
    "student": (*_R1, "student-base", "student-data", "student"),
    "student-control": ("documents", "student-base", "student-control"),
}


def r1_card(work: Work[R1Recipe], stage_dir: Path, *, measured: Path | None = None) -> ModelCard:
    """The card of the stage in `stage_dir`."""
    stage = stage_dir.name.partition("-")[2]
    made_by = _MADE_BY[stage]
    base = zero_card(work.recipe, work.dirs["base"])
    sentences = _sentences(work.recipe)
    return replace(
        base,
        name=f"{work.recipe.name}, {stage}",
        stages=(*base.stages, *(sentences[name] for name in made_by if name in sentences)),
        cost=cost_of([work.dirs[name] for name in made_by], recipe=work.recipe),
        scores={} if measured is None else scores_of(measured),
    )


def write_r1_card(work: Work[R1Recipe], stage: str, *, measured: Path) -> None:
    """Write README.md again, with what is known now."""
    text = r1_card(work, work.dirs[stage], measured=measured).to_markdown()
    write_whole(work.dirs[stage] / "model" / CARD, text.encode())


def _sentences(recipe: R1Recipe) -> dict[str, str]:
    cold, rejection, student = recipe.cold_start, recipe.rejection, recipe.student
    return {
        "cold-start-data": f"Cold start: right and readable answers of R1-Zero to {cold.prompts:,} "
        f"questions, rewritten for people{_by(cold.rewriter)}.",
        "cold-start": f"Base fine-tuned on them, {_sft(cold.sft)}.",
        "reasoning-rl": f"Reinforced on reasoning: {_rl(recipe.reasoning_rl)}.",
        "rejection-data": f"Rejection sampling: right and readable answers of that model to "
        f"{rejection.prompts:,} questions{_by(rejection.judge, ', judged where no rule can')}, general data "
        f"for {rejection.general_share:.0%} of the set.",
        "general-sft": f"Base fine-tuned on the set, {_sft(rejection.sft)}.",
        "reward-models": _rewards(recipe.reward_model),
        "r1": f"Reinforced for all scenarios: {_rl(recipe.all_rl)}; reward models in the last "
        f"{recipe.all_rl.preference_steps} steps.",
        "student-base": f"Student's base: {student.model}, pre-trained from random weights on "
        f"{student.pretrain.tokens:,} tokens.",
        "student": f"Student fine-tuned on R1's right answers, {_sft(student.sft)}.",
        "student-control": "Student's base reinforced by GRPO on accuracy and format for the compute that "
        "distillation took.",
    }


def _by(section: EndpointSection | None, what: str = "") -> str:
    return "" if section is None else f"{what} by {section.model}"


def _rewards(section: R1RewardModelSection) -> str:
    if not section.helpful_files and not section.safe_files:
        return f"Reward models for helpfulness and safety from {section.pairs:,} pairs each."
    helpful, safe = (
        ", ".join(Path(name).name for name in names) or f"{section.pairs:,} toy pairs"
        for names in (section.helpful_files, section.safe_files)
    )
    return f"Reward models for helpfulness from {helpful} and for safety from {safe}."


def _sft(section: SftSection) -> str:
    return f"{section.epochs:g} epochs in batches of {section.batch_size}"


def _rl(section: RlSection) -> str:
    return (
        f"{section.steps} steps of {section.prompts_per_step} questions with {section.num_generations} "
        f"answers each (accuracy x {section.accuracy_weight:g}, format x {section.format_weight:g}, language "
        f"x {section.language_weight:g})"
    )
