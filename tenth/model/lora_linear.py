"""A linear map with adapters beside it: base(x) + scale * B(A x), for one adapter or another per row.

Why: LoRA (Hu et al., arXiv:2106.09685) trains two thin matrices per weight and leaves the weight alone, so
one base serves many adapters. Our weights are fused (query, key and value are one matrix), adapters are not:
each part of an adapter owns a range of the fused matrix's rows.
In:  x (..., K).  Out: (..., N). The base may be nn.Linear or quantised; it is never changed here.
Precision: adapters are kept in float32 whatever the base computes in, and cast to the input's dtype to
compute.
Not here: which matrices get adapters (lora_places.py, lora.py), files (checkpoint/peft.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenth.base.errors import ConfigError
from tenth.model.lora_places import UNSERVABLE, LoraConfig
from tenth.model.quantized import QuantizedLinear

# Shapes: N rows and K columns of the base, r rank of a part, R ranks of all parts together, T tokens


@dataclass(slots=True, kw_only=True)
class AdapterRouting:
    """Which adapter a forward pass uses. One object per model, shared by its adapted matrices."""

    configs: dict[str, LoraConfig] = field(default_factory=dict)  # by name, in the order of attaching
    active: str | None = None  # for all rows, where `rows` is None
    rows: Tensor | None = None  # (S,) number of an adapter in `names`, -1: none; set by `using_rows`
    _tokens: dict[int, dict[str, Tensor]] = field(default_factory=dict, repr=False)  # see `tokens`

    @property
    def names(self) -> tuple[str, ...]:
        """A row's number counts in here; attaching and detaching may change it."""
        return tuple(self.configs)

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """All rows use this adapter, or none: then the network is the base, exactly."""
        if name is not None:
            self.require(name)
        with self._set(name, None):
            yield

    @contextmanager
    def using_rows(self, rows: Tensor) -> Iterator[None]:
        """Every row its own adapter. Inputs may have several tokens per row, consecutive and equally many."""
        with self._set(None, rows):
            yield

    def tokens(self, count: int) -> Mapping[str, Tensor]:
        """Which of `count` tokens use which adapter, where rows differ. Each (t,), none of them empty.

        Worked out once per pass and not once per matrix: asking an accelerator makes it stop.
        """
        rows = self.rows
        if rows is None or len(rows) == 0 or count % len(rows):
            raise ConfigError(
                f"{0 if rows is None else len(rows)} rows name their adapters, but the input has {count} "
                "tokens, which is no multiple of that; give one number per sequence or per token."
            )
        if count not in self._tokens:
            numbers = rows.repeat_interleave(count // len(rows))  # (T,)
            used = set(rows.tolist())
            self._tokens[count] = {
                name: (numbers == number).nonzero().squeeze(1)
                for number, name in enumerate(self.names)
                if number in used
            }
        return self._tokens[count]

    def require(self, name: str) -> None:
        """Refuse a name that is not attached."""
        if name not in self.configs:
            raise ConfigError(
                f"no adapter '{name}' is attached, only {', '.join(self.configs) or 'none'}; "
                "load it first or choose one of these."
            )

    @contextmanager
    def _set(self, active: str | None, rows: Tensor | None) -> Iterator[None]:
        before = self.active, self.rows, self._tokens
        self.active, self.rows, self._tokens = active, rows, {}
        try:
            yield
        finally:
            self.active, self.rows, self._tokens = before


class LowRank(nn.Module):
    """One part of an adapter: what is added to `rows` rows of the base from `start` on."""

    def __init__(
        self, *, start: int, rows: int, columns: int, rank: int, scale: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.start, self.rows, self.scale = start, rows, scale
        self.lora_A = nn.Parameter(torch.zeros(rank, columns, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(rows, rank, dtype=dtype))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None) -> None:
        """A as PEFT draws it (uniform with bound 1/sqrt(K)), B zero: the first step starts at the base."""
        bound = self.lora_A.shape[1] ** -0.5
        self.lora_A.uniform_(-bound, bound, generator=generator)
        self.lora_B.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., rows)"""
        return F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * self.scale

    def delta(self) -> Tensor:
        """scale * B A, (rows, K) in the adapter's own precision."""
        return (self.lora_B @ self.lora_A) * self.scale


class Adapter(nn.ModuleDict):
    """The parts of one adapter in one matrix, by target."""

    def parts(self) -> list[LowRank]:
        """In the order of their rows."""
        return sorted((cast(LowRank, part) for part in self.values()), key=lambda part: part.start)

    def spread(self, x: Tensor, *, rows: int) -> Tensor:
        """What is added to the base's output: zero where no part owns a row. (..., K) -> (..., N)"""
        pieces, end = [], 0
        for part in self.parts():
            pieces += [x.new_zeros(*x.shape[:-1], part.start - end), part(x)]
            end = part.start + part.rows
        return torch.cat((*pieces, x.new_zeros(*x.shape[:-1], rows - end)), -1)


class LoraLinear(nn.Module):
    """Stands where `base` stood."""

    def __init__(self, base: nn.Linear | QuantizedLinear, routing: AdapterRouting) -> None:
        super().__init__()
        self.base, self.routing = base, routing
        self.adapters = nn.ModuleDict()

    @property
    def rows(self) -> int:
        """N, without making a quantised matrix whole."""
        base = self.base
        return base.scales.shape[0] if isinstance(base, QuantizedLinear) else base.weight.shape[0]

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return self.base.bias

    @property
    def weight(self) -> Tensor:
        """The one matrix that computes what is active now. (N, K)

        MLA's decoding reads `kv_b` as a matrix. Where rows differ there is none, so that is refused.
        """
        routing, weight = self.routing, self.base.weight
        if routing.rows is not None:
            for name in routing.tokens(len(routing.rows)):
                if name in self.adapters:
                    raise ConfigError(unservable(name))
            return weight
        adapter = self._adapter(routing.active)
        return weight if adapter is None else with_delta(weight, adapter)

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        routing = self.routing
        if routing.rows is not None:
            return self._mixed(x, out)
        adapter = self._adapter(routing.active)
        return out if adapter is None else out + adapter.spread(x, rows=self.rows)

    def _mixed(self, x: Tensor, out: Tensor) -> Tensor:
        """Every row its own adapter: the tokens of one adapter together, then the next."""
        flat, added = x.reshape(-1, x.shape[-1]), out.reshape(-1, out.shape[-1])  # (T, K), (T, N)
        for name, chosen in self.routing.tokens(len(flat)).items():
            adapter = self._adapter(name)
            if adapter is not None:
                added = added.index_add(0, chosen, adapter.spread(flat[chosen], rows=self.rows))
        return added.view(out.shape)

    def _adapter(self, name: str | None) -> Adapter | None:
        return cast(Adapter, self.adapters[name]) if name is not None and name in self.adapters else None


def with_delta(weight: Tensor, adapter: Adapter) -> Tensor:
    """weight + the adapter's parts in their rows, added in float32 at least, as the weight's dtype. (N, K)"""
    parts = adapter.parts()
    wide = weight.to(torch.promote_types(weight.dtype, parts[0].lora_A.dtype))
    pieces, end = [], 0
    for part in parts:
        stop = part.start + part.rows
        pieces += [wide[end : part.start], wide[part.start : stop] + part.delta()]
        end = stop
    return torch.cat((*pieces, wide[end:])).to(weight.dtype)


def unservable(name: str) -> str:
    """Why an adapter cannot be served beside others."""
    return (
        f"adapter '{name}' adapts {UNSERVABLE}, which decoding with latent attention folds into the query, "
        "so it cannot be served beside other adapters; merge it into the base, or train one without it."
    )
