"""Stage: the two reward models of R1's last reinforcement (DeepSeek-R1, arXiv:2501.12948v2, section 3.1).

helpful   66,000 pairs, pairwise loss, sees the final summary alone
safe      106,000 answers labelled safe or unsafe, pointwise loss, sees thinking and summary
Both: R1's architecture with a scalar head, batch 256, rate 6e-6, one epoch, 8,192 tokens.

In:  a model directory to begin from, preferences of either kind.
Out: helpful/ and safe/ (checkpoint/reward_dir.py), scores.json: accuracy on prompts set aside, beside
     "the longer answer wins" and "the shorter answer wins".
Continues from its newest checkpoint; a model that is there is not trained again.
Not here: what a model sees (reward_scorer.py), cross-validation (reward_check.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from tenth.base.errors import DataError
from tenth.base.files import read_json, write_json
from tenth.base.records import PreferencePair
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_seed
from tenth.checkpoint.companions import load_template, load_tokenizer
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.model_dir import load_config, load_model
from tenth.checkpoint.reward_dir import FACTS, RewardFacts, RewardKind, save_reward_model
from tenth.data.preferences import PreferenceSet, read_preferences
from tenth.model.counts import flops_per_token
from tenth.pipeline.reward_scorer import Reader, ReadExamples, read_labels, read_pairs
from tenth.pipeline.reward_trainer import RewardSettings, RewardTrainer
from tenth.pipeline.saver import Saver, SavingRules
from tenth.pipeline.stage import Outcome, open_log
from tenth.pipeline.tune_draw import hold_out
from tenth.training.guard import GuardMemory
from tenth.training.preference import (
    Example,
    IdPair,
    Ids,
    LabelledIds,
    accuracy_of,
    reward_margins,
    reward_scores,
)

SCORES = "scores.json"
_MOST_HELD_OUT = 2000  # an accuracy is then known to about 2 points
Preferences = Path | Sequence[PreferencePair] | PreferenceSet


class StageSettings(RewardSettings, Protocol):
    """And how much of the preferences is set aside."""

    @property
    def held_out_share(self) -> float:
        """Of the prompts."""
        ...


def train_reward_models(
    directory: Path,
    *,
    base: Path,
    helpful: Preferences,
    safe: Preferences,
    section: StageSettings,
    seed: int,
    rules: SavingRules,
    sinks: Sequence[MetricSink],
) -> Outcome:
    """Both models, one after the other."""
    scores: dict[str, Any] = {}
    tokens = flops = 0.0
    for kind, given in ((RewardKind.HELPFUL, helpful), (RewardKind.SAFE, safe)):
        outcome = train_reward_model(
            directory, base=base, kind=kind, data=given, section=section, seed=seed, rules=rules, sinks=sinks
        )
        scores[kind.value] = outcome.summary
        tokens, flops = tokens + (outcome.tokens or 0), flops + (outcome.flops or 0)
    write_json(directory / SCORES, scores)
    return Outcome(summary=scores, tokens=tokens, flops=flops)


def train_reward_model(
    directory: Path,
    *,
    base: Path,
    kind: RewardKind,
    data: Preferences,
    section: StageSettings,
    seed: int,
    rules: SavingRules,
    sinks: Sequence[MetricSink],
) -> Outcome:
    """One model: `directory`/KIND, and beside it train-KIND with its metrics and checkpoints."""
    work = directory / f"train-{kind}"
    if (work / SCORES).exists() and (directory / kind / FACTS).exists():
        done = read_json(work / SCORES)
        return Outcome(summary=done["summary"], tokens=done["tokens"], flops=done["flops"])
    work.mkdir(parents=True, exist_ok=True)
    reader = open_reader(base, kind)
    read = read_examples(reader, data)
    training, held_out = split_examples(read, share=section.held_out_share)
    trainer = RewardTrainer(
        load_model(base, dtype=torch.float32),
        training,
        section,
        pad_id=reader.tokenizer.pad_id,
        seed=stream_seed(seed, "reward-model", kind),
    )
    _run(work, trainer, rules=rules, sinks=sinks)
    budget, pad_id = section.micro_batch_tokens, reader.tokenizer.pad_id
    margins = reward_margins(trainer.model, held_out, micro_batch_tokens=budget, pad_id=pad_id)
    scores = reward_scores(trainer.model, _sequences(held_out), micro_batch_tokens=budget, pad_id=pad_id)
    summary = {
        "accuracy": accuracy_of(margins),
        "longer_wins": length_accuracy(held_out),
        "shorter_wins": 1 - length_accuracy(held_out),
        "held_out": len(held_out),
        "training": len(training),
        "too_long": read.num_too_long,
    }
    save_reward_model(
        directory / kind,
        trainer.model,
        RewardFacts(kind=kind, centre=fmean(scores) if kind is RewardKind.HELPFUL else 0.0),
        tokenizer=reader.tokenizer,
        template=reader.template,
        weights=trainer.updater.masters.state_dict(),
        card=_card(base, kind, summary),
    )
    mean_tokens = max(1, round(fmean(map(len, _sequences(training)))))
    costs = flops_per_token(trainer.model.body.config, context_tokens=mean_tokens)
    done = {"summary": summary, "tokens": trainer.num_tokens, "flops": costs.training * trainer.num_tokens}
    write_json(work / SCORES, done)
    return Outcome(summary=summary, tokens=float(trainer.num_tokens), flops=done["flops"])


def open_reader(base: Path, kind: RewardKind) -> Reader:
    """How answers become ids for a model that begins from `base`."""
    return Reader(
        kind=kind,
        tokenizer=load_tokenizer(base),
        template=load_template(base),
        max_tokens=load_config(base).max_position_embeddings,
    )


def read_examples(reader: Reader, data: Preferences) -> ReadExamples:
    """What a model of that kind learns from; a file may also hold labelled answers."""
    if isinstance(data, Path):
        data = read_preferences([data])
    found = data if isinstance(data, PreferenceSet) else PreferenceSet(pairs=tuple(data))
    if reader.kind is RewardKind.HELPFUL and found.labelled:
        raise DataError(
            f"{len(found.labelled)} labelled answers among the preferences, but the helpful model compares "
            "pairs; train them with --kind safe."
        )
    if reader.kind is RewardKind.SAFE:
        read = read_labels(reader, found.pairs, found.labelled)
    else:
        read = read_pairs(reader, found.pairs)
    if not read.examples:
        raise DataError(
            f"none of the {read.num_too_long} preferences fits into {reader.max_tokens} tokens; shorten them "
            "or begin from a model with a longer context."
        )
    return read


def split_examples(read: ReadExamples, *, share: float) -> tuple[list[Example], list[Example]]:
    """(to learn from, to measure on); no prompt is on both sides, and which ones follows from their text."""
    most = max(1, min(_MOST_HELD_OUT, round(share * len(set(read.prompts)))))
    chosen = frozenset(hold_out(read.prompts, most=most, source=Path("the preferences")))
    sides: tuple[list[Example], list[Example]] = ([], [])
    for prompt, example in zip(read.prompts, read.examples, strict=True):
        sides[prompt in chosen].append(example)
    return sides


def length_accuracy(examples: Sequence[Example]) -> float:
    """How often "the longer answer wins" is right; of labels, how often a safe one is longer than an unsafe.

    The prompt is the same on both sides of a pair, so lengths in tokens compare the answers.
    """
    if isinstance(examples[0], IdPair):
        pairs = [each for each in examples if isinstance(each, IdPair)]
        return accuracy_of([len(each.chosen) - len(each.rejected) for each in pairs])
    labelled = [each for each in examples if isinstance(each, LabelledIds)]
    safe = [len(each.ids) for each in labelled if each.is_safe]
    unsafe = [len(each.ids) for each in labelled if not each.is_safe]
    if not safe or not unsafe:
        return 0.5
    return accuracy_of([one - other for one in safe for other in unsafe])


def _run(work: Path, trainer: RewardTrainer, *, rules: SavingRules, sinks: Sequence[MetricSink]) -> None:
    saver = Saver(work, rules)
    state = saver.load()
    first = 0
    if state is not None:
        first = state.step
        trainer.updater.load_state_dict(state.tensors)
        trainer.memory = GuardMemory.from_dict(state.facts["guard"])
        trainer.num_tokens = int(state.facts["num_tokens"])
    log = open_log(work, sinks=sinks, from_step=first, total_steps=trainer.steps)
    for step in range(first, trainer.steps):
        log.log(step, trainer.step(step))
        if saver.is_due(step + 1):
            facts = {"guard": trainer.memory.to_dict(), "num_tokens": trainer.num_tokens}
            saver.save(step + 1, trainer.updater.state_dict(), facts)
    log.end()


def _sequences(examples: Sequence[Example]) -> list[Ids]:
    return [
        ids
        for each in examples
        for ids in ((each.chosen, each.rejected) if isinstance(each, IdPair) else (each.ids,))
    ]


def _card(base: Path, kind: RewardKind, summary: Mapping[str, Any]) -> ModelCard:
    losses = {
        RewardKind.HELPFUL: "Bradley-Terry, on the final summary alone",
        RewardKind.SAFE: "logistic, on thinking and summary",
    }
    return ModelCard(
        name=f"reward-{kind}",
        base_model=base.resolve().name,
        stages=(
            f"Began as {base.resolve().name}.",
            f"Reward model ({kind}): {losses[kind]}; {summary['training']} examples. Its head is in "
            "value_head.safetensors, the score of the end token.",
        ),
        scores={f"held-out accuracy ({summary['held_out']} examples)": summary["accuracy"]},
    )
