"""The supervised stages of a run: a model, a file of samples -> a fine-tuned model.

Why: the cold start (Dev1), the second fine-tuning (Dev3) and distillation differ in their samples alone.
DeepSeek-R1 (arXiv:2501.12948v2), B.4.1: 2-3 epochs, cosine from 5e-5 to 5e-6, batch 128.
In:  a model to train in place, samples.jsonl as data/conversations.py reads it.
Out: `model/` in the stage's directory, metrics, the held-out loss before and after.
The loss falls on what the assistant says. As in reinforcement, draft modules (MTP) and router biases stay
as pre-training left them.
Not here: the steps (sft_trainer.py), making the samples (cold_start.py, rejection.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from tenth.base.runlog import MetricSink
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.model_dir import save_model
from tenth.data.conversations import read_examples
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.base import optim_config
from tenth.pipeline.r1_recipe import SftSection
from tenth.pipeline.saver import Saver, SavingRules
from tenth.pipeline.sft_trainer import SftPlan, SftTrainer, num_steps, split_examples
from tenth.pipeline.stage import Outcome, open_log
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer

_HELD_OUT_PROMPTS = 128  # at most; and at most a tenth of the prompts


def supervise(
    directory: Path,
    *,
    model: Transformer,
    tokenizer: Tokenizer,
    samples: Path,
    template: ChatTemplate,
    section: SftSection,
    seed: int,
    rules: SavingRules,
    sinks: Sequence[MetricSink],
    card: ModelCard | None = None,
) -> Outcome:
    """Fine-tune `model`; continued after a kill it ends bit for bit the same."""
    longest = model.config.max_position_embeddings
    found = read_examples([samples], tokenizer, template=template, max_tokens=longest)
    split = split_examples(found.examples, most=_HELD_OUT_PROMPTS, source=samples)
    plan = _plan(section, num_examples=len(split.training), seed=seed)
    trainer = SftTrainer(model, split, optim_config(section.optim), plan, pad_id=tokenizer.pad_id)
    loss_before, loss_after = _train(directory, trainer, Saver(directory, rules), sinks=sinks)
    scores = {
        f"held-out loss {when} ({len(split.held_out)} examples, nats per token)": loss
        for when, loss in (("before", loss_before), ("after", loss_after))
    }
    save_model(
        directory / "model",
        model,
        tokenizer=tokenizer,
        template=template,
        card=None if card is None else replace(card, scores={**card.scores, **scores}),
        weights=trainer.updater.masters.state_dict(),
    )
    flops = flops_per_token(model.config, context_tokens=trainer.mean_tokens).training * trainer.num_tokens
    return Outcome(
        summary={
            "loss_before": loss_before,
            "loss_after": loss_after,
            "examples": len(split.training),
            "held_out": len(split.held_out),
            "too_long": found.num_too_long,
            "steps": plan.steps,
        },
        tokens=float(trainer.num_tokens),
        flops=flops,
    )


def _plan(section: SftSection, *, num_examples: int, seed: int) -> SftPlan:
    return SftPlan(
        steps=num_steps(num_examples, epochs=section.epochs, batch_size=section.batch_size),
        batch_size=section.batch_size,
        warmup_share=section.warmup_share,
        floor=section.floor,
        micro_batch_tokens=section.micro_batch_tokens,
        seed=seed,
    )


def _train(
    directory: Path, trainer: SftTrainer, saver: Saver, *, sinks: Sequence[MetricSink]
) -> tuple[float, float]:
    """All steps from where it was saved last; the held-out loss before the first and after the last."""
    state = trainer.resume(saver)
    first = 0 if state is None else state.step
    before = trainer.held_out_loss() if state is None else float(state.facts["loss_before"])
    log = open_log(directory, sinks=sinks, from_step=first, total_steps=trainer.plan.steps)
    once_an_epoch = ceil(len(trainer.split.training) / trainer.plan.batch_size)
    trainer.train(log, saver, first=first, every=once_an_epoch, facts={"loss_before": before})
    return before, trainer.held_out_loss()
