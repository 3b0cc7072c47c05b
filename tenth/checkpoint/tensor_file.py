"""One file of named tensors, our own from writing to reading, with a hash of its bytes.

Why: the one door to the `safetensors` library. The hash is taken of the bytes that were meant and compared
with the bytes that were read, so a flipped bit or a cut-off file is noticed before a weight is used.
In:  tensors of any dense dtype, contiguous or not, sharing memory or not.
Out: the file and its hash; on reading, tensors that own their memory, equal bit for bit.
Not here: which tensors, and where the hash is kept (training_state.py); strangers' files
(safetensors_dir.py); models for use (model_dir.py).
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.base.files import open_ordinary
from tenth.checkpoint.tensor_source import TensorInfo


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write the file and return its content hash. Not atomic by itself: for use inside `whole_directory`."""
    data = safetensors.torch.save(_separate(tensors), metadata={"format": "pt"})
    path.write_bytes(data)
    return _content_hash(data)


def read_tensors(path: Path, *, content_hash: str, remedy: str) -> dict[str, Tensor]:
    """What `write_tensors` wrote."""
    try:
        with open_ordinary(path) as file:
            data = file.read()
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}; {remedy}") from error
    if _content_hash(data) != content_hash:
        raise CheckpointError(
            f"{path} is damaged: its {len(data):,} bytes are not the ones that were written; {remedy}"
        )
    try:
        loaded = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); {remedy}") from error
    # Views into `data` would lie at odd addresses, where vector code may round in another order.
    return {name: tensor.clone() for name, tensor in loaded.items()}


def require_fit(
    found: Mapping[str, Tensor | TensorInfo], expected: Mapping[str, Tensor], *, source: Path
) -> None:
    """Refuse tensors whose names or shapes are not the expected ones."""
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{source}: {len(missing)} tensors missing (first {missing[:2]}), {len(unknown)} not recognised "
            f"(first {unknown[:2]}); it belongs to another configuration, restore the config.json beside it."
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{source}: '{name}' has shape {tuple(tensor.shape)} and the configuration asks for "
                f"{tuple(expected[name].shape)}; restore the config.json beside it."
            )


def require_finite(tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Refuse NaN and infinity: a network with one of them answers nothing but NaN."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise CheckpointError(
                f"{source}: '{name}' holds NaN or infinite numbers; use an earlier checkpoint, and lower the "
                "learning rate if training made them."
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite; a whole number never is."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in tensor.aminmax())  # both are NaN where one number is


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory: the format stores each one whole."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        is_view = storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes
        separate[name] = tensor.clone() if is_view else tensor
        seen.add(storage.data_ptr())
    return separate


def _content_hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
