"""Measuring stages: one model, several ways of asking it, one eval.json.

The base is asked four ways (R1-Zero's template sampled, the same greedy, forced to think, forced to answer
at once), since a gain over one of them alone would prove little. A mode that is done is not sampled again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.files import read_lines, write_json, write_lines
from tenth.base.records import Problem
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_seed
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.frozen import guess_baselines, held_out_problems
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.stage import Outcome, open_log
from tenth.rollout.evaluate import Answer, answer_problems, scores_by_family, scores_by_level
from tenth.rollout.pool import LocalPool
from tenth.tasks.judge import Judge
from tenth.tasks.rewards import CheckMany
from tenth.tasks.shape import ZERO_SHAPE, AnswerShape
from tenth.tokenizer.chat import Template
from tenth.tokenizer.tokenizer import Tokenizer

_EXAMPLES_PER_FAMILY = 2
WIDE = EngineSettings(max_sequences=512, max_batch_tokens=2048)  # the whole test set is known in advance


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One way of asking."""

    name: str
    prefill: str = ""
    is_greedy: bool = False
    samples: int | None = None  # None: the recipe's
    template: Template | None = None  # None: the recipe's
    shape: AnswerShape = ZERO_SHAPE


FOUR_WAYS = (
    Mode(name="sampled"),
    Mode(name="greedy", is_greedy=True, samples=1),
    Mode(name="forced_think", prefill="<think>"),
    Mode(name="forced_direct", prefill="<answer>"),
)


def base_modes(recipe: ZeroRecipe) -> tuple[Mode, ...]:
    """The four ways; the template is sampled often enough for pass@16."""
    return (Mode(name="sampled", samples=recipe.eval.base_samples), *FOUR_WAYS[1:])


def measure(
    directory: Path,
    recipe: ZeroRecipe,
    asks: Sequence[tuple[Mode, Transformer]],
    tokenizer: Tokenizer,
    *,
    sinks: Sequence[MetricSink],
) -> Outcome:
    """Ask the test set in every mode, each of its model."""
    log = open_log(directory, sinks=sinks, from_step=0, total_steps=len(asks))
    answers: dict[str, list[list[Answer]]] = {}
    for number, (mode, model) in enumerate(asks):
        path = directory / "samples" / f"{mode.name}.jsonl"
        if not path.exists():
            groups = _ask(recipe, model, tokenizer, mode)
            write_lines(path, (row.to_dict() for group in groups for row in group))
        answers[mode.name] = read_answers(path)
        log.log(
            number, {f"accuracy/{mode.name}": scores_by_family(answers[mode.name])["overall"]["accuracy"]}
        )
    log.end()
    modes_scored = {name: scores_by_family(groups) for name, groups in answers.items()}
    write_json(directory / "eval.json", _evaluation(recipe, answers, modes_scored))
    tokens = sum(row.tokens for groups in answers.values() for group in groups for row in group)
    return Outcome(
        summary={f"accuracy_{name}": each["overall"]["accuracy"] for name, each in modes_scored.items()},
        tokens=float(tokens),
        flops=tokens
        * flops_per_token(asks[0][1].config, context_tokens=recipe.rl.max_completion_length).forward,
    )


def _ask(recipe: ZeroRecipe, model: Transformer, tokenizer: Tokenizer, mode: Mode) -> list[list[Answer]]:
    with Judge() as judge:
        return ask(recipe, model, tokenizer, mode, problems=held_out_problems(recipe), check=judge.check_many)


def ask(
    recipe: ZeroRecipe,
    model: Transformer,
    tokenizer: Tokenizer,
    mode: Mode,
    *,
    problems: Sequence[Problem],
    check: CheckMany,
) -> list[list[Answer]]:
    """Any problems in one mode, a group of judged samples for each."""
    params = SamplingParams(
        max_new_tokens=recipe.rl.max_completion_length,
        n=mode.samples or recipe.eval.samples,
        temperature=0.0 if mode.is_greedy else recipe.eval.temperature,
        top_p=1.0 if mode.is_greedy else recipe.eval.top_p,
        stop_ids=(tokenizer.eos_id,),
        seed=stream_seed(recipe.seed, "measure", mode.name),
    )
    return answer_problems(
        problems,
        LocalPool(Engine(model, WIDE), tokenizer),
        check,
        tokenizer=tokenizer,
        template=mode.template or recipe.template,
        params=params,
        prefill=mode.prefill,
        shape=mode.shape,
    )


def read_answers(path: Path) -> list[list[Answer]]:
    """Stored samples, grouped by problem again."""
    groups: dict[str, list[Answer]] = {}
    for _, row in read_lines(path):
        groups.setdefault(row["problem_id"], []).append(Answer.from_dict(row))
    return list(groups.values())


def _evaluation(
    recipe: ZeroRecipe, answers: dict[str, list[list[Answer]]], modes: dict[str, Any]
) -> dict[str, Any]:
    return {
        "settings": {
            "temperature": recipe.eval.temperature,
            "top_p": recipe.eval.top_p,
            "samples": recipe.eval.samples,
            "max_new_tokens": recipe.rl.max_completion_length,
            "seed": recipe.seed,
        },
        "modes": modes,
        "guess": guess_baselines(recipe),
        "levels": {name: scores_by_level(groups) for name, groups in answers.items()},
        "longest_in_documents": {section.name: section.document_levels[1] for section in recipe.families},
        "examples": [row for name, groups in answers.items() for row in _examples(name, groups)],
    }


def _examples(mode: str, groups: Sequence[Sequence[Answer]]) -> list[dict[str, Any]]:
    """The same first problems of every family in every mode, so that models can be set side by side."""
    taken: dict[str, int] = {}
    rows = []
    for first in (group[0] for group in groups):
        taken[first.family] = taken.get(first.family, 0) + 1
        if taken[first.family] <= _EXAMPLES_PER_FAMILY:
            keys = ("family", "level", "prompt", "answer", "text", "is_correct", "problem_id")
            rows.append({"mode": mode} | {key: getattr(first, key) for key in keys})
    return rows
