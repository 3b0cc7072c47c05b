"""`tenth rl`: GRPO on somebody's model with somebody's problems and rewards.

measured -> reinforced -> measured again, on problems that are set aside, and a model that other tools load.
In:  a checkpoint, a problem file, functions that reward (given, they alone count, as in TRL).
Out: a run directory; `model/` in it; what the held-out problems earned before and after.
Not here: GRPO (reinforce.py), settings (tune_recipe.py), the command line (cli/rl.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.config import apply_overrides, build_recipe
from tenth.base.errors import ConfigError
from tenth.base.files import file_hash, read_json, write_json, write_lines
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_card import ModelCard
from tenth.engine.request import SamplingParams
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.lock import only_writer
from tenth.pipeline.machine import Machine
from tenth.pipeline.reinforce import (
    Course,
    Learner,
    batch_plan,
    build_pool,
    loss_config,
    reinforce,
    require_scores,
    rollout_row,
)
from tenth.pipeline.saver import Saver
from tenth.pipeline.stage import Outcome, Stage, adopt_records, done_number, open_log, run_stages
from tenth.pipeline.tune import (
    Base,
    adapter_of,
    begin_run,
    load_policy,
    load_to_learn,
    load_trained,
    lora_config,
    open_base,
    save_trained,
    take_over,
    write_card,
)
from tenth.pipeline.tune_memory import estimate, require_memory
from tenth.pipeline.tune_problems import (
    ProblemSplit,
    read_tasks,
    require_room,
    reward_names,
    shuffled_problems,
    split_problems,
)
from tenth.pipeline.tune_recipe import RlRecipe
from tenth.rollout.collect import collect
from tenth.rollout.held_out import HeldOut, measure_rewards
from tenth.tasks.judge import Judge
from tenth.tasks.rewards import RewardSet
from tenth.tasks.shape import ANY_SHAPE
from tenth.tasks.user_reward import UserReward, column_names
from tenth.training.reference import ReferenceView

_LR, _LR_ADAPTER = 1e-6, 2e-5  # peak rates where none is given
_ANSWER_TOKENS = 512
_SCORES = "scores.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RlResult:
    """A finished run."""

    run_dir: Path
    before: HeldOut
    after: HeldOut


def run_rl(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: Path,
    command: str = "",
    sinks: Sequence[MetricSink] = (),
    say: Callable[[str], None] = lambda _: None,
) -> RlResult:
    """Run, or continue, with the settings of `RlRecipe`; `command` is what somebody typed."""
    given = apply_overrides(dict(values), overrides)
    given.setdefault("learning_rate", _LR_ADAPTER if given.get("lora_rank") else _LR)
    recipe = build_recipe(RlRecipe, given, source="tenth rl")
    base = open_base(Path(recipe.model))
    recipe, split, note = _prepare(recipe, base)
    with only_writer(out), _rewards(recipe, split) as rewards:
        _require_memory(recipe, base)
        hashes = {"model": base.fingerprint(), "tasks": file_hash(Path(recipe.tasks))}
        files = {spec: Path(spec.rpartition(":")[0]) for spec in recipe.rewards}
        machine, settings = begin_run(out, recipe, hashes=hashes, reward_files=files, say=say)
        for sentence in (*note, *_introduction(out, recipe, split)):
            say(sentence)
        run = _Run(
            run_dir=out, recipe=recipe, base=base, split=split, rewards=rewards, machine=machine, sinks=sinks
        )
        stages = run.stages(settings)
        adopt_records(out, stages)  # of an earlier version
        run_stages(out, stages)
        before, after = (run.scores(name) for name in ("01-measure-before", "03-measure-after"))
        write_card(out, _card(run, command, before, after), base, recipe)
    return RlResult(run_dir=out, before=before, after=after)


def _prepare(recipe: RlRecipe, base: Base) -> tuple[RlRecipe, ProblemSplit, list[str]]:
    """Everything that can be known to be wrong before a weight is read; the settings without a None."""
    context = base.config.max_position_embeddings
    answer_tokens = recipe.max_completion_length or min(_ANSWER_TOKENS, context // 2)
    path = Path(recipe.tasks)
    problems = read_tasks(path, has_rewards=bool(recipe.rewards) or recipe.format_weight > 0)
    fitting = require_room(
        problems, base.tokenizer, template=base.template, answer_tokens=answer_tokens, context=context
    )
    split = split_problems(fitting, most=recipe.eval_problems, source=path)
    accuracy = recipe.accuracy_weight
    if accuracy and not split.has_answers:
        raise ConfigError(
            f"accuracy_weight = {accuracy:g}, but {path} has no answers to be accurate about; add a column "
            "'answer' or leave accuracy_weight out."
        )
    chosen = {
        "max_completion_length": answer_tokens,
        "accuracy_weight": float(split.has_answers and not recipe.rewards) if accuracy is None else accuracy,
        "minibatch_size": recipe.minibatch_size or recipe.prompts_per_step * recipe.num_generations,
    }
    resolved = build_recipe(RlRecipe, recipe.model_dump() | chosen, source="tenth rl")
    loss_config(resolved.rl_section())  # checks what is checked there
    lora_config(resolved, base)
    short = len(problems) - len(fitting)
    return resolved, split, [_too_long(short, len(problems), context - answer_tokens)] if short else []


def _too_long(count: int, of: int, limit: int) -> str:
    return f"{count:,} of {of:,} prompts are longer than {limit} tokens and are left out."


def _introduction(out: Path, recipe: RlRecipe, split: ProblemSplit) -> Iterator[str]:
    """What a person should read before it starts."""
    yield f"{out}: each step is {batch_plan(recipe.rl_section()).sentence()}."
    parts = [f"{weight:g} × {name}" for name, weight in _weights(recipe).items()]
    yield f"Reward: {' + '.join(parts)}."
    yield (
        f"{len(split.training):,} problems to train on; {len(split.held_out):,} others are set aside and "
        f"measured before and after, {recipe.eval_samples} sample{'s' * (recipe.eval_samples != 1)} each."
    )


def _weights(recipe: RlRecipe) -> dict[str, float]:
    """name -> weight of every reward that counts."""
    built_in = {
        "accuracy": recipe.accuracy_weight or 0.0,
        "format": recipe.format_weight,
        "language": recipe.language_weight,
    }
    names = reward_names(recipe.rewards)
    return {name: weight for name, weight in built_in.items() if weight} | {
        names[spec]: weight for spec, weight in recipe.rewards.items()
    }


@contextmanager
def _rewards(recipe: RlRecipe, split: ProblemSplit) -> Iterator[RewardSet]:
    """The rewards, their processes ended afterwards; one that wants an absent column is refused."""
    names = reward_names(recipe.rewards)
    columns, seconds = column_names((*split.training, *split.held_out)), recipe.reward_timeout_seconds
    with ExitStack() as stack:
        judge = stack.enter_context(Judge())
        functions = {
            names[spec]: stack.enter_context(
                closing(UserReward(spec, deadline_seconds=seconds, columns=columns))
            )
            for spec in recipe.rewards
        }
        yield RewardSet(judge.check_many, weights=_weights(recipe), functions=functions, shape=ANY_SHAPE)


def _require_memory(recipe: RlRecipe, base: Base) -> None:
    section = recipe.rl_section()
    is_adapter = recipe.lora_rank is not None
    needs_copy = section.beta > 0 and not is_adapter
    need = estimate(
        base.config,
        rank=recipe.lora_rank,
        targets=recipe.lora_targets,
        num_copies=1 + needs_copy,
        cached_tokens=section.prompts_per_step * section.num_generations * section.max_completion_length,
        batch_tokens=section.micro_batch_tokens,
    )
    require_memory(need, base.config, is_adapter=is_adapter)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the stages share."""

    run_dir: Path
    recipe: RlRecipe
    base: Base
    split: ProblemSplit
    rewards: RewardSet
    machine: Machine
    sinks: Sequence[MetricSink]

    def stages(self, settings: Mapping[str, Any]) -> list[Stage]:
        """The story."""
        return [
            Stage(name="measure-before", settings=settings, run=self._measure_before),
            Stage(name="rl", needs=("measure-before",), settings=settings, run=self._reinforce),
            Stage(name="measure-after", needs=("rl",), settings=settings, run=self._measure_after),
        ]

    def scores(self, stage: str) -> HeldOut:
        """What a measuring stage found."""
        return HeldOut.from_dict(read_json(self.run_dir / stage / _SCORES))

    def _measure_before(self, directory: Path) -> Outcome:
        model = load_policy(self.base, self.recipe, dtype=self.machine.compute_dtype)
        return self._measure(directory, model)

    def _measure_after(self, directory: Path) -> Outcome:
        dtype = self.machine.compute_dtype
        return self._measure(directory, load_trained(self.base, self.recipe, self.run_dir, dtype=dtype))

    def _reinforce(self, directory: Path) -> Outcome:
        recipe, base = self.recipe, self.base
        model, exact = load_to_learn(base, recipe, dtype=self.machine.compute_dtype)
        section = recipe.rl_section()
        adapter = adapter_of(recipe)
        course = Course(
            rl=section,
            seed=recipe.seed,
            template=base.template,
            draw_problems=shuffled_problems(self.split.training, seed=recipe.seed),
            stop_ids=base.stop_ids,
        )
        learner = Learner(
            course,
            model,
            base.tokenizer,
            build_pool(model, base.tokenizer, section, adapter=adapter),
            self.rewards,
            base=None if adapter is None else ReferenceView(model),
        )
        take_over(learner.updater, exact)
        outcome = reinforce(directory, learner, Saver(directory, recipe), sinks=self.sinks)
        save_trained(self.run_dir, model, base, recipe, learner.updater.masters.state_dict())
        return outcome

    def _measure(self, directory: Path, model: Transformer) -> Outcome:
        recipe, base = self.recipe, self.base
        section = recipe.rl_section()
        log = open_log(directory, sinks=self.sinks, from_step=0, total_steps=1)
        rollouts = collect(
            self.split.held_out,
            build_pool(model, base.tokenizer, section, adapter=adapter_of(recipe)),
            self.rewards,
            tokenizer=base.tokenizer,
            template=base.template,
            params=SamplingParams(
                max_new_tokens=section.max_completion_length,
                n=recipe.eval_samples,
                temperature=section.temperature,
                stop_ids=base.stop_ids,
                seed=stream_seed(recipe.seed, "held-out"),  # the same draws before and after
            ),
            policy_step=0,
        )
        require_scores(rollouts, where=directory.name)
        found = measure_rewards(rollouts)
        write_lines(directory / "answers.jsonl", map(rollout_row, rollouts))
        write_json(directory / _SCORES, found.to_dict())
        log.log(0, {"held_out_reward": found.reward, "completions/mean_length": found.mean_tokens})
        log.end()
        tokens = sum(len(each.answer_ids) for each in rollouts)
        flops = flops_per_token(base.config, context_tokens=section.max_completion_length).forward
        return Outcome(summary={"held_out_reward": found.reward}, tokens=float(tokens), flops=tokens * flops)


def _card(run: _Run, command: str, before: HeldOut, after: HeldOut) -> ModelCard:
    recipe, path = run.recipe, Path(run.recipe.tasks)
    tokens = done_number(run.run_dir / "02-rl", "tokens")
    return ModelCard(
        name=f"{run.base.name}-rl",
        datasets=(f"{path.name} ({file_hash(path)}, {len(run.split.training)} problems)",),
        stages=(
            f"Began as {run.base.name}.",
            f"GRPO on {recipe.what_learns}: {recipe.steps} steps of {recipe.prompts_per_step} prompts × "
            f"{recipe.num_generations} samples, {tokens:,.0f} tokens, peak learning rate "
            f"{recipe.learning_rate:g}.",
        ),
        scores={
            f"held-out reward before ({before.problems} problems × {before.samples} samples)": before.reward,
            f"held-out reward after ({after.problems} problems × {after.samples} samples)": after.reward,
        },
        command=command or None,
    )
