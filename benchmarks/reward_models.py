"""What small reward models reach on public preference pairs, beside length rules and counting words.

    OMP_NUM_THREADS=1 python -m benchmarks.reward_models DATA --work DIR [--tune]

Why: R1's reward models learnt from 66,000 pairs and 106,000 labels on top of a large model; the public pairs
at hand are 600 and 1,794, and the network has a million weights. Is there anything beyond counting words?
In:  DATA with train/pref_*.json*, train/sft_*.json*, corpora/*.gz.
Out: benchmarks/results/reward_models.json: every candidate on the same folds, five times five-fold, 95 %
     intervals by Nadeau and Bengio; verdicts; learning curves where a candidate falls short.
Candidates of ours:
    frozen network   pre-trained here on other text, its last hidden state, logistic regression
    ensemble         the same regression on words, the shape of the answer and the frozen network together
    tuned network    Bradley-Terry (helpful) or pointwise (safe) through all weights; one time five folds, as
                     five times would take an hour
What the network pre-trains on shares no run of ten words with any pair.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import measure
from benchmarks.provenance import RESULTS, provenance
from tenth.base.files import read_json, write_json
from tenth.base.records import PreferencePair
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.reward_dir import RewardKind
from tenth.data.conversations import read_conversations
from tenth.data.corpus import Source, decontaminate, mix, read_documents
from tenth.data.preferences import PreferenceSet, read_preferences
from tenth.data.pretrain_stream import PretrainStream
from tenth.data.shards import load_tokens, write_tokens
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.scalar_head import RewardModel
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.recipe import OptimSection
from tenth.pipeline.reward_check import BASELINES, Units, baselines, read_units, sentence, tuned, verdict
from tenth.pipeline.reward_folds import cross_validate, draw_folds
from tenth.pipeline.reward_linear import LinearJudge, feature_products, word_products, words_of
from tenth.pipeline.reward_model import open_reader
from tenth.tokenizer.chat import Template
from tenth.tokenizer.train import train_bpe
from tenth.training.optim import OptimConfig, OptimKind, WeightUpdater
from tenth.training.preference import IdPair, reward_features
from tenth.training.pretrain import Pretrainer, PretrainPlan
from tenth.training.schedules import LrSchedule

SETS = {
    "helpful": (RewardKind.HELPFUL, ("pref_dpo_en_demo.json", "pref_dpo_zh_demo.json")),
    "harmless": (RewardKind.SAFE, ("pref_hh_harmless_1800.jsonl.gz",)),
}
SEED, TOKENS, WINDOW, WINDOWS = 1, 1_000_000, 256, 32
PROMPT_CHARACTERS, ANSWER_CHARACTERS = 300, 800  # that the network reads; words are counted in all
TUNING = SimpleNamespace(
    epochs=1.0,
    batch_size=32,
    optim=OptimSection(kind=OptimKind.ADAMW, lr=2e-4, weight_decay=0.1),
    micro_batch_tokens=8192,
)


def documents(data: Path, pairs: Sequence[PreferencePair]) -> list[str]:
    """Conversations, novels, Chinese technical text; nothing that a pair says."""

    def chat() -> Iterator[str]:
        for _ in range(4):
            for name in ("sft_dolly_hhrlhf_small.jsonl", "sft_identity_en_zh.json"):
                for turns in read_conversations([data / "train" / name]):
                    yield "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in turns)

    def pieces(name: str) -> Iterator[str]:
        for text in read_documents([data / "corpora" / name]):
            yield from (text[start : start + 4000] for start in range(0, min(len(text), 400_000), 4000))

    sources = [
        Source(name="chat", documents=chat(), weight=0.3),
        Source(name="en", documents=pieces("en_novels_train.jsonl.gz"), weight=0.4),
        Source(name="zh", documents=pieces("zh_docs_paddle_docs_cn.jsonl.gz"), weight=0.3),
    ]
    against = [text for pair in pairs for text in (pair.prompt, pair.chosen, pair.rejected)]
    return list(decontaminate(islice(mix(sources), 4000), against=against))


def pretrain(work: Path, data: Path, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """A dense network of 1.3 million weights; its directory is WORK/base. What is there already is taken."""
    if (work / "pretraining.json").exists():
        facts: dict[str, Any] = read_json(work / "pretraining.json")
        return facts
    began, texts = time.monotonic(), documents(data, pairs)
    tokenizer = train_bpe(texts[:2000], vocab_size=4096)
    tokens = write_tokens(iter(texts), tokenizer, work / "tokens", max_tokens=TOKENS)
    config = ModelConfig(
        name="judge",
        vocab_size=4096,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        gqa=GqaConfig(num_key_value_heads=2, head_dim=32),
        max_position_embeddings=2048,
        initializer_range=0.02,
        tie_word_embeddings=True,
    )
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(SEED))
    model = model.to_compute_dtype(torch.bfloat16)
    updater = WeightUpdater(model, OptimConfig(kind=OptimKind.MUON, lr=3e-3))
    schedule = LrSchedule(warmup_steps=10, constant_until=0.5, floor=0.05)
    plan = PretrainPlan(
        total_tokens=tokens.num_tokens, schedule=schedule, mtp_weights=(0, 0), matmul_peak=1.0
    )
    trainer = Pretrainer(model, updater, plan)
    stream = PretrainStream(load_tokens(work / "tokens"), sequence_length=WINDOW, seed=SEED)
    steps, loss = tokens.num_tokens // (WINDOW * WINDOWS), 0.0
    for step in range(steps):
        metrics, _ = trainer.step(step, torch.from_numpy(stream.batch(step * WINDOWS, WINDOWS)))
        loss = metrics["loss"]
    save_model(
        work / "base",
        model,
        tokenizer=tokenizer,
        template=Template.DEEPSEEK,
        weights=updater.masters.state_dict(),
    )
    facts = {
        "tokens": trainer.num_tokens,
        "last_loss": loss,
        "parameters": sum(each.numel() for each in model.parameters()),
        "wall_seconds": round(time.monotonic() - began),
    }
    write_json(work / "pretraining.json", facts)
    return facts


def shortened(found: PreferenceSet) -> PreferenceSet:
    """What the network reads: the end of the question, the beginning of the answers."""
    return PreferenceSet(
        pairs=tuple(
            replace(
                pair,
                prompt=pair.prompt[-PROMPT_CHARACTERS:],
                chosen=pair.chosen[:ANSWER_CHARACTERS],
                rejected=pair.rejected[:ANSWER_CHARACTERS],
                metadata={},
            )
            for pair in found.pairs
        )
    )


def frozen_products(base: Path, units: Units) -> Tensor:
    """Of chosen minus rejected last hidden states. (N, N)"""
    model = RewardModel(load_model(base, dtype=torch.float32))
    pairs = [each for each in units.examples if isinstance(each, IdPair)]
    ids = [each.chosen for each in pairs] + [each.rejected for each in pairs]
    better, worse = reward_features(model, ids, micro_batch_tokens=8192).chunk(2)
    return feature_products(better - worse)


def shape(prompt: str, answer: str) -> list[float]:
    """What an answer looks like, whatever it says."""
    words, asked = words_of(answer), set(words_of(prompt))
    count = len(words) + 1
    lines = re.findall(r"(?m)^\s*(?:\d+[.)]|[-*])", answer)
    sizes = torch.tensor([len(answer), answer.count("\n"), len(lines), len(answer) ** 2]).double().log1p()
    shares = [
        len(set(words)) / count,
        len(set(words) & asked) / count,
        answer.count("?") / count,
        answer.count("!") / count,
        sum(sign.isdigit() for sign in answer) / count,
        float(answer.rstrip().endswith((".", "!", "?", "。", "！", "？"))),
    ]
    return [*sizes.tolist(), *shares]


def shape_products(units: Units) -> Tensor:
    """Of chosen minus rejected. (N, N)"""
    sides = [
        torch.tensor([shape(prompt, text) for prompt, text in zip(units.prompts, side, strict=True)])
        for side in (units.better, units.worse)
    ]
    return feature_products(sides[0] - sides[1])


def study(name: str, data: Path, work: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    """One set: every candidate on the same folds; and what adds the tuned network to that."""
    kind, files = SETS[name]
    found = read_preferences([data / "train" / file for file in files])
    reader = open_reader(work / "base", kind)
    short = read_units(reader, shortened(found))
    assert short.num_too_long == 0, "a shortened pair is too long for the network"
    whole = replace(
        short,
        prompts=tuple(pair.prompt for pair in found.pairs),
        better=tuple(pair.chosen for pair in found.pairs),
        worse=tuple(pair.rejected for pair in found.pairs),
    )
    drawn = draw_folds(whole.prompts, folds=5, repeats=5, seed=SEED)
    words, frozen = word_products(whole.better, whole.worse), frozen_products(work / "base", short)
    joined = (words + frozen + shape_products(whole)) / 3
    ours = {
        "frozen network": LinearJudge(frozen, whole.prompts),
        "ensemble": LinearJudge(joined, whole.prompts),
    }
    results = cross_validate(baselines(whole) | ours, drawn, seed=SEED)
    print(name, {key: round(each.interval.mean, 4) for key, each in results.items()}, flush=True)
    best = max(BASELINES, key=lambda each: results[each].interval.mean)
    verdicts = {
        key: verdict(results, key, judge, drawn, curve_runs=10, seed=SEED) for key, judge in ours.items()
    }
    result = {
        "pairs": len(found.pairs),
        "left_out": {rule: len(places) for rule, places in found.dropped.items()},
        "candidates": [each.to_dict() for each in results.values()],
        "best_baseline": best,
        "verdicts": {key: each | {"sentence": sentence(key, each)} for key, each in verdicts.items()},
    }

    def tune() -> None:
        network = tuned(short, base=work / "base", kind=kind, settings=TUNING, pad_id=reader.tokenizer.pad_id)
        five = cross_validate({"tuned network": network}, drawn[:5], seed=SEED)
        result["candidates"] += [five["tuned network"].to_dict()]

    return result, tune


def main() -> None:
    """Pre-train, then study every set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tune", action="store_true", help="the tuned network, too: most of the time")
    given = parser.parse_args()
    command = "python -m benchmarks.reward_models DATA --work DIR" + " --tune" * given.tune
    torch.set_num_threads(1)
    began, cpu_began = time.monotonic(), time.process_time()
    every = read_preferences([given.data / "train" / file for _, files in SETS.values() for file in files])
    result: dict[str, Any] = {"pretraining": pretrain(given.work, given.data, every.pairs)}
    print(json.dumps(result), round(time.monotonic() - began), flush=True)
    sets = {name: study(name, given.data, given.work) for name in SETS}
    result["sets"] = {name: found for name, (found, _) in sets.items()}
    machine = measure()

    def save() -> None:
        result["seconds"] = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu_began}
        write_json(
            RESULTS / "reward_models.json",
            provenance("reward_models", machine) | {"command": command} | result,
        )

    save()  # the slow part is still to come
    for _, tune in sets.values() if given.tune else ():
        tune()
        save()


if __name__ == "__main__":
    main()
