"""A reward model as a directory: the model directory that every tool loads, and two files for the head.

In:  a RewardModel, and what its score means. Out: the directory, whole or not there:
    config.json, safetensors, tokenizer, template, README.md      the network, as model_dir.py writes it
    value_head.safetensors                                        `score.weight` (1, D), float32
    reward.json                                                   which kind, the centre, the head's hash
`score.weight` is what `*ForSequenceClassification` of transformers calls it: put it beside the other tensors,
with num_labels = 1, and such a class loads both. It lies apart so that the directory stays a language model.
Not here: training (training/preference.py).
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.base.files import read_json, write_json
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.tensor_file import read_tensors, require_finite, write_tensors
from tenth.checkpoint.whole_dir import readable, whole_directory
from tenth.model.scalar_head import RewardModel
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.tokenizer import Tokenizer

HEAD, FACTS = "value_head.safetensors", "reward.json"
_SCORE = "score.weight"


class RewardKind(StrEnum):
    """What a reward model judges, and what it gets to see."""

    HELPFUL = "helpful"  # pairwise; the final summary alone
    SAFE = "safe"  # pointwise; thinking and summary


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardFacts:
    """What the score means."""

    kind: RewardKind
    centre: float = 0.0  # the score of an average answer; only differences mean something to a pairwise model


def save_reward_model(
    directory: Path,
    model: RewardModel,
    facts: RewardFacts,
    *,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    weights: dict[str, Tensor] | None = None,
    card: ModelCard | None = None,
) -> None:
    """Write `directory`, replacing what is there. `weights`: float32 masters by the names of `model`."""
    given = (weights or {}).items()
    exact = {name.removeprefix("body."): each for name, each in given if name.startswith("body.")}
    score = {_SCORE: model.head.weight.detach().float()}
    require_finite(score, source=directory)
    with whole_directory(directory) as partial:
        save_model(partial, model.body, tokenizer=tokenizer, template=template, weights=exact, card=card)
        head_hash = write_tensors(partial / HEAD, score)
        write_json(
            partial / FACTS, {"kind": facts.kind.value, "centre": facts.centre, "head_hash": head_hash}
        )


def load_reward_model(directory: Path, *, dtype: torch.dtype) -> tuple[RewardModel, RewardFacts]:
    """The inverse: the network's matrices in `dtype`, the head in float32."""
    place = readable(directory)
    if not (place / FACTS).exists():
        raise CheckpointError(
            f"{directory} is no reward model: {FACTS} is missing; make one with `tenth reward-model`."
        )
    values = read_json(place / FACTS)
    remedy = "train the reward model again."
    try:
        facts = RewardFacts(kind=RewardKind(values["kind"]), centre=float(values["centre"]))
        head_hash = str(values["head_hash"])
        if not math.isfinite(facts.centre):
            raise ValueError(f"centre is {facts.centre}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{place / FACTS} is damaged ({error!r:.200}); {remedy}") from error
    model = RewardModel(load_model(place, dtype=dtype))
    tensors = read_tensors(place / HEAD, content_hash=head_hash, remedy=remedy)
    if _SCORE not in tensors:
        raise CheckpointError(f"{place / HEAD} holds no {_SCORE}; {remedy}")
    weight = tensors[_SCORE]
    require_finite({_SCORE: weight}, source=place / HEAD)
    if weight.shape != model.head.weight.shape:
        raise CheckpointError(
            f"{place / HEAD}: {_SCORE} has shape {tuple(weight.shape)} and this network asks for "
            f"{tuple(model.head.weight.shape)}; {remedy}"
        )
    model.head.weight.data.copy_(weight)
    return model.eval(), facts
