"""R1's student: a dense base of its own, R1's answers, fine-tuning on them; and the same base reinforced
instead.

DeepSeek-R1 (arXiv:2501.12948v2), section 4 and appendix F.1: students are pre-trained bases that learn R1's
answers by SFT alone; a base of the same size that is reinforced and never sees them is the control.
In:  a run with R1 in it.
Out: each stage's `model/` or `samples.jsonl`; `compute.json` beside the control says what either side cost.
Compute is floating-point operations of training, and of sampling wherever somebody samples. The control is
given what distillation took with the teacher's sampling, and its state at what distillation took without is
kept, so that both comparisons can be made.
Not here: which problems (r1_data.py), choosing answers (rejection.py), SFT (supervised.py), GRPO
(reinforce.py), anybody's own models (distill.py).
"""

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from tenth.base.files import read_json, write_json, write_whole
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_card import CARD, ModelCard
from tenth.engine.engine import Engine
from tenth.model.counts import flops_per_token
from tenth.model.presets import preset
from tenth.pipeline.base import pretrain
from tenth.pipeline.flow import Work
from tenth.pipeline.measure import WIDE
from tenth.pipeline.r1_data import distinct_problems
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.rejection import build_rejection_set
from tenth.pipeline.sample_card import SAMPLES
from tenth.pipeline.stage import Outcome, done_number
from tenth.pipeline.supervised import supervise
from tenth.pipeline.zero_rl import reinforce_zero
from tenth.rollout.collect import prompt_ids
from tenth.rollout.pool import LocalPool
from tenth.tasks.judge import Judge
from tenth.tokenizer.chat import Template

COMPUTE = "compute.json"
MODEL, EARLY_MODEL = "model", "model-without-sampling"  # of the control: at the larger and the smaller budget


def pretrain_student(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """The student's base, from the documents that the teacher's base was made from."""
    return pretrain(
        directory,
        _as_student(work.recipe),
        documents=work.dirs["documents"],
        machine=work.machine,
        sinks=work.sinks,
    )


def ask_teacher(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """Training problems answered by R1 (T = 0.6): the right and readable answers, one set for the student."""
    recipe, student, tokenizer = work.recipe, work.recipe.student, work.tokenizer()
    model = work.model("r1")
    problems = distinct_problems(recipe, student.prompts, stream="distill-problems")
    asked = {
        "prompts": student.prompts,
        "samples": student.samples,
        "keep_per_prompt": student.samples,
        "temperature": student.temperature,
        "general_share": 0.0,
    }
    with Judge() as judge:
        outcome = build_rejection_set(
            directory,
            problems=problems,
            pool=LocalPool(Engine(model, WIDE), tokenizer),
            tokenizer=tokenizer,
            template=Template.DEEPSEEK,
            check=judge.check_many,
            section=recipe.rejection.model_copy(update=asked),
            seed=stream_seed(recipe.seed, "distill-data"),
            lineage={"model": f"{recipe.name}, r1", "verifier": "rules"},
            general=(),
        )
    # Every sampled answer, kept or not, and the prompt in front of it.
    prompts = (len(prompt_ids(problem, tokenizer, template=Template.DEEPSEEK)) for problem in problems)
    tokens = (outcome.tokens or 0.0) + student.samples * sum(prompts)
    context = max(1, round(tokens / (student.samples * len(problems))))
    cost = flops_per_token(model.config, context_tokens=context).forward
    return replace(outcome, tokens=tokens, flops=cost * tokens)


def tune_student(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """SFT and nothing else (F.1: 2-3 epochs, cosine to a tenth of the rate)."""
    recipe = work.recipe
    section = recipe.student.sft
    return supervise(
        directory,
        model=work.model("student-base"),
        tokenizer=work.tokenizer(),
        samples=work.dirs["student-data"] / SAMPLES,
        template=Template.DEEPSEEK,
        section=section,
        seed=stream_seed(recipe.seed, "distill-sft"),
        rules=recipe,
        sinks=work.sinks,
        card=_card(recipe, directory, f"Fine-tuned on answers of R1, {section.epochs:g} epochs."),
    )


def reinforce_student(directory: Path, work: Work[R1Recipe]) -> Outcome:
    """The control: the student's base under R1-Zero's rewards, for as much compute as distillation took."""
    recipe = work.recipe
    learning, sampling, pretraining = (
        done_number(work.dirs[stage], "flops") for stage in ("student", "student-data", "student-base")
    )
    reached: dict[str, dict[str, Any]] = {}
    for name, budget in {EARLY_MODEL: learning, MODEL: learning + sampling}.items():
        path = directory / f"{name}.json"
        if not path.exists():
            control = control_recipe(recipe, budget_flops=budget)
            outcome = reinforce_zero(
                directory,
                control,
                work.model("student-base"),
                work.tokenizer(),
                sinks=work.sinks,
                budget_flops=budget,
                name=name,
            )
            steps = outcome.summary["steps"]
            card = _card(recipe, directory, f"Reinforced by GRPO, accuracy and format: {steps} steps.")
            write_whole(directory / name / CARD, card.to_markdown().encode())
            facts = {"budget_flops": budget, "flops": outcome.flops, "tokens": outcome.tokens}
            write_json(path, facts | outcome.summary)
        reached[name] = read_json(path)
    compute = {
        "distillation": {
            "training_flops": learning,
            "training_tokens": done_number(work.dirs["student"], "tokens"),
            "teacher_sampling_flops": sampling,
            "teacher_sampling_tokens": done_number(work.dirs["student-data"], "tokens"),
        },
        "control_without_sampling": reached[EARLY_MODEL],
        "control_with_sampling": reached[MODEL],
        "base_flops": pretraining,  # of either side
    }
    write_json(directory / COMPUTE, compute)
    return Outcome(summary=compute, tokens=reached[MODEL]["tokens"], flops=reached[MODEL]["flops"])


def control_recipe(recipe: R1Recipe, *, budget_flops: float) -> ZeroRecipe:
    """R1-Zero's recipe for the student. Its steps, which only a progress bar reads, are a guess: answers of
    half the allowed length behind prompts of as many tokens."""
    rl, config = recipe.student.rl, preset(recipe.student.model)
    tokens = rl.prompts_per_step * rl.num_generations * rl.max_completion_length
    flops = flops_per_token(config, context_tokens=rl.max_completion_length)
    steps = ceil(budget_flops / (tokens * (flops.training + 2 * flops.forward)))
    return _as_student(recipe).model_copy(update={"rl": rl.model_copy(update={"steps": steps})})


def _as_student(recipe: R1Recipe) -> R1Recipe:
    return recipe.model_copy(update={"model": recipe.student.model, "pretrain": recipe.student.pretrain})


def _card(recipe: R1Recipe, directory: Path, last: str) -> ModelCard:
    student = recipe.student
    return ModelCard(
        name=f"{recipe.name}, {directory.name.partition('-')[2]}",
        stages=(
            f"Base: {student.model}, pre-trained from random weights on {student.pretrain.tokens:,} tokens, "
            f"seed {recipe.seed}.",
            last,
        ),
    )
