"""`tenth reward-model`: somebody's model on somebody's preferences, measured and trained.

In:  a checkpoint, preference files, which kind. Out: a directory:
    check.json       every candidate of the cross-validation with its interval, the verdict, the curve
    folds.json       what is known so far of that, for whoever repeats the command
    helpful/ | safe/ the reward model, trained on all but a held-out part (checkpoint/reward_dir.py)
    train-KIND/      its metrics and checkpoints
Not here: the measuring (reward_check.py), the training (reward_model.py), the command line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.config import dump_recipe
from tenth.base.errors import RunError
from tenth.base.files import file_hash, read_json, text_hash, write_json
from tenth.base.runlog import MetricSink
from tenth.checkpoint.reward_dir import RewardKind
from tenth.data.preferences import count_languages, read_preferences
from tenth.pipeline.lock import only_writer
from tenth.pipeline.r1_recipe import RewardModelSection
from tenth.pipeline.reward_check import baselines, read_units, sentence, tuned, verdict
from tenth.pipeline.reward_folds import cross_validate, draw_folds
from tenth.pipeline.reward_model import open_reader, train_reward_model
from tenth.pipeline.tune import open_base

CHECK, FOLDS = "check.json", "folds.json"
OURS = "reward model"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingEveryMinute:
    """When the final training saves."""

    checkpoint_every_seconds: float = 60.0
    keep_checkpoints: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRun:
    """A finished one."""

    model_dir: Path
    check: Mapping[str, Any]
    scores: Mapping[str, Any]  # of the final model, on prompts set aside


def run_reward_model(
    model: Path,
    data: Sequence[Path],
    *,
    kind: RewardKind,
    folds: int,
    repeats: int,
    out: Path,
    section: RewardModelSection,
    seed: int,
    sinks: Sequence[MetricSink] = (),
    say: Say = lambda _: None,
) -> RewardRun:
    """Cross-validate, then train on all but a part that is set aside. Repeat it to continue."""
    base = open_base(model)
    reader = open_reader(model, kind)
    found = read_preferences(data)
    languages = ", ".join(f"{name} {count:,}" for name, count in count_languages(found.pairs).items())
    say(f"{len(found.pairs):,} pairs ({languages or 'none'}), {len(found.labelled):,} labelled answers.")
    for line in found.sentences():
        say(line)
    units = read_units(reader, found)
    if units.num_too_long:
        say(f"{units.num_too_long:,} are longer than {reader.max_tokens:,} tokens and are left out.")
    settings = dump_recipe(section) | {"kind": kind.value, "folds": folds, "repeats": repeats, "seed": seed}
    made_of = text_hash(base.fingerprint(), *map(file_hash, data), repr(sorted(settings.items())))
    drawn = draw_folds(units.prompts, folds=folds, repeats=repeats, seed=seed)
    with only_writer(out):
        known = _known(out, made_of)
        ours = tuned(units, base=model, kind=kind, settings=section, pad_id=reader.tokenizer.pad_id)

        def keep(name: str, accuracies: list[float]) -> None:
            known[name] = accuracies
            write_json(out / FOLDS, {"made_of": made_of, "accuracies": known})
            if name == OURS:
                say(f"fold {len(accuracies)} of {len(drawn)}: {accuracies[-1]:.1%} of its pairs")

        results = cross_validate(
            baselines(units) | {OURS: ours}, drawn, seed=seed, known=dict(known), keep=keep
        )
        check = {
            "settings": settings,
            "candidates": [each.to_dict() for each in results.values()],
            **verdict(results, OURS, ours, drawn, curve_runs=folds, seed=seed),
        }
        check["sentence"] = sentence("The reward model", check)
        write_json(out / CHECK, check)
        outcome = train_reward_model(
            out,
            base=model,
            kind=kind,
            data=found,
            section=section,
            seed=seed,
            rules=SavingEveryMinute(),
            sinks=sinks,
        )
    return RewardRun(model_dir=out / kind, check=check, scores=outcome.summary)


def _known(out: Path, made_of: str) -> dict[str, list[float]]:
    if not (out / FOLDS).exists():
        return {}
    before = read_json(out / FOLDS)
    if before.get("made_of") != made_of:
        raise RunError(
            f"{out} was begun with another model, other files or other settings; repeat its own to continue "
            "it, or choose another --out."
        )
    return dict(before["accuracies"])
