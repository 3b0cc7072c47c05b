"""A model's matrices made small: the codes and scales that lose the least at 8 or 4 bits per weight.

Why: rounding to nearest with the group's largest weight as the end of the range is not the best that a format
allows. Here several scales are tried for every group and the one with the smallest squared error is kept; for
4 bits that is about 30 % less squared error in files of the same size.
In:  a Transformer, and 8 or 4 bits.
Out: the same Transformer, its matrices replaced by quantised ones; deterministic, and matrix by matrix, so
little more memory is needed than the model itself takes.
The rule: every matrix is quantised (attention, feed-forward, experts, embedding, head, MTP projection), in
groups of 32 columns, where its width is a multiple of 32. The head, which may be the embedding too, has 8
bits in either format unless it is told otherwise: its error goes straight to the logits, and on two small
trained models 4 bits there made 24 and 60 % of the whole divergence. What stays as it is: norms and biases,
the router (its few numbers decide which experts run), MLA's `kv_b` (decoding folds it into the query), other
widths.
Groups of 32 for 8 bits too: on the same models the divergence is 19 and 39 % below that of groups of 128, or
of whole rows where these are shorter.
Not here: the modules (quantized.py), what it costs in quality (divergence.py), files (checkpoint/).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenth.base.errors import ConfigError
from tenth.model.mla import LatentAttention
from tenth.model.moe import MoE
from tenth.model.quantized import (
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
    QuantizedMatrix,
    pack,
)
from tenth.model.transformer import Transformer

# Shapes: G groups of C columns

GROUP = 32
HEAD_BITS = 8
# The codes that a format has, and what a group's largest weight is divided by for the scales that are tried.
# Four bits have one code more below zero: the largest weight goes there, whatever its sign. Measured on
# trained and on random matrices: 600 candidates find less than 0.3 % below what these nine find.
_CODES = {8: (-127, 127), 4: (-8, 7)}
_DIVISORS = {
    8: tuple(float(divisor) for divisor in range(120, 132)),
    4: (-9.0, -8.625, -8.25, -7.875, -7.5, -7.125, -6.75, -6.375, -6.0),
}
_LEAST, _MOST = (
    2.0**-24,
    65504.0,
)  # what float16 holds; its subnormal numbers are exact enough, see `_storable`
_CHUNK = 1 << 17  # weights worked on at once: they and their temporaries stay in a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How a model's matrices are stored."""

    bits: int
    head_bits: int = HEAD_BITS
    group: int = GROUP

    def __post_init__(self) -> None:
        for name, bits in (("bits", self.bits), ("head_bits", self.head_bits)):
            if bits not in _CODES:
                raise ConfigError(f"{name} = {bits!r} is not a known format of weights; choose 8 or 4.")
        if self.group != GROUP:
            raise ConfigError(
                f"group = {self.group!r} is not implemented; weights come in groups of {GROUP}."
            )


@torch.no_grad()
def quantize_model(
    model: Transformer,
    bits: int,
    *,
    head_bits: int = HEAD_BITS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Transformer:
    """Replace the model's matrices in place. `on_progress` hears how many weights of how many are done."""
    quantisation = Quantisation(bits=bits, head_bits=head_bits)
    if quantisation_of(model):
        raise ConfigError(f"model '{model.config.name}' is quantised already; start from the original.")
    places = _places(model)
    if not places:
        raise ConfigError(
            f"model '{model.config.name}' has no matrix whose width is a multiple of {GROUP}, so nothing can "
            "be quantised; use it as it is."
        )
    done, total = 0, sum(place.weight.numel() for place in places)
    for place in places:
        weight, module = place.weight, place.empty_module(quantisation)
        _require_range(weight, name=place.name)
        fill(module, weight)
        place.put(module)
        done += weight.numel()
        if on_progress is not None:
            on_progress(done, total)
    return model


def with_empty_matrices(model: Transformer, quantisation: Quantisation) -> Transformer:
    """The model with zeros in place of its matrices, ready for the tensors of a quantised one."""
    for place in _places(model):
        place.put(place.empty_module(quantisation))
    return model


def quantisation_of(model: Transformer) -> Quantisation | None:
    """How the model's matrices are stored; None where they are plain numbers."""
    head = model.embed if model.head is None else model.head
    found = [module for module in model.modules() if isinstance(module, QuantizedMatrix)]
    if not found:
        return None
    # Where the head stayed as it was, or is all there is, its own format says nothing.
    bits = next((module.bits for module in found if module is not head), found[0].bits)
    head_bits = head.bits if isinstance(head, QuantizedMatrix) else HEAD_BITS
    return Quantisation(bits=bits, head_bits=head_bits)


@torch.no_grad()
def fill(module: QuantizedMatrix, weight: Tensor) -> None:
    """Give the module the codes and scales that stand for `weight` best."""
    rows = _CHUNK // GROUP
    parts = zip(
        weight.reshape(-1, GROUP).split(rows),
        module.codes.view(-1, GROUP * module.bits // 8).split(rows),
        module.scales.view(-1, 1).split(rows),
        strict=True,
    )
    for values, codes, scales in parts:
        groups = values.float()
        chosen = _choose_scales(groups, bits=module.bits)
        scales.copy_(chosen)
        codes.copy_(pack(_round(groups, chosen, bits=module.bits), bits=module.bits))


def round_to_nearest(weight: Tensor, *, bits: int) -> Tensor:
    """The plain way, for comparison: the largest weight of a group takes the largest code. -> dequantised"""
    groups = weight.float().unflatten(-1, (-1, GROUP))
    scales = _storable(groups.abs().amax(-1, keepdim=True) / _CODES[bits][1])
    return (_round(groups, scales, bits=bits) * scales).flatten(-2)


def _choose_scales(groups: Tensor, *, bits: int) -> Tensor:
    """The scale of the smallest squared error among the candidates. (G, C) -> (G, 1) float32

    Codes q fix the best scale, d = sum(x q) / sum(q q), and how much of sum(x x) it explains:
    d (2 sum(x q) - d sum(q q)), here computed for the d that float16 can hold.
    """
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))  # (G, 1)
    best = _storable(extreme.abs() / _CODES[bits][1])
    xq, qq = _products(groups, best, bits=bits)
    most = best * (2 * xq - best * qq)
    for divisor in _DIVISORS[bits]:
        xq, qq = _products(groups, extreme / divisor, bits=bits)
        scale = _storable(xq / qq)
        explained = scale * (2 * xq - scale * qq)
        is_better = explained > most  # never where a group of zeros made NaN
        best, most = torch.where(is_better, scale, best), torch.where(is_better, explained, most)
    return best


def _products(groups: Tensor, scales: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    codes = _round(groups, scales, bits=bits)
    return (groups * codes).sum(-1, keepdim=True), codes.square().sum(-1, keepdim=True)


def _round(groups: Tensor, scales: Tensor, *, bits: int) -> Tensor:
    return (groups / scales).round_().clamp_(*_CODES[bits])


def _storable(scales: Tensor) -> Tensor:
    """The nearest number that float16 holds, never zero.

    Scales of small weights are subnormal in float16 and lose digits, but the codes are rounded with the scale
    as it is stored, so this costs range at the group's end and nothing else.
    """
    size = scales.abs().clamp(_LEAST, _MOST)
    return torch.copysign(size, scales).half().float()


def _require_range(weight: Tensor, *, name: str) -> None:
    """Refuse what no scale of float16 reaches, NaN and infinity included."""
    least, most = (float(end) for end in weight.aminmax())
    if not (abs(least) < _MOST and abs(most) < _MOST):
        raise ConfigError(
            f"'{name}' holds weights from {least:g} to {most:g}, and only those between -{_MOST:g} and "
            f"{_MOST:g} can be quantised; use an earlier checkpoint."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a matrix hangs that can be quantised: a child module, or an expert layer's parameter."""

    path: str
    parent: nn.Module
    attribute: str
    is_head: bool

    @property
    def name(self) -> str:
        return f"{self.path}.{self.attribute}".lstrip(".")

    @property
    def weight(self) -> Tensor:
        held = getattr(self.parent, self.attribute)
        weight: Tensor = held if isinstance(held, Tensor) else held.weight
        return weight.detach()

    def empty_module(self, quantisation: Quantisation) -> QuantizedMatrix:
        held, weight = getattr(self.parent, self.attribute), self.weight
        bits = quantisation.head_bits if self.is_head else quantisation.bits
        group, dtype = quantisation.group, weight.dtype
        module: QuantizedMatrix
        if isinstance(held, nn.Linear):
            module = QuantizedLinear(*weight.shape, bits=bits, group=group, dtype=dtype, bias=held.bias)
        elif isinstance(held, nn.Embedding):
            module = QuantizedEmbedding(*weight.shape, bits=bits, group=group, dtype=dtype)
        else:
            module = QuantizedExperts(*weight.shape, bits=bits, group=group, dtype=dtype)
        return module.to(weight.device)

    def put(self, module: QuantizedMatrix) -> None:
        delattr(self.parent, self.attribute)  # a parameter's name takes no module
        setattr(self.parent, self.attribute, module)


def _places(model: Transformer) -> list[_Place]:
    """Every matrix that the rule above names, in the model's order."""
    found, head = [], "embed" if model.head is None else "head"
    for path, parent in model.named_modules():
        names = [
            name for name, child in parent.named_children() if isinstance(child, nn.Linear | nn.Embedding)
        ]
        names += ["gate_up", "down"] if isinstance(parent, MoE) else []
        kept = {"kv_b"} if isinstance(parent, LatentAttention) else set()
        places = [
            _Place(path=path, parent=parent, attribute=name, is_head=parent is model and name == head)
            for name in names
            if name not in kept
        ]
        found += [place for place in places if place.weight.shape[-1] % GROUP == 0]
    return found
