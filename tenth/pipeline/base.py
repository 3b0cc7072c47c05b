"""Stages that make the base model: write its documents, pre-train on them.

Both are pure functions of the recipe; pre-training continues from its newest checkpoint and ends bit for bit
where an uninterrupted one ends (same torch, thread count and kind of processor).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from tenth.base.errors import RunError
from tenth.base.files import write_json
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_dir import save_model
from tenth.data.corpus import (
    Source,
    decontaminate,
    dedupe,
    held_out_part,
    is_held_out,
    mix,
    read_documents,
)
from tenth.data.pretrain_stream import PretrainStream
from tenth.data.shards import TokenSet, load_tokens, write_tokens
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.checks import check_prompts
from tenth.pipeline.documents import Solutions, small_talk
from tenth.pipeline.frozen import held_out_problems, recipe_families
from tenth.pipeline.machine import Machine
from tenth.pipeline.recipe import OptimSection, PretrainSection, ZeroRecipe
from tenth.pipeline.saver import Saver
from tenth.pipeline.settings import model_config
from tenth.pipeline.stage import Outcome, open_log
from tenth.pipeline.zero_card import zero_card
from tenth.rollout.words import count_reflection_words
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe
from tenth.training.guard import Action, GuardMemory
from tenth.training.optim import OptimConfig, WeightUpdater
from tenth.training.pretrain import Pretrainer, PretrainPlan, held_out_bits_per_byte
from tenth.training.schedules import BatchRamp, LrSchedule, sequences_at, sequences_before, steps_for

_TOKENIZER_DOCUMENTS = 4000  # enough to see every word of the families
_HELD_OUT_TOKENS, _HELD_OUT_DOCUMENTS = 60_000, 64  # at most; at least
_EVALUATIONS = 20  # of held-out text over a pre-training
_ANCHORS = 10  # places in a pre-training that the guard may go back to


class _Parts:
    """One pass over the documents, cut in two by their content, so that no text is on both sides."""

    def __init__(self, documents: Iterator[str], *, held_out_share: float) -> None:
        self.documents, self.share = documents, held_out_share
        self.kept: list[str] = []

    def training(self) -> Iterator[str]:
        """The documents to learn from; the others are kept."""
        for text in self.documents:
            if is_held_out(text, share=self.share):
                self.kept.append(text)
            else:
                yield text

    def held_out(self) -> Iterator[str]:
        """The documents that were kept, and more where a short corpus left few."""
        few = max(0, _HELD_OUT_DOCUMENTS - len(self.kept))
        return chain(self.kept, islice(held_out_part(self.documents, held_out_share=self.share), few))


def write_documents(directory: Path, recipe: ZeroRecipe) -> Outcome:
    """The base's corpus as token files, and the tokenizer that read it."""
    config = recipe.documents
    solutions = Solutions(
        recipe.families,
        recipe_families(recipe),
        config,
        template=recipe.template,
        seed=stream_seed(recipe.seed, "documents"),
    )
    rest = 1 - config.text_share - config.small_talk_share
    sources = [Source(name="solutions", documents=solutions, weight=rest)]
    if config.small_talk_share:
        talk = small_talk(template=recipe.template, seed=stream_seed(recipe.seed, "documents"))
        sources.append(Source(name="small_talk", documents=talk, weight=config.small_talk_share))
    if config.text_files:
        files = dedupe(read_documents([Path(name) for name in config.text_files]))
        clean = decontaminate(files, against=[problem.prompt for problem in held_out_problems(recipe)])
        sources.append(Source(name="text", documents=clean, weight=config.text_share))
    documents = iter(mix(sources))
    sample = list(islice(documents, _TOKENIZER_DOCUMENTS))
    tokenizer = train_bpe(sample, vocab_size=config.vocab_size)
    check_prompts(recipe, tokenizer)
    tokenizer.save(directory)
    parts = _Parts(chain(sample, documents), held_out_share=config.held_out_share)
    train = write_tokens(parts.training(), tokenizer, directory / "train", max_tokens=config.tokens)
    kinds = dict(sorted(solutions.kinds.items()))
    held_out = write_tokens(parts.held_out(), tokenizer, directory / "held-out", max_tokens=_HELD_OUT_TOKENS)
    ids = sum(len(row) for row in tokenizer.encode_many(sample))
    summary = {
        "documents": train.index.num_documents,
        "tokens": train.num_tokens,
        "text_bytes": train.index.num_text_bytes,
        "held_out_tokens": held_out.num_tokens,
        "vocab_size": tokenizer.vocab_size,
        "reflection_per_1k": 1000 * sum(map(count_reflection_words, sample)) / max(1, ids),
        "kinds": kinds,
        "longest_in_documents": {section.name: section.document_levels[1] for section in recipe.families},
    }
    write_json(directory / "corpus.json", summary)
    return Outcome(summary=summary, tokens=float(train.num_tokens))


def optim_config(section: OptimSection) -> OptimConfig:
    """The recipe's section as training knows it."""
    return OptimConfig(
        kind=section.kind,
        lr=section.lr,
        muon_lr=section.muon_lr,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
    )


def new_model(recipe: ZeroRecipe, tokenizer: Tokenizer, machine: Machine) -> Transformer:
    """An untrained network, its weights a function of the recipe's seed."""
    generator = torch.Generator().manual_seed(stream_seed(recipe.seed, "weights"))
    model = initialise(
        Transformer(model_config(recipe, vocab_size=tokenizer.vocab_size)), generator=generator
    )
    return model.to_compute_dtype(machine.compute_dtype)


def _plan(config: PretrainSection, steps: int, machine: Machine) -> PretrainPlan:
    return PretrainPlan(
        total_tokens=config.tokens,
        schedule=LrSchedule(
            warmup_steps=max(1, round(config.warmup_share * steps)),
            constant_until=config.constant_until,
            floor=config.floor,
        ),
        mtp_weights=config.mtp_weight,
        matmul_peak=machine.matmul_peak,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """What a pre-training reads, and how much of it at each step."""

    stream: PretrainStream
    held_out: TokenSet
    ramp: BatchRamp
    steps: int

    def windows(self, step: int, *, skipped: int) -> torch.Tensor:
        """The sequences of one step; `skipped` lie behind a rollback. (B, T + 1 + depth)"""
        start = sequences_before(self.ramp, step=step) + skipped
        return torch.from_numpy(self.stream.batch(start, sequences_at(self.ramp, step=step)))


def _course(recipe: ZeroRecipe, documents: Path, *, depth: int) -> _Course:
    config = recipe.pretrain
    stream = PretrainStream(
        load_tokens(documents / "train"),
        sequence_length=config.sequence_length,
        seed=stream_seed(recipe.seed, "windows"),
        extra_tokens=depth,
    )
    wanted = -(-config.tokens // config.sequence_length)
    sizes = {"start": config.ramp_from_sequences, "final": config.sequences_per_step}
    ramp_steps = round(config.ramp_share * steps_for(BatchRamp(**sizes), num_sequences=wanted))
    ramp = BatchRamp(**sizes, ramp_steps=ramp_steps)
    return _Course(
        stream=stream,
        held_out=load_tokens(documents / "held-out"),
        ramp=ramp,
        steps=steps_for(ramp, num_sequences=wanted),
    )


def pretrain(
    directory: Path, recipe: ZeroRecipe, *, documents: Path, machine: Machine, sinks: Sequence[MetricSink]
) -> Outcome:
    """Train the base; its weights end in `model/`."""
    config = recipe.pretrain
    tokenizer = Tokenizer.load(documents)
    model = new_model(recipe, tokenizer, machine)
    course = _course(recipe, documents, depth=model.config.num_nextn_predict_layers)
    trainer = Pretrainer(
        model, WeightUpdater(model, optim_config(config.optim)), _plan(config, course.steps, machine)
    )
    saver = Saver(directory, recipe, anchor_every=max(1, course.steps // _ANCHORS))
    step, skipped = _resume(trainer, saver)
    log = open_log(directory, sinks=sinks, from_step=step, total_steps=course.steps)
    while step < course.steps:
        metrics, judgement = trainer.step(step, course.windows(step, skipped=skipped))
        if judgement.action is Action.STOP:
            raise RunError(f"{directory.name}, step {step}: {judgement.reason}")
        if judgement.action is Action.ROLLBACK:
            step, skipped = _go_back(trainer, saver, course, failed=step, skipped=skipped)
            log.start(from_step=step, total_steps=course.steps)
            continue
        if (step + 1) % max(1, course.steps // _EVALUATIONS) == 0 or step + 1 == course.steps:
            metrics["val_bpb"] = _bits_per_byte(model, course.held_out, config)
        log.log(step, metrics)
        step += 1
        if saver.is_due(step) or step == course.steps:
            saver.save(step, capture(trainer), facts(trainer, skipped=skipped))
    log.end()
    save_model(
        directory / "model",
        model,
        tokenizer=tokenizer,
        template=recipe.template,
        card=zero_card(recipe, directory),
        weights=trainer.updater.masters.state_dict(),
    )
    return Outcome(
        summary={"val_bpb": _bits_per_byte(model, course.held_out, config)},
        tokens=float(trainer.num_tokens),
        flops=trainer.num_tokens
        * flops_per_token(model.config, context_tokens=config.sequence_length).training,
    )


def _resume(trainer: Pretrainer, saver: Saver) -> tuple[int, int]:
    """Put the newest checkpoint into the trainer: (next step, sequences skipped so far)."""
    state = saver.load()
    if state is None:
        saver.save(0, capture(trainer), facts(trainer, skipped=0))
        return 0, 0
    restore(trainer, state.tensors, state.facts)
    return state.step, int(state.facts["skipped_sequences"])


def _go_back(
    trainer: Pretrainer, saver: Saver, course: _Course, *, failed: int, skipped: int
) -> tuple[int, int]:
    """Put the last anchor into the trainer: (next step, sequences skipped so far)."""
    memory = trainer.guard_memory  # it counts how often the run went back
    state = saver.go_back(failed)
    restore(trainer, state.tensors, state.facts)
    trainer.guard_memory = memory
    # On to other windows: the same ones would do it again.
    skipped += sequences_before(course.ramp, step=failed + 1) - sequences_before(course.ramp, step=state.step)
    saver.save(state.step, capture(trainer), facts(trainer, skipped=skipped))
    return state.step, skipped


def _bits_per_byte(model: Transformer, held_out: TokenSet, config: PretrainSection) -> float:
    stream = PretrainStream(held_out, sequence_length=config.sequence_length, seed=0)
    size = config.sequences_per_step
    batches = (
        torch.from_numpy(stream.batch(start, min(size, stream.sequences_per_epoch - start)))
        for start in range(0, stream.sequences_per_epoch, size)
    )
    return held_out_bits_per_byte(model, batches, tokens_per_byte=held_out.tokens_per_byte)


def capture(trainer: Pretrainer) -> dict[str, torch.Tensor]:
    """Every tensor that the next step depends on."""
    biases = {f"router/{i}": router.bias for i, router in enumerate(trainer.model.routers())}
    return trainer.updater.state_dict() | biases


def facts(trainer: Pretrainer, *, skipped: int) -> dict[str, Any]:
    """Everything else that the next step depends on; `skipped` sequences lie behind rollbacks."""
    return {
        "num_tokens": trainer.num_tokens,
        "guard": trainer.guard_memory.to_dict(),
        "skipped_sequences": skipped,
    }


def restore(trainer: Pretrainer, tensors: Mapping[str, torch.Tensor], saved: Mapping[str, Any]) -> None:
    """The inverse of `capture` and `facts`."""
    trainer.updater.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if not name.startswith("router/")}
    )
    for i, router in enumerate(trainer.model.routers()):
        router.bias.copy_(tensors[f"router/{i}"])
    trainer.num_tokens = int(saved["num_tokens"])
    trainer.guard_memory = GuardMemory.from_dict(saved["guard"])
