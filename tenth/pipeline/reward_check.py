"""What a reward model is worth: cross-validated beside "longer wins", "shorter wins" and counting words.

In:  preferences, a model directory, settings. Out: every candidate on the same folds with intervals, a
     verdict, and where the model falls short a learning curve.
The network begins anew from the directory in every fold.
Not here: the final model (reward_model.py), folds and intervals (reward_folds.py).

A safe model learns from answers labelled one by one; pairs are still tested as pairs, by the order of
their scores. The words are counted in what the model sees, so neither side knows more than the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tenth.base.errors import DataError
from tenth.base.seeds import stream_random
from tenth.checkpoint.model_dir import load_model
from tenth.checkpoint.reward_dir import RewardKind
from tenth.data.preferences import PreferenceSet
from tenth.pipeline.reward_curve import extrapolate
from tenth.pipeline.reward_folds import Candidate, CrossValidated, Places, cross_validate
from tenth.pipeline.reward_linear import LinearJudge, word_products
from tenth.pipeline.reward_scorer import Reader, read_labels, read_pairs
from tenth.pipeline.reward_trainer import RewardSettings, RewardTrainer
from tenth.training.preference import Example, IdPair, LabelledIds, reward_margins

LONGER, SHORTER, WORDS = "longer wins", "shorter wins", "bag of words"
BASELINES = (LONGER, SHORTER, WORDS)
CURVE_SHARES = (0.125, 0.25, 0.5)  # of the training part; the whole is there already
_EVERY = "\ue000"  # a word in every answer: cancels in a pair, is the constant of a label


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What is judged right or wrong: pairs, or labels. Of a label the other side is the empty text."""

    examples: tuple[Example, ...]
    prompts: tuple[str, ...]
    better: tuple[str, ...]
    worse: tuple[str, ...]
    num_too_long: int


def read_units(reader: Reader, found: PreferenceSet) -> Units:
    """Pairs where there are any, else labels."""
    if found.pairs:
        read = read_pairs(reader, found.pairs)
        texts = [(reader.seen(each.chosen), reader.seen(each.rejected)) for each in found.pairs]
    else:
        read = read_labels(reader, (), found.labelled)
        said = [(reader.seen(each.response), each.is_safe) for each in found.labelled]
        texts = [(text, "") if is_safe else ("", text) for text, is_safe in said]
    if not read.examples:
        raise DataError(
            f"none of the {read.num_too_long} preferences fits into {reader.max_tokens} tokens; shorten them "
            "or begin from a model with a longer context."
        )
    return Units(
        examples=read.examples,
        prompts=read.prompts,
        better=tuple(texts[place][0] for place in read.places),
        worse=tuple(texts[place][1] for place in read.places),
        num_too_long=read.num_too_long,
    )


def baselines(units: Units) -> dict[str, Candidate]:
    """What needs no network."""
    longer = [float(len(one) - len(other)) for one, other in zip(units.better, units.worse, strict=True)]
    marked = [[text and text + _EVERY for text in side] for side in (units.better, units.worse)]

    def by_length(sign: float) -> Candidate:
        return lambda _trained, tested, _seed: [sign * longer[place] for place in tested]

    return {
        LONGER: by_length(1.0),
        SHORTER: by_length(-1.0),
        WORDS: LinearJudge(word_products(*marked), units.prompts),
    }


def tuned(units: Units, *, base: Path, kind: RewardKind, settings: RewardSettings, pad_id: int) -> Candidate:
    """The network, trained anew in every fold."""

    def judge(trained: Places, tested: Places, seed: int) -> list[float]:
        body = load_model(base, dtype=torch.float32)
        known = to_learn([units.examples[place] for place in trained], kind)
        model = RewardTrainer(body, known, settings, pad_id=pad_id, seed=seed).fit()
        asked = [units.examples[place] for place in tested]
        return reward_margins(model, asked, micro_batch_tokens=settings.micro_batch_tokens, pad_id=pad_id)

    return judge


def to_learn(examples: Sequence[Example], kind: RewardKind) -> list[Example]:
    """A safe model learns from each answer of a pair by itself."""
    if kind is RewardKind.HELPFUL:
        return list(examples)
    learnt: list[Example] = []
    for each in examples:
        if isinstance(each, IdPair):
            learnt += [LabelledIds(ids=each.chosen, is_safe=True)]
            learnt += [LabelledIds(ids=each.rejected, is_safe=False)]
        else:
            learnt.append(each)
    return learnt


def verdict(
    found: Mapping[str, CrossValidated],
    name: str,
    candidate: Candidate,
    drawn: Sequence[tuple[Places, Places]],
    *,
    curve_runs: int,
    seed: int,
) -> dict[str, Any]:
    """Whether `name` lies above the best baseline; if not, what a learning curve says."""
    best = max((found[each] for each in BASELINES), key=lambda each: each.interval.mean)
    interval, mark = found[name].interval, best.interval.mean
    result: dict[str, Any] = {
        "best_baseline": best.name,
        "beyond_best": found[name].beyond(best).to_dict(),
        "is_above": interval.low > mark,
        "is_telling": found[name].is_telling,
    }
    if not result["is_above"] and result["is_telling"]:
        runs = learning_runs(candidate, drawn[:curve_runs], seed=seed)
        full = round(sum(len(trained) for trained, _ in drawn) / len(drawn))
        runs[full] = list(found[name].accuracies)
        half_width = (interval.high - interval.low) / 2
        result["curve"] = extrapolate(runs, mark=mark, half_width=half_width, seed=seed)
    return result


def learning_runs(
    candidate: Candidate, drawn: Sequence[tuple[Places, Places]], *, seed: int
) -> dict[int, list[float]]:
    """Number of examples -> accuracies of runs that learnt from so many."""
    runs: dict[int, list[float]] = {}
    for share in CURVE_SHARES:
        parts = [
            (_some(trained, share, seed=seed, fold=fold), tested)
            for fold, (trained, tested) in enumerate(drawn)
        ]
        size = round(sum(len(trained) for trained, _ in parts) / len(parts))
        found = cross_validate({"curve": candidate}, parts, seed=seed)
        runs[size] = list(found["curve"].accuracies)
    return runs


def _some(trained: Places, share: float, *, seed: int, fold: int) -> Places:
    count = max(2, round(share * len(trained)))
    return sorted(stream_random(seed, "reward-curve", fold).sample(trained, min(count, len(trained))))


def sentence(name: str, check: Mapping[str, Any]) -> str:
    """The verdict in words."""
    best, beyond = check["best_baseline"], check["beyond_best"]
    gap = f"{beyond['mean']:+.1%} ({beyond['low']:+.1%} to {beyond['high']:+.1%})"
    if check["is_above"]:
        return f"{name} lies above {best} with its whole interval; the difference is {gap}."
    short = f"{name} does not lie above {best} with its whole interval"
    if not check["is_telling"]:
        return (
            f"{short}; so few examples allow no other statement, for that interval would reach beyond 0 % or "
            "100 %: give more of them."
        )
    short = f"{short}; the difference is {gap}."
    curve = check["curve"]
    need, (low, high) = curve["pairs_needed"], curve["range_80"]
    if need is None:
        return f"{short} By its learning curve no number of pairs that can be foretold would do it."
    ends = f"{low:,.0f} to {high:,.0f}" if low and high else f"from {low:,.0f} on" if low else "unknown"
    return f"{short} By its learning curve about {need:,.0f} pairs would do it (80 % range: {ends})."
