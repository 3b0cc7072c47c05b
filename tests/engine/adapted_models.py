"""Small networks with adapters that change what they say, and the same with an adapter merged."""

import copy

import torch

from tenth.model.lora import LoraConfig, adapter_names, attach_lora, default_targets, detach_lora, merge_lora
from tenth.model.lora import lora_parameters as parameters_of
from tenth.model.transformer import Transformer


def shake(model: Transformer, name: str, *, seed: int, size: float = 0.3) -> None:
    """Let an adapter learn something: random numbers in both of its matrices."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters_of(model, name).values():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


def attach(model: Transformer, *names: str, seed: int = 0) -> Transformer:
    """Adapters of ranks 1, 2, 3, ... on everything that can be served."""
    for number, name in enumerate(names):
        targets = default_targets(model.config)
        attach_lora(model, LoraConfig(rank=1 + number % 5, alpha=2.0, targets=targets), name=name)
        shake(model, name, seed=seed + number)
    return model


def merged(model: Transformer, name: str | None) -> Transformer:
    """The same network with this adapter in its weights and no other; None: the base."""
    plain = copy.deepcopy(model)
    for other in adapter_names(plain):
        if other != name:
            detach_lora(plain, other)
    return plain if name is None else merge_lora(plain, name)
