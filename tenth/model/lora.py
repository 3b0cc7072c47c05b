"""LoRA adapters on a whole network: attach, detach, merge, and hand them to whoever serves them.

Why: training a few thin matrices per layer instead of every weight, and serving many results over one base
(LoRA, arXiv:2106.09685). Attaching freezes the base; the adapters are then all that learns.
In:  a Transformer (plain or quantised), a LoraConfig, a name.
Out: the same Transformer, some of its linear maps wrapped. Names of weights: a wrapped matrix's own are
`PATH.base.weight`, an adapter's `PATH.adapters.NAME.TARGET.lora_A`; `base_state_dict` has the former ones.
Not here: the arithmetic (lora_linear.py), the table of targets (lora_places.py), files (checkpoint/peft.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tenth.base.errors import ConfigError
from tenth.model.lora_linear import Adapter, AdapterRouting, LoraLinear, LowRank, unservable, with_delta
from tenth.model.lora_places import UNSERVABLE, LoraConfig, LoraPlace, default_targets, lora_places
from tenth.model.quantized import QuantizedLinear
from tenth.model.transformer import Transformer

__all__ = [
    "AdapterRouting",
    "LoraConfig",
    "LoraLinear",
    "LoraPlace",
    "LowRankPair",
    "adapter_names",
    "attach_lora",
    "base_state_dict",
    "default_targets",
    "detach_lora",
    "lora_pairs",
    "lora_parameters",
    "lora_parts",
    "lora_places",
    "merge_lora",
    "require_servable",
    "routing_of",
]

DEFAULT = "default"  # PEFT's name for the only adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPair:
    """What a server multiplies with: out += up @ (down @ x). Parts lie side by side, scales are in `up`."""

    down: Tensor  # (R, K) float32
    up: Tensor  # (N, R) float32, zero where a part does not own the row


def attach_lora(
    model: Transformer,
    config: LoraConfig,
    *,
    name: str = DEFAULT,
    generator: torch.Generator | None = None,
) -> Transformer:
    """Give the network a new adapter and make it the active one. It computes what the base computes, exactly.

    Every other weight is frozen. `generator` draws A, on the device of the generator.
    """
    routing = _routing(model) or AdapterRouting()
    if not name or "." in name or hasattr(nn.ModuleDict(), name) or name in routing.configs:
        fault = "taken" if name in routing.configs else "not usable"
        raise ConfigError(f"adapter name '{name}' is {fault}; choose another one, without dots.")
    places = lora_places(model.config, config.targets)
    if not routing.configs:
        model.requires_grad_(False)
    for place in places:
        linear = _wrapped(model, place.path, routing)
        weight_dtype = _compute_dtype(linear)
        part = LowRank(
            start=place.start, rows=place.rows, columns=place.columns, rank=config.rank,
            scale=config.scale, dtype=torch.promote_types(weight_dtype, torch.float32),
        )  # fmt: skip
        part.initialise(generator)
        if name not in linear.adapters:
            linear.adapters[name] = Adapter()
        cast(Adapter, linear.adapters[name])[place.target] = part.to(_device(linear))
    routing.configs[name] = config
    routing.active = name
    return model


def detach_lora(model: Transformer, name: str = DEFAULT) -> Transformer:
    """Forget an adapter. The base stays frozen; `model.requires_grad_(True)` lets it learn as a whole."""
    routing = routing_of(model)
    routing.require(name)
    for path, linear in list(_wrapped_linears(model)):
        if name in linear.adapters:
            del linear.adapters[name]
        if not linear.adapters:
            _replace(model, path, linear.base)
    del routing.configs[name]
    if routing.active == name:
        routing.active = None
    return model


@torch.no_grad()
def merge_lora(model: Transformer, name: str = DEFAULT) -> Transformer:
    """Add the adapter to the base's weights and forget it."""
    routing_of(model).require(name)
    linears = [linear for _, linear in _wrapped_linears(model) if name in linear.adapters]
    if any(isinstance(linear.base, QuantizedLinear) for linear in linears):
        raise ConfigError(
            f"adapter '{name}' cannot be merged: model '{model.config.name}' is quantised, and rounding "
            "again would lose most of what was learnt; merge it into the model it was quantised from."
        )
    for linear in linears:
        linear.base.weight.copy_(with_delta(linear.base.weight, cast(Adapter, linear.adapters[name])))
    return detach_lora(model, name)


def adapter_names(model: Transformer) -> tuple[str, ...]:
    """In the order of attaching; () without adapters."""
    routing = _routing(model)
    return () if routing is None else routing.names


def routing_of(model: Transformer) -> AdapterRouting:
    """The switch of a model that has adapters."""
    routing = _routing(model)
    if routing is None:
        raise ConfigError(f"model '{model.config.name}' has no adapter; attach or load one first.")
    return routing


def lora_parts(model: Transformer, name: str = DEFAULT) -> Iterator[tuple[LoraPlace, LowRank]]:
    """Every part of an adapter with its place, in the network's order."""
    config = _config(model, name)
    for place in lora_places(model.config, config.targets):
        linear = cast(LoraLinear, model.get_submodule(place.path))
        yield place, cast(LowRank, cast(Adapter, linear.adapters[name])[place.target])


def lora_parameters(model: Transformer, name: str = DEFAULT) -> dict[str, nn.Parameter]:
    """The adapter's own parameters, by their names in the model."""
    _config(model, name)
    marker = f".adapters.{name}."
    return {key: parameter for key, parameter in model.named_parameters() if marker in key}


@torch.no_grad()
def lora_pairs(model: Transformer, name: str = DEFAULT) -> Mapping[str, LowRankPair]:
    """Per adapted matrix ("layers.3.attention.qkv") the one pair that does what its parts do; copies."""
    _config(model, name)
    pairs = {}
    for path, linear in _wrapped_linears(model):
        if name in linear.adapters:
            parts = cast(Adapter, linear.adapters[name]).parts()
            down = torch.cat([part.lora_A.detach().float() for part in parts])  # (R, K)
            up = down.new_zeros(linear.rows, len(down))  # (N, R)
            column = 0
            for part in parts:
                rank = part.lora_A.shape[0]
                rows = slice(part.start, part.start + part.rows)
                up[rows, column : column + rank] = part.lora_B.float() * part.scale
                column += rank
            pairs[path] = LowRankPair(down=down, up=up)
    return pairs


def require_servable(model: Transformer, name: str) -> None:
    """Refuse an adapter that cannot be served beside others over one base."""
    if UNSERVABLE in _config(model, name).targets:
        raise ConfigError(unservable(name))


def base_state_dict(model: Transformer) -> dict[str, Tensor]:
    """The base's weights under the names they have without adapters."""
    wrapped = {f"{path}." for path, _ in _wrapped_linears(model)}
    state = {}
    for key, tensor in model.state_dict().items():
        path = next((path for path in wrapped if key.startswith(path)), None)
        if path is None:
            state[key] = tensor
        elif key.startswith(f"{path}base."):
            state[path + key.removeprefix(f"{path}base.")] = tensor
    return state


def _config(model: Transformer, name: str) -> LoraConfig:
    routing = routing_of(model)
    routing.require(name)
    return routing.configs[name]


def _routing(model: Transformer) -> AdapterRouting | None:
    return next((linear.routing for _, linear in _wrapped_linears(model)), None)


def _wrapped_linears(model: Transformer) -> Iterator[tuple[str, LoraLinear]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, LoraLinear))


def _wrapped(model: Transformer, path: str, routing: AdapterRouting) -> LoraLinear:
    module = model.get_submodule(path)
    if not isinstance(module, LoraLinear):
        module = LoraLinear(cast(nn.Linear | QuantizedLinear, module), routing)
        _replace(model, path, module)
    return module


def _replace(model: Transformer, path: str, module: nn.Module) -> None:
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def _compute_dtype(linear: LoraLinear) -> torch.dtype:
    base = linear.base
    return base.dtype if isinstance(base, QuantizedLinear) else base.weight.dtype


def _device(linear: LoraLinear) -> torch.device:
    base = linear.base
    return base.scales.device if isinstance(base, QuantizedLinear) else base.weight.device
