"""A model as a directory: `config.json`, `model.safetensors`, and the tokenizer that belongs to it.

Why: what a stage hands to the next one, to the sampler and to a person who wants to talk to it, is weights
with everything needed to use them, whole or not there.
In:  a Transformer, and whoever writes the tokenizer's file.
Out: the directory; and back, a Transformer whose matrices are in the dtype that was asked for. A quantised
model comes back quantised: config.json says so under `tenth`, and its tensors are codes and scales.
Tensor names are our own parameter names; other tools' names come with a converter. Not here: optimizer state.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError, DataError
from tenth.base.files import read_json, write_json
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.tensor_file import read_tensors, require_finite, require_fit, write_tensors
from tenth.checkpoint.whole_dir import readable, whole_directory
from tenth.model.config import (
    GqaConfig,
    LinearRopeConfig,
    Llama3RopeConfig,
    MlaConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    YarnConfig,
)
from tenth.model.hf_config import from_hf, to_hf
from tenth.model.quantize import Quantisation, quantisation_of, with_empty_matrices
from tenth.model.transformer import Transformer
from tenth.tokenizer.chat import Template
from tenth.tokenizer.tokenizer import Tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_REMEDY = "restore the directory, or make it again with `tenth run`."
_PARTS = {"mla": MlaConfig, "gqa": GqaConfig, "moe": MoeConfig}
_SCALING_BY_KEY = {"beta_fast": YarnConfig, "low_freq_factor": Llama3RopeConfig}


def save_model(
    directory: Path,
    model: Transformer,
    *,
    tokenizer: Tokenizer | None = None,
    template: Template | None = None,
    weights: Mapping[str, Tensor] | None = None,
    card: ModelCard | None = None,
    fp8: bool = False,
    keep_mtp: bool = True,
) -> None:
    """Write `directory`, replacing a model that is there.

    `weights`: float32 masters to store in place of the model's own rounded parameters, by the same names.
    """
    own = model.state_dict()
    tensors = {**own, **(weights or {})}
    require_fit(tensors, own, source=directory)
    require_finite(tensors, source=directory)
    with whole_directory(directory) as partial:
        content_hash = write_tensors(partial / WEIGHTS, tensors)
        values = to_hf(model.config, dtype=str(_stored_as(tensors)).removeprefix("torch."))
        # The exact configuration stands beside the usual keys: those cannot say everything that ours can.
        values["tenth"] |= {"config": dataclasses.asdict(model.config), "weights_hash": content_hash}
        quantisation = quantisation_of(model)
        if quantisation is not None:
            values["tenth"]["quantisation"] = dataclasses.asdict(quantisation)
        write_json(partial / CONFIG, values)
        if tokenizer is not None:
            tokenizer.save(partial)


def load_model(directory: Path, *, dtype: torch.dtype) -> Transformer:
    """The model, its matrices in `dtype`, norms and routers in float32."""
    described = _read_description(directory)
    path = readable(directory) / WEIGHTS
    tensors = read_tensors(path, content_hash=described.content_hash, remedy=_REMEDY)
    model = Transformer(described.config)
    if described.quantisation is not None:
        with_empty_matrices(model, described.quantisation)
    own = model.state_dict()
    require_fit(tensors, own, source=path)
    require_finite(tensors, source=path)
    _require_codes(tensors, own, source=path)
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    return model.to_compute_dtype(dtype)


def load_config(directory: Path) -> ModelConfig:
    """The configuration alone."""
    return _read_description(directory).config


def load_quantisation(directory: Path) -> Quantisation | None:
    """How the matrices are stored; None where they are plain numbers."""
    return _read_description(directory).quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """What config.json says."""

    config: ModelConfig
    content_hash: str | None = None  # of the weights, where this program wrote them
    quantisation: Quantisation | None = None


def _stored_as(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the matrices; of a quantised model, of what stayed as it was."""
    return tensors["embed.weight" if "embed.weight" in tensors else "norm.weight"].dtype


def _read_description(directory: Path) -> _Description:
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
        return _Description(config=from_hf(values))
    return _Description(
        config=_config_from(own["config"], path=path),
        content_hash=own.get("weights_hash"),
        quantisation=_quantisation_from(own.get("quantisation"), path=path),
    )


def _quantisation_from(values: Any, *, path: Path) -> Quantisation | None:
    try:
        return None if values is None else Quantisation(**values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(
            f"{path}: the key tenth.quantisation does not fit ({error}); {_REMEDY}"
        ) from error


def _require_codes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: Path) -> None:
    """Floats are cast to what the model computes in; codes of another type would turn into other numbers."""
    for name, tensor in expected.items():
        if not tensor.is_floating_point() and found[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{source}: '{name}' holds {found[name].dtype} and its quantisation asks for {tensor.dtype}; "
                "quantise the original again."
            )


def _config_from(values: Mapping[str, Any], *, path: Path) -> ModelConfig:
    try:
        parts = {key: part(**values[key]) for key, part in _PARTS.items() if values.get(key) is not None}
        # Before there were other kinds of scaling the key was called "yarn".
        scaling = values.get("rope_scaling", values.get("yarn"))
        rest = {key: value for key, value in values.items() if key != "yarn"}
        return ModelConfig(**{**rest, **parts, "rope_scaling": scaling and _scaling_from(scaling)})
    except (
        AttributeError,
        TypeError,
    ) as error:  # a key too many or too few, a number where a section should be
        raise CheckpointError(f"{path}: the key tenth.config does not fit ({error}); {_REMEDY}") from error


def _scaling_from(values: Mapping[str, Any]) -> RopeScaling:
    kinds = [kind for key, kind in _SCALING_BY_KEY.items() if key in values]
    return (kinds[0] if kinds else LinearRopeConfig)(**values)
