"""LoRA adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors.

Why: adapters trained here run beside anyone's base in transformers, vLLM and others, and theirs run here.
Names are `base_model.model.` + Hugging Face's module + `.lora_A.weight`. Rows of lora_B are rows of the
base's matrix, so where a DeepSeek file interleaves its rotary rows, lora_B's are interleaved too.
In:  a Transformer with an adapter, or a directory from anywhere: checked whole before anything is attached.
Out: a directory; a Transformer with one more adapter; or a `TensorSource` with the adapter added in, tensor
by tensor, which needs no network and so takes whatever Hugging Face module the adapter names.
What changes the base or is no plain LoRA (DoRA, trained biases, whole modules, ranks that differ from layer
to layer) is refused by name.
Not here: the arithmetic (model/lora_linear.py).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.base.files import write_json
from tenth.checkpoint.json_file import read_object
from tenth.checkpoint.model_card import CARD, ModelCard
from tenth.checkpoint.safetensors_dir import SafetensorsDir, shown
from tenth.checkpoint.tensor_file import write_tensors
from tenth.checkpoint.tensor_source import TensorInfo, TensorSource
from tenth.checkpoint.whole_dir import whole_directory
from tenth.model.config import ModelConfig
from tenth.model.lora import DEFAULT, LoraConfig, LoraPlace, attach_lora, lora_parts, lora_places, routing_of
from tenth.model.rope import half_to_interleaved, interleaved_to_half
from tenth.model.transformer import Transformer

# Shapes: N rows and K columns of a base matrix, r rank

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
# Keys of adapter_config.json that make an adapter something else, and the values at which they do not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "fan_in_fan_out": (False, None),
    "use_qalora": (False, None),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),  # others change the base's weights
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFiles:
    """A PEFT directory whose configuration and headers have been checked; numbers are read on demand."""

    directory: Path
    rank: int
    alpha: float
    use_rslora: bool
    target_names: frozenset[str] | None  # last parts of target_modules; None: a pattern
    modules: Mapping[str, tuple[int, int]]  # Hugging Face module -> (rows, columns) of its matrix
    source: TensorSource

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def read(self, module: str) -> tuple[Tensor, Tensor]:
        """A (r, K) and B (N, r)."""
        down, up = (self.source.read(_name(module, factor)) for factor in "AB")
        for factor, tensor in (("A", down), ("B", up)):
            if not bool(torch.isfinite(tensor.float()).all()):
                raise CheckpointError(
                    f"{self.directory}: {shown(_name(module, factor))} holds NaN or infinite numbers; "
                    "use an earlier adapter."
                )
        return down, up


def save_adapter(
    directory: Path,
    model: Transformer,
    name: str = DEFAULT,
    *,
    base_model: str,
    rope_interleaved: bool = True,
) -> None:
    """Write the adapter for PEFT. `base_model` names what it belongs to: a directory, or a name on a hub.

    `rope_interleaved`: whether the rotary rows of that base's files are (hf_config.is_rope_interleaved); only
    networks with latent attention ask.
    """
    tensors = {}
    for place, part in lora_parts(model, name):
        tensors[_name(place.hf_name, "A")] = part.lora_A.detach()
        up = part.lora_B.detach()
        if rope_interleaved and place.rope_head_dim is not None:
            up = half_to_interleaved(up, model.config.rope_dim, head_dim=place.rope_head_dim)
        tensors[_name(place.hf_name, "B")] = up
    config = routing_of(model).configs[name]
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": 0.0,
        "use_rslora": config.use_rslora,
        "target_modules": list(config.targets),
        "bias": "none",
        "inference_mode": True,
    }
    card = ModelCard(name=directory.name, base_model=base_model, library="peft")
    with whole_directory(directory) as partial:
        write_json(partial / CONFIG, values)
        (partial / CARD).write_text(card.to_markdown(), encoding="utf-8")
        write_tensors(partial / WEIGHTS, tensors)


@torch.no_grad()
def load_adapter(
    model: Transformer, directory: Path, *, name: str = DEFAULT, rope_interleaved: bool = True
) -> Transformer:
    """Attach what `directory` holds under `name`; it becomes the active adapter. See `save_adapter`."""
    files = open_adapter(directory)
    places = _places(files, model.config)
    factors = {place: files.read(place.hf_name) for place in places}
    config = LoraConfig(
        rank=files.rank,
        alpha=files.alpha,
        targets=tuple(dict.fromkeys(place.target for place in places)),
        use_rslora=files.use_rslora,
    )
    attach_lora(model, config, name=name, generator=torch.Generator())  # leaves torch's own draws alone
    for place, part in lora_parts(model, name):
        down, up = factors[place]
        if rope_interleaved and place.rope_head_dim is not None:
            up = interleaved_to_half(up, model.config.rope_dim, head_dim=place.rope_head_dim)
        part.lora_A.copy_(down)
        part.lora_B.copy_(up)
    return model


def merge_adapter_source(source: TensorSource, directory: Path) -> TensorSource:
    """`source` with the adapter's product added to each matrix as it is read."""
    files = open_adapter(directory)
    infos = source.infos()
    for module, shape in files.modules.items():
        info = infos.get(f"{module}.weight")
        if info is None or info.shape != shape:
            found = "has no such matrix" if info is None else f"holds one of {list(info.shape)}"
            raise CheckpointError(
                f"{directory} adapts {shown(module)}, a matrix of {list(shape)}, and the model {found}; "
                "give the model that the adapter was trained on."
            )
    return _MergedSource(source, files)


class _MergedSource:
    def __init__(self, source: TensorSource, files: AdapterFiles) -> None:
        self._source, self._files = source, files

    def infos(self) -> Mapping[str, TensorInfo]:
        return self._source.infos()

    def read(self, name: str) -> Tensor:
        tensor, module = self._source.read(name), name.removesuffix(".weight")
        if module == name or module not in self._files.modules:
            return tensor
        wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        down, up = (factor.to(wide.dtype) for factor in self._files.read(module))
        return (wide + (up @ down) * self._files.scale).to(tensor.dtype)  # (N, K)


def open_adapter(directory: Path) -> AdapterFiles:
    """Check a PEFT directory; reads the configuration and a header."""
    if not (directory / WEIGHTS).exists():
        if (directory / PICKLE).exists():
            raise CheckpointError(
                f"{directory / PICKLE} is a pickle, and reading one runs whatever program it holds; load the "
                f"adapter with PEFT where you trust it and save it again, which writes {WEIGHTS}."
            )
        raise CheckpointError(
            f"{directory} holds no {WEIGHTS}; name the directory of a PEFT adapter, and finish its download."
        )
    values = read_object(directory / CONFIG)
    _require_plain(values, directory=directory)
    rank: Any = values.get("r")
    alpha: Any = values.get("lora_alpha")
    if type(rank) is not int or type(alpha) not in (int, float) or rank < 1 or not 0 < alpha < 1e9:
        raise CheckpointError(
            f"{directory / CONFIG}: r = {shown(str(rank))} and lora_alpha = {shown(str(alpha))} must be "
            "numbers above 0; restore the file."
        )
    source = SafetensorsDir(directory, single=WEIGHTS)
    return AdapterFiles(
        directory=directory,
        rank=rank,
        alpha=float(alpha),
        use_rslora=values.get("use_rslora") is True,
        target_names=_target_names(values.get("target_modules")),
        modules=_modules(source.infos(), rank=rank, directory=directory),
        source=source,
    )


def _require_plain(values: Mapping[str, Any], *, directory: Path) -> None:
    kind = values.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{directory / CONFIG}: peft_type = {shown(str(kind))}, and only LORA adapters can be read; "
            "merge it into its base with PEFT and load that."
        )
    for key, plain in _PLAIN.items():
        value = values.get(key)
        if not any(value == each and type(value) is type(each) for each in plain):
            raise CheckpointError(
                f"{directory / CONFIG}: {key} = {shown(str(value))} makes this more than a plain LoRA "
                "adapter, which is not supported; merge it into its base with PEFT and load that."
            )


def _target_names(value: Any) -> frozenset[str] | None:
    if not isinstance(value, list):
        return None  # a pattern over module names, or absent: the tensors say what is adapted
    return frozenset(str(entry).rpartition(".")[2] for entry in value)


def _modules(infos: Mapping[str, TensorInfo], *, rank: int, directory: Path) -> dict[str, tuple[int, int]]:
    """Modules that have both factors, of this rank."""
    sides: dict[str, dict[str, TensorInfo]] = {}
    for name, info in infos.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"{directory / WEIGHTS}: {shown(name)} is no factor of a LoRA adapter for a causal language "
                "model; merge the adapter into its base with PEFT and load that."
            )
        if len(info.shape) != 2 or not info.dtype.is_floating_point:
            raise CheckpointError(
                f"{directory / WEIGHTS}: {shown(name)} is {info.dtype} of shape {list(info.shape)}, but a "
                "factor is a matrix of floating-point numbers; restore the file."
            )
        sides.setdefault(match["module"], {})[match["factor"]] = info
    if not sides:
        raise CheckpointError(f"{directory / WEIGHTS} holds no tensor; restore the file.")
    modules = {}
    for module, factors in sides.items():
        for factor in "AB":
            if factor not in factors:
                raise CheckpointError(
                    f"{directory / WEIGHTS}: {shown(_name(module, factor))} is missing; restore the file."
                )
        ranks = (factors["A"].shape[0], factors["B"].shape[1])
        if ranks != (rank, rank):
            raise CheckpointError(
                f"{directory}: the factors of {shown(module)} have ranks {ranks[0]} and {ranks[1]}, and "
                f"{CONFIG} says r = {rank}; restore the two files that belong together."
            )
        modules[module] = (factors["B"].shape[0], factors["A"].shape[1])
    return modules


def _places(files: AdapterFiles, config: ModelConfig) -> tuple[LoraPlace, ...]:
    """Where the adapter belongs in this network: every layer of every target, nothing else."""
    every = {place.hf_name: place for place in lora_places(config)}
    for module in files.modules:
        if module not in every:
            reason = (
                "routed experts are not adapted" if ".experts" in module else "it cannot be adapted there"
            )
            raise CheckpointError(
                f"{files.directory} adapts {shown(module)}, which model '{config.name}' does not have, or "
                f"{reason}; convert the base with this adapter merged into it instead."
            )
    used = {every[module].target for module in files.modules} | (files.target_names or frozenset())
    places = tuple(place for place in every.values() if place.target in used)
    missing = [place.hf_name for place in places if place.hf_name not in files.modules]
    if missing:
        raise CheckpointError(
            f"{files.directory}: {len(missing)} adapted modules are missing (first {shown(missing[0])}); "
            f"restore {WEIGHTS}, or, if only some layers were adapted on purpose, convert the base with this "
            "adapter merged into it."
        )
    for place in places:
        found = files.modules[place.hf_name]
        if found != (place.rows, place.columns):
            raise CheckpointError(
                f"{files.directory} adapts {shown(place.hf_name)} as a matrix of {list(found)}, and in model "
                f"'{config.name}' it is {[place.rows, place.columns]}; load the base it was trained on."
            )
    return places


def _name(module: str, factor: str) -> str:
    return f"base_model.model.{module}.lora_{factor}.weight"
