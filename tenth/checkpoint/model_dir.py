"""A model as a directory: `config.json`, `model.safetensors`, and the tokenizer that belongs to it.

Why: what a stage hands to the next one, to the sampler and to a person who wants to talk to it, is weights
with everything needed to use them, whole or not there.
In:  a Transformer, and whoever writes the tokenizer's file.
Out: the directory; and back, a Transformer whose matrices are in the dtype that was asked for.
Tensor names are our own parameter names; other tools' names come with a converter. Not here: optimizer state.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, DataError
from tenth.base.files import read_json, write_json
from tenth.checkpoint.tensor_file import read_tensors, require_finite, require_fit, write_tensors
from tenth.checkpoint.whole_dir import readable, whole_directory
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.hf_config import from_hf, to_hf
from tenth.model.transformer import Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_REMEDY = "restore the directory, or make it again with `tenth run`."
_PARTS = {"mla": MlaConfig, "gqa": GqaConfig, "moe": MoeConfig, "yarn": YarnConfig}


def save_model(
    directory: Path,
    model: Transformer,
    *,
    save_tokenizer: Callable[[Path], None] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `directory`, replacing a model that is there.

    `weights`: float32 masters to store in place of the model's own rounded parameters, by the same names.
    `save_tokenizer` is called with the directory being written, such as `tokenizer.save`.
    """
    own = model.state_dict()
    tensors = {**own, **(weights or {})}
    require_fit(tensors, own, source=directory)
    require_finite(tensors, source=directory)
    with whole_directory(directory) as partial:
        content_hash = write_tensors(partial / WEIGHTS, tensors)
        stored_as = tensors["embed.weight"].dtype
        write_json(partial / CONFIG, _config_values(model.config, dtype=stored_as, content_hash=content_hash))
        if save_tokenizer is not None:
            save_tokenizer(partial)


def load_model(directory: Path, *, dtype: torch.dtype) -> Transformer:
    """The model, its matrices in `dtype`, norms and routers in float32."""
    config, content_hash = _read_config(directory)
    path = readable(directory) / WEIGHTS
    tensors = read_tensors(path, content_hash=content_hash, remedy=_REMEDY)
    model = Transformer(config)
    own = model.state_dict()
    require_fit(tensors, own, source=path)
    require_finite(tensors, source=path)
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    return model.to_compute_dtype(dtype)


def load_config(directory: Path) -> ModelConfig:
    """The configuration alone."""
    return _read_config(directory)[0]


def _config_values(config: ModelConfig, *, dtype: torch.dtype, content_hash: str) -> dict[str, Any]:
    values = to_hf(config, dtype=str(dtype).removeprefix("torch."))
    # The exact configuration stands beside the usual keys, because those cannot say everything that ours can.
    values["tenth"] |= {"config": dataclasses.asdict(config), "weights_hash": content_hash}
    return values


def _read_config(directory: Path) -> tuple[ModelConfig, str | None]:
    """The configuration, and the hash of the weights where this program wrote them."""
    path = readable(directory) / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} is no model directory (no {CONFIG} in it); name another one.")
    try:
        values = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{path} is damaged: it is not valid JSON; {_REMEDY}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object; {_REMEDY}")
    own = values.get("tenth")
    if not isinstance(own, dict) or "config" not in own:
        return from_hf(values), None
    return _config_from(own["config"], path=path), own.get("weights_hash")


def _config_from(values: Mapping[str, Any], *, path: Path) -> ModelConfig:
    try:
        parts = {key: part(**values[key]) for key, part in _PARTS.items() if values.get(key) is not None}
        return ModelConfig(**{**values, **parts})
    except (
        AttributeError,
        TypeError,
    ) as error:  # a key too many or too few, a number where a section should be
        raise CheckpointError(f"{path}: the key tenth.config does not fit ({error}); {_REMEDY}") from error
