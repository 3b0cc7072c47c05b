"""GRPO as a stage: R1-Zero from its base, or anybody's model on anybody's problems.

R1 (arXiv:2501.12948v2, section 2): sample a group per question, reward it, push each answer by how it did
against its group, keep near a reference that is refreshed every so many steps.
In:  a `Course` (knobs, seed, template, where problems come from), a model, a sampler, rewards.
Out: the model, changed; metrics, rollouts and checkpoints in the stage's directory.
Every random draw is a function of (seed, step), so a continued run repeats exactly what a checkpoint had not
kept.
Not here: which problems and rewards (zero_rl.py, tune_rl.py), saving the model for use.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tenth.base.errors import RunError
from tenth.base.files import write_lines
from tenth.base.records import Problem, Rollout
from tenth.base.runlog import MetricSink, read_metrics
from tenth.base.seeds import stream_random, stream_seed
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.model.counts import flops_per_token
from tenth.model.lora import adapter_names
from tenth.model.transformer import Transformer
from tenth.pipeline.base import optim_config
from tenth.pipeline.recipe import RlSection
from tenth.pipeline.saver import Saver
from tenth.pipeline.stage import Outcome, open_log
from tenth.rollout.collect import Rewards, collect, groups_of, has_signal
from tenth.rollout.hacking import HackingWatch
from tenth.rollout.pool import LocalPool, SamplerPool
from tenth.rollout.words import reflection_per_1k
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.training.batch_plan import BatchPlan
from tenth.training.grpo import GrpoStats, grpo_update, step_metrics, weigh_rollouts
from tenth.training.grpo_loss import GrpoConfig
from tenth.training.logprobs import LanguageModel
from tenth.training.optim import WeightUpdater
from tenth.training.rollout_metrics import rollout_metrics

_MAX_UNSCORED = 3  # steps in a row in which no answer got a reward: then it is no accident


class DrawProblems(Protocol):
    """Where a step's problems come from."""

    def __call__(self, step: int, count: int, *, draw: int) -> list[Problem]:
        """`count` problems, a function of the arguments; dynamic sampling asks again with draw = 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a learner is put through."""

    rl: RlSection
    seed: int
    template: ChatTemplate
    draw_problems: DrawProblems
    stop_ids: tuple[int, ...]  # what ends an answer


def batch_plan(config: RlSection) -> BatchPlan:
    """The one batch rule, printed at the start of a run."""
    return BatchPlan(
        prompts=config.prompts_per_step, samples=config.num_generations, minibatch_size=config.minibatch_size
    )


def loss_config(config: RlSection) -> GrpoConfig:
    """The objective that the knobs describe."""
    return GrpoConfig(
        beta=config.beta,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        num_iterations=config.num_iterations,
        loss_type=config.loss_type,
        scale_rewards=config.scale_rewards,
        mask_truncated_completions=config.mask_truncated,
        overlong_buffer=config.overlong_buffer or None,
        max_completion_length=config.max_completion_length,
    )


def build_pool(
    model: Transformer, tokenizer: Tokenizer, config: RlSection, *, adapter: str | None = None
) -> LocalPool:
    """A sampler with room for all rollouts of a step."""
    sequences = config.prompts_per_step * config.num_generations
    settings = EngineSettings(max_sequences=sequences, max_batch_tokens=max(sequences, 2048))
    return LocalPool(Engine(model, settings), tokenizer, adapter=adapter)


def reinforce(
    directory: Path,
    learner: "Learner",
    saver: Saver,
    *,
    sinks: Sequence[MetricSink],
    budget_flops: float | None = None,
) -> Outcome:
    """Take the learner through its course, from where it was saved last.

    `budget_flops`: the course ends with the step that reaches it, and not by its number of steps; its last
    state is saved, so that a larger budget goes on from there.
    """
    state = saver.load()
    step, steps = 0, learner.config.steps
    if state is not None:
        step = state.step
        learner.restore(state.tensors, state.facts)
    log = open_log(directory, sinks=sinks, from_step=step, total_steps=steps)
    watch = HackingWatch(read_metrics(log.path))
    while step < steps if budget_flops is None else learner.flops < budget_flops:
        metrics, rollouts = learner.step(step)
        log.log(step, metrics | watch.observe(metrics))
        write_lines(directory / "rollouts" / f"{step:06d}.jsonl", map(rollout_row, rollouts))
        is_last = budget_flops is not None and learner.flops >= budget_flops
        if is_last or saver.is_due(step + 1):
            saver.save(step + 1, learner.capture(), learner.facts(), score=metrics.get("reward"))
        require_scores(rollouts, where=f"{directory.name}, step {step}", steps_in_row=learner.num_unscored)
        step += 1
    log.end()
    summary = learner.totals() | ({} if budget_flops is None else {"steps": step})
    return Outcome(summary=summary, tokens=float(learner.num_tokens), flops=learner.flops)


def require_scores(rollouts: Sequence[Rollout], *, where: str, steps_in_row: int = _MAX_UNSCORED) -> None:
    """Stop where scoring fails for everybody, step after step: such a run would learn nothing for hours."""
    if steps_in_row >= _MAX_UNSCORED and _all_unscored(rollouts):
        raise RunError(
            f"{where}: not one of {len(rollouts)} answers could be scored ({rollouts[0].error}); mend that, "
            "then repeat the command to continue."
        )


def _all_unscored(rollouts: Sequence[Rollout]) -> bool:
    return all(rollout.error is not None for rollout in rollouts)


class Learner:
    """Policy, reference and updater of one reinforcement stage."""

    def __init__(
        self,
        course: Course,
        model: Transformer,
        tokenizer: Tokenizer,
        pool: SamplerPool,
        rewards: Rewards,
        *,
        base: LanguageModel | None = None,
    ) -> None:
        """`base`: the model without the adapters that learn, a reference that needs no copy."""
        config = course.rl
        self.course, self.config, self.model, self.tokenizer = course, config, model, tokenizer
        self.pool, self.rewards = pool, rewards
        self.updater = WeightUpdater(model, optim_config(config.optim))
        # The copy that is refreshed; a base that never changes is not.
        self.copied = copy.deepcopy(model).requires_grad_(False) if config.beta > 0 and base is None else None
        self.reference: LanguageModel | None = base if config.beta > 0 and base is not None else self.copied
        self.num_tokens, self.flops = 0, 0.0
        self.last: dict[str, float] = {}
        self.num_unscored = 0  # steps in a row in which no answer got a reward

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """Sample, score, update."""
        began = time.perf_counter()
        if self.copied is not None and step and step % self.config.reference_refresh_steps == 0:
            self.copied.load_state_dict(self.model.state_dict())
        self.pool.refresh_weights()  # the last step's update, or a checkpoint, has changed them
        rollouts = self._sample(step)
        sampled = time.perf_counter()
        stats = self._update(step, rollouts)
        done = time.perf_counter()
        metrics = rollout_metrics(rollouts) | step_metrics(stats)
        step_tokens = metrics["num_tokens"]
        self.num_tokens += int(step_tokens)
        flops = flops_per_token(self.model.config, context_tokens=max(1, round(step_tokens / len(rollouts))))
        references = 1 if self.reference is not None else 0
        learning = flops.adapting if adapter_names(self.model) else flops.training
        self.flops += step_tokens * (learning + flops.forward * (1 + references))
        answer_tokens = sum(len(rollout.answer_ids) for rollout in rollouts)
        metrics |= {
            "learning_rate": self.config.optim.lr * self._lr_factor(step),
            "think_share": sum("<think>" in rollout.text for rollout in rollouts) / len(rollouts),
            "reflection_per_1k": reflection_per_1k(
                [rollout.text for rollout in rollouts], num_tokens=answer_tokens
            ),
            "step_time": done - began,
            "time/rollout": sampled - began,
            "time/train": done - sampled,
        }
        self.num_unscored = self.num_unscored + 1 if _all_unscored(rollouts) else 0
        self.last = {key: metrics[key] for key in ("reward", "think_share") if key in metrics}
        return metrics, rollouts

    def _sample(self, step: int) -> list[Rollout]:
        rollouts = self._collect(step, self.config.prompts_per_step, draw=0)
        if not self.config.dynamic_sampling:
            return rollouts
        groups = [group for group in groups_of(rollouts).values() if has_signal(group)]
        missing = self.config.prompts_per_step - len(groups)
        if missing:
            extra = self._collect(step, missing, draw=1)
            groups += [group for group in groups_of(extra).values() if has_signal(group)]
        kept = groups or list(groups_of(rollouts).values())
        return [
            replace(rollout, group_id=group_id) for group_id, group in enumerate(kept) for rollout in group
        ]

    def _collect(self, step: int, count: int, *, draw: int) -> list[Rollout]:
        params = SamplingParams(
            max_new_tokens=self.config.max_completion_length,
            n=self.config.num_generations,
            temperature=self.config.temperature,
            stop_ids=self.course.stop_ids,
            seed=stream_seed(self.course.seed, "rollout", step, draw),
        )
        return collect(
            self.course.draw_problems(step, count, draw=draw),
            self.pool,
            self.rewards,
            tokenizer=self.tokenizer,
            template=self.course.template,
            params=params,
            policy_step=step,
        )

    def _update(self, step: int, rollouts: Sequence[Rollout]) -> list[GrpoStats]:
        config = loss_config(self.config)
        weighed = weigh_rollouts(rollouts, config)
        rng = stream_random(self.course.seed, "minibatches", step)
        stats = []
        for _ in range(config.num_iterations):
            for minibatch in batch_plan(self.config).minibatches(weighed, rng):
                stats.append(
                    grpo_update(
                        self.model,
                        self.reference,
                        self.updater,
                        minibatch.items,
                        config,
                        micro_batch_tokens=self.config.micro_batch_tokens,
                        share=minibatch.share,
                        lr_factor=self._lr_factor(step),
                        pad_id=self.tokenizer.pad_id,
                    )
                )
        return stats

    def _lr_factor(self, step: int) -> float:
        return min(1.0, (step + 1) / (self.config.warmup_steps + 1))

    def totals(self) -> dict[str, Any]:
        """The last step's numbers, for DONE.json."""
        return dict(self.last)

    def capture(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors = self.updater.state_dict()
        if self.copied is not None:
            tensors |= {f"reference/{name}": tensor for name, tensor in self.copied.state_dict().items()}
        return tensors

    def facts(self) -> dict[str, Any]:
        """Everything else."""
        return {
            "num_tokens": self.num_tokens,
            "flops": self.flops,
            "last": self.last,
            "num_unscored": self.num_unscored,
        }

    def restore(self, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """The inverse of `capture` and `facts`."""
        mine = {name: tensor for name, tensor in tensors.items() if not name.startswith("reference/")}
        self.updater.load_state_dict(mine)
        if self.copied is not None:
            self.copied.load_state_dict(
                {name.removeprefix("reference/"): tensors[name] for name in tensors if name not in mine}
            )
        self.num_tokens, self.flops, self.last = (
            int(saved["num_tokens"]),
            float(saved["flops"]),
            dict(saved["last"]),
        )
        self.num_unscored = int(saved.get("num_unscored", 0))  # a state of 0.2 does not have it


def rollout_row(rollout: Rollout) -> dict[str, Any]:
    """A stored rollout without what can be recomputed: prompt ids and log-probabilities would be nine tenths
    of the file."""
    return replace(rollout, prompt_ids=(), answer_logprobs=()).to_dict()
