"""Learning a teacher's distributions in place of its words: over its own answers, or over the student's.

Why: `tenth distill --kind logits` and `--kind on-policy` are fine-tunings with another loss; run, schedule,
guard, saving and measuring are those of `tenth sft`, so that only the loss stands here. Both numbers before
and after are mean divergences from the teacher, in nats per token.
In:  a student's run, a teacher with the same vocabulary.
Out: runs and trainers for tune_sft.py.
Not here: divergences (training/distill.py), where the teacher's answers come from (distill_answers.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tenth.base.seeds import stream_seed
from tenth.engine.engine import Engine
from tenth.engine.request import LogitMask, SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.sft_trainer import SftTrainer
from tenth.pipeline.stage import Outcome
from tenth.pipeline.tune import adapter_of
from tenth.pipeline.tune_recipe import DistillRecipe
from tenth.pipeline.tune_sft import SftRun, sft_plan
from tenth.rollout.pool import LocalPool, SamplerPool
from tenth.training.batches import TrainedSequence
from tenth.training.distill import (
    CutHead,
    DistillConfig,
    TaughtSequence,
    TopK,
    distill_gradients,
    distill_loss,
    live_gradients,
    live_loss,
    teacher_top_k,
)
from tenth.training.sft import SftStats
from tenth.training.top_k_files import has_top_k, read_top_k, write_top_k

_SEQUENCES_PER_SHARD = 256
Tops = Mapping[TrainedSequence, TopK]


def store_top_k(
    directory: Path,
    teacher: Transformer,
    sequences: Sequence[TrainedSequence],
    recipe: DistillRecipe,
    *,
    vocab_size: int,
    pad_id: int,
) -> Outcome:
    """The teacher reads every sequence once; shards that are there are not made again."""
    for path, members in _shards(directory, sequences):
        if not has_top_k(path):
            tops = teacher_top_k(
                CutHead(teacher, vocab_size=vocab_size),
                members,
                k=recipe.top_k,
                temperature=recipe.distill_temperature,
                micro_batch_tokens=recipe.micro_batch_tokens,
                pad_id=pad_id,
            )
            write_top_k(path, members, tops, temperature=recipe.distill_temperature)
    tokens = sum(len(each.ids) for each in sequences)
    cost = flops_per_token(teacher.config, context_tokens=max(1, tokens // len(sequences))).forward
    return Outcome(summary={"sequences": len(sequences)}, tokens=float(tokens), flops=cost * tokens)


def load_top_k(directory: Path, sequences: Sequence[TrainedSequence], recipe: DistillRecipe) -> Tops:
    """What `store_top_k` stored, by sequence."""
    found: dict[TrainedSequence, TopK] = {}
    for path, members in _shards(directory, sequences):
        tops = read_top_k(path, members, temperature=recipe.distill_temperature)
        found |= dict(zip(members, tops, strict=True))
    return found


def _shards(
    directory: Path, sequences: Sequence[TrainedSequence]
) -> list[tuple[Path, Sequence[TrainedSequence]]]:
    starts = range(0, len(sequences), _SEQUENCES_PER_SHARD)
    return [
        (directory / f"{number:05d}", sequences[start : start + _SEQUENCES_PER_SHARD])
        for number, start in enumerate(starts)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitRun(SftRun):
    """Fine-tuning towards stored distributions."""

    tops: Tops
    config: DistillConfig
    vocab_size: int

    def trainer(self, model: Transformer) -> SftTrainer:
        """See `SftRun`."""
        return _LogitTrainer(self, model)

    def held_out_loss(self, model: Transformer) -> float:
        """See `SftRun`."""
        return distill_loss(
            CutHead(model, vocab_size=self.vocab_size),
            self.taught(self.split.held_out),
            self.config,
            micro_batch_tokens=self.recipe.micro_batch_tokens,
            pad_id=self.base.tokenizer.pad_id,
        )

    def taught(self, sequences: Sequence[TrainedSequence]) -> list[TaughtSequence]:
        """With the teacher's distributions."""
        return [TaughtSequence(sequence=each, teacher=self.tops[each]) for each in sequences]


class _LogitTrainer(SftTrainer):
    def __init__(self, run: LogitRun, model: Transformer) -> None:
        recipe, pad_id = run.recipe, run.base.tokenizer.pad_id
        super().__init__(model, run.split, recipe.optim_config(), sft_plan(recipe), pad_id=pad_id)
        self.run, self.student = run, CutHead(model, vocab_size=run.vocab_size)

    def gradients(self, step: int) -> SftStats:
        return distill_gradients(
            self.student,
            self.updater,
            self.run.taught(self.examples(step)),
            self.run.config,
            micro_batch_tokens=self.plan.micro_batch_tokens,
            pad_id=self.pad_id,
        )

    def held_out_loss(self) -> float:
        return self.run.held_out_loss(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPolicyRun(SftRun):
    """Fine-tuning towards a teacher who reads what the student says. The examples of `split` are prompts, of
    which no token is trained."""

    teacher: Transformer
    config: DistillConfig
    vocab_size: int
    answer_tokens: int

    def train(self, directory: Path) -> Outcome:
        """See `SftRun`; the student's sampling and the teacher's reading count, too."""
        outcome = SftRun.train(self, directory)  # a slotted dataclass has no `super()`
        tokens = outcome.tokens or 0.0
        context = max(1, round(tokens / ((self.recipe.steps or 1) * self.recipe.batch_size)))
        readers = (self.base.config, self.teacher.config)
        costs = sum(flops_per_token(each, context_tokens=context).forward for each in readers)
        return replace(outcome, flops=(outcome.flops or 0.0) + tokens * costs)

    def trainer(self, model: Transformer) -> SftTrainer:
        """See `SftRun`."""
        return _OnPolicyTrainer(self, model)

    def held_out_loss(self, model: Transformer) -> float:
        """See `SftRun`."""
        return self.divergence(model, self.pool(model))

    def pool(self, model: Transformer) -> SamplerPool:
        """A sampler of the student."""
        most = self.recipe.batch_size
        settings = EngineSettings(max_sequences=most, max_batch_tokens=max(most, 2048))
        return LocalPool(Engine(model, settings), self.base.tokenizer, adapter=adapter_of(self.recipe))

    def sampled(
        self, pool: SamplerPool, prompts: Sequence[TrainedSequence], *, stream: tuple[str | int, ...]
    ) -> list[TrainedSequence]:
        """What the student says now, at temperature 1: its own distribution (GKD, arXiv:2306.13649)."""
        params = SamplingParams(
            max_new_tokens=self.answer_tokens,
            temperature=1.0,
            stop_ids=self.base.stop_ids,
            seed=stream_seed(self.recipe.seed, *stream),
            logit_mask=self._mask(),
        )
        groups = pool.sample([prompt.ids for prompt in prompts], params)
        return [
            TrainedSequence(
                ids=(*each.prompt_ids, *each.answer_ids),
                trained=(False,) * len(each.prompt_ids) + (True,) * len(each.answer_ids),
            )
            for (each,) in groups
        ]

    def _mask(self) -> LogitMask | None:
        """Without the student's padding rows, which the teacher may not have."""
        allowed = torch.arange(self.base.config.vocab_size) < self.vocab_size
        return None if bool(allowed.all()) else lambda _: allowed

    def divergence(self, model: Transformer, pool: SamplerPool) -> float:
        """Mean over answers to the prompts that were set aside."""
        return live_loss(
            CutHead(model, vocab_size=self.vocab_size),
            CutHead(self.teacher, vocab_size=self.vocab_size),
            self.sampled(pool, self.split.held_out, stream=("on-policy-held-out",)),
            self.config,
            micro_batch_tokens=self.recipe.micro_batch_tokens,
            pad_id=self.base.tokenizer.pad_id,
        )


class _OnPolicyTrainer(SftTrainer):
    def __init__(self, run: OnPolicyRun, model: Transformer) -> None:
        recipe, pad_id = run.recipe, run.base.tokenizer.pad_id
        super().__init__(model, run.split, recipe.optim_config(), sft_plan(recipe), pad_id=pad_id)
        self.run, self.pool = run, run.pool(model)
        self.student = CutHead(model, vocab_size=run.vocab_size)
        self.taught_by = CutHead(run.teacher, vocab_size=run.vocab_size)

    def gradients(self, step: int) -> SftStats:
        self.pool.refresh_weights()  # the last step's update, or a checkpoint, has changed them
        return live_gradients(
            self.student,
            self.taught_by,
            self.updater,
            self.run.sampled(self.pool, self.examples(step), stream=("on-policy", step)),
            self.run.config,
            micro_batch_tokens=self.plan.micro_batch_tokens,
            pad_id=self.pad_id,
        )

    def held_out_loss(self) -> float:
        self.pool.refresh_weights()
        return self.run.divergence(self.model, self.pool)
