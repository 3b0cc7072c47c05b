"""A teacher's kept distributions on disk, a shard of sequences per file, beside the samples they belong to.

Why: a large teacher reads a set once and may then leave the memory. A shard is whole or not there, and its
hashes tell whether it belongs to these sequences.
In:  sequences and the `TopK` of each.
Out: NAME.safetensors: `ids` (N, K) int32 and `logp` (N, K + 1) float32, over all trained tokens of the
shard's sequences one after the other; NAME.json: hashes, temperature; it is written last.
Not here: making them (distill.py).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tenth.base.errors import CheckpointError
from tenth.base.files import read_json, text_hash, write_json
from tenth.checkpoint.tensor_file import read_tensors, write_tensors
from tenth.training.batches import TrainedSequence
from tenth.training.distill import TopK

_REMEDY = "delete the directory it is in, and let the teacher read the samples again."


def write_top_k(
    path: Path, sequences: Sequence[TrainedSequence], tops: Sequence[TopK], *, temperature: float
) -> None:
    """One shard; `path` without a suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "ids": torch.cat([each.ids for each in tops]),
        "logp": torch.cat([each.logp.float() for each in tops]),
    }
    content_hash = write_tensors(path.with_suffix(".safetensors"), tensors)
    write_json(
        path.with_suffix(".json"),
        {
            "hash": content_hash,
            "sequences": _hash(sequences),
            "temperature": temperature,
            "k": tensors["ids"].shape[-1],
            "tokens": len(tensors["ids"]),
        },
    )


def has_top_k(path: Path) -> bool:
    """Whether the shard is there and whole."""
    return path.with_suffix(".json").exists()


def read_top_k(path: Path, sequences: Sequence[TrainedSequence], *, temperature: float) -> list[TopK]:
    """What `write_top_k` wrote for the same sequences."""
    facts = read_json(path.with_suffix(".json"))
    if not isinstance(facts, dict) or not isinstance(facts.get("hash"), str):
        raise CheckpointError(f"{path.with_suffix('.json')} is damaged; {_REMEDY}")
    if facts.get("sequences") != _hash(sequences) or facts.get("temperature") != temperature:
        raise CheckpointError(f"{path} belongs to other samples or another temperature; {_REMEDY}")
    file = path.with_suffix(".safetensors")
    tensors = read_tensors(file, content_hash=facts["hash"], remedy=_REMEDY)
    lengths = [sum(each.trained) for each in sequences]
    if any(len(tensors.get(name, ())) != sum(lengths) for name in ("ids", "logp")):
        raise CheckpointError(f"{file} does not hold what was written; {_REMEDY}")
    return TopK(ids=tensors["ids"], logp=tensors["logp"]).of(lengths)


def _hash(sequences: Sequence[TrainedSequence]) -> str:
    return text_hash(*(repr((each.ids, each.trained)) for each in sequences))
