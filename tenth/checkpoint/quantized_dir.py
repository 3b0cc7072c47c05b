"""One model directory made from another: the same model, its matrices in 8 or 4 bits.

Why: quantising is done once, so it is worth a search for the best scales, and the result is loaded like any
other model directory.
In:  a model directory, and where the new one goes; token ids of a text, if the loss of quality is asked for.
Out: the new directory, whole or not there, and an account of what it weighs and what it costs.
What stays in plain numbers is stored in bfloat16, and the comparison is made with what was stored.
Not here: which scales (model/quantize.py), the measure (model/divergence.py).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tenth.base.errors import CheckpointError
from tenth.base.files import write_json
from tenth.checkpoint.json_file import read_object
from tenth.checkpoint.model_dir import load_model, load_quantisation, save_model
from tenth.checkpoint.opened import CONFIG, read_config
from tenth.checkpoint.safetensors_dir import INDEX
from tenth.checkpoint.whole_dir import readable, whole_directory
from tenth.model.divergence import Divergence, compare, predict
from tenth.model.quantize import HEAD_BITS, quantize_model
from tenth.model.transformer import Transformer

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedDirectory:
    """What was written."""

    bytes_before: int  # of all files
    bytes_after: int
    bits_per_weight: float  # of all tensors, scales and plain numbers included
    divergence: Divergence | None


def require_quantizable(source: Path, target: Path) -> None:
    """Refuse early what cannot be done, before anything is loaded."""
    stored = load_quantisation(source)
    if stored is not None:
        raise CheckpointError(
            f"{source} is quantised already ({stored.bits} bits); name the model that it was made from."
        )
    if target.exists():
        raise CheckpointError(f"{target} exists; name another directory, or remove it first.")


def quantize_directory(
    source: Path,
    target: Path,
    *,
    bits: int,
    head_bits: int = HEAD_BITS,
    ids: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> QuantizedDirectory:
    """Write `target`; with `ids`, measure what was lost on them."""
    require_quantizable(source, target)
    model = load_model(source, dtype=torch.float32)
    weights = sum(tensor.numel() for tensor in model.state_dict().values())
    original = None if ids is None else predict(model, ids)
    quantize_model(model, bits, head_bits=head_bits, on_progress=on_progress).to_compute_dtype(torch.bfloat16)
    with whole_directory(target) as partial:
        save_model(partial, model)
        _copy_companions(source, partial)
        if read_config(source).get("rope_interleave") is False:  # how files of the source's adapters lie
            write_json(partial / CONFIG, read_object(partial / CONFIG) | {"rope_interleave": False})
    return QuantizedDirectory(
        bytes_before=_size(readable(source)),
        bytes_after=_size(target),
        bits_per_weight=8 * _tensor_bytes(model) / weights,
        divergence=None
        if ids is None or original is None
        else compare(original, predict(model.to_compute_dtype(torch.float32), ids)),
    )


def _copy_companions(source: Path, target: Path) -> None:
    """The tokenizer, and whatever else lies beside the weights: not these in other formats."""
    for path in sorted(readable(source).iterdir()):
        is_kept = path.name not in (CONFIG, INDEX) and path.suffix not in _WEIGHTS
        if path.is_file() and is_kept:
            shutil.copy2(path, target / path.name)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())


def _tensor_bytes(model: Transformer) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())
