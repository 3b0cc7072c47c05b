"""The rows of the engine benchmark: shapes, batches and formats; the peers' settings; what a step must read.

Why: one visible table says what is compared with what, and the arithmetic behind a "share of the memory
bandwidth" can be checked without running anything.
In:  nothing.  Out: `CASES`; grids of settings; bytes per step. Torch-free.
Not here: measuring (engine_rounds.py), tables (engine_tables.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tenth.model.config import ModelConfig
from tenth.model.counts import count
from tenth.model.presets import preset

TENTH, LLAMA, TRANSFORMERS = "tenth", "llama.cpp", "transformers"
LLAMA_MIXED = "llama.cpp mixed"  # its quantiser's default for four bits, which keeps more of the head
Format = Literal[
    "bf16", "int8", "int4", "int4-pure"
]  # int4 keeps the head at 8 bits, as the peer's mixture does
LLAMA_FORMATS: Mapping[str, Mapping[Format, str]] = {
    LLAMA: {"bf16": "BF16", "int8": "Q8_0", "int4-pure": "Q4_0"},  # pure: every matrix in that type
    LLAMA_MIXED: {"int4": "Q4_0-mixed"},
}
BITS: Mapping[Format, tuple[int, int]] = {  # of the matrices, of the head
    "bf16": (16, 16),
    "int8": (8, 8),
    "int4": (4, 8),
    "int4-pure": (4, 4),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: greedy continuation of `batch` random prompts, or their prompts alone."""

    shape: str  # a preset
    weights: Format
    batch: int
    prompt_tokens: int = 64
    new_tokens: int = 64
    peers: tuple[str, ...] = (LLAMA,)
    aims: Mapping[str, float] = field(default_factory=dict)  # at least so many times that peer
    bandwidth_aim: float | None = None  # at least this share of the bandwidth measured beside it

    @property
    def is_prefill(self) -> bool:
        """Whether the prompt is what is timed."""
        return self.new_tokens == 1

    @property
    def name(self) -> str:
        """What --cases asks for."""
        what = f"prefill-{self.prompt_tokens}" if self.is_prefill else f"batch-{self.batch}"
        return f"{self.shape}/{self.weights}/{what}"

    def tokens_per_second(self, seconds: float) -> float:
        """`seconds`: of the prompt, or of a decode step."""
        return self.batch * (self.prompt_tokens if self.is_prefill else 1) / seconds


_BOTH = (LLAMA, TRANSFORMERS)


def _all() -> Iterator[Case]:
    half, mini = "qwen2.5-0.5b", "dsv3-mini"
    yield Case(shape=half, weights="bf16", batch=1, peers=_BOTH, aims={LLAMA: 1.0}, bandwidth_aim=0.90)
    yield Case(shape=half, weights="bf16", batch=4, peers=_BOTH)
    yield Case(shape=half, weights="bf16", batch=16, peers=_BOTH, aims={LLAMA: 1.25, TRANSFORMERS: 2.2})
    yield Case(shape=half, weights="bf16", batch=64, peers=_BOTH, new_tokens=32)
    yield Case(shape=half, weights="bf16", batch=1, prompt_tokens=512, new_tokens=1, peers=_BOTH)
    small: tuple[tuple[Format, float, tuple[str, ...]], ...] = (
        ("int8", 1.2, (LLAMA,)),
        ("int4", 1.05, (LLAMA_MIXED,)),
        ("int4-pure", 1.05, (LLAMA,)),
    )
    for weights, aim, peers in small:
        yield Case(shape=half, weights=weights, batch=1, peers=peers, aims=dict.fromkeys(peers, aim))
        for batch in (4, 16, 64):
            yield Case(
                shape=half, weights=weights, batch=batch, peers=peers, new_tokens=32 if batch == 64 else 64
            )
        yield Case(shape=half, weights=weights, batch=1, prompt_tokens=512, new_tokens=1, peers=peers)
    for batch, aim in ((1, 0.9), (16, 1.5), (64, 2.0)):
        yield Case(shape=mini, weights="bf16", batch=batch, peers=_BOTH, aims={LLAMA: aim})
    yield Case(shape="dense-5m", weights="bf16", batch=64, peers=_BOTH, aims={TRANSFORMERS: 4.0})


CASES: Mapping[str, Case] = {case.name: case for case in _all()}

# What each peer starts from. The scan tries every other value of every key, one key after another, each time
# keeping the best so far: the settings are close to independent, and the product would take a day.
_LLAMA_START = {
    "threads": 2,
    "flash": True,
    "ubatch": 512,
    "cache": "f16",
    "unified": False,
    "repack": True,
}
STARTS: Mapping[str, Mapping[str, Any]] = {
    LLAMA: _LLAMA_START,
    LLAMA_MIXED: _LLAMA_START,
    TRANSFORMERS: {
        "dtype": "bf16",
        "attention": "sdpa",
        "cache": "dynamic",
        "is_compiled": False,
        "keeps_memory": True,
    },
}
_LLAMA_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "threads": (1, 2),
    "flash": (True, False),
    "ubatch": (128, 512, 2048),
    "cache": ("f16", "bf16", "f32", "q8_0"),  # the last needs flash attention
    "unified": (False, True),
    "repack": (True, False),
}
CHOICES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    LLAMA: _LLAMA_CHOICES,
    LLAMA_MIXED: _LLAMA_CHOICES,
    TRANSFORMERS: {
        "attention": ("sdpa", "eager"),
        "dtype": ("bf16", "fp32"),
        "experts": ("eager", "batched_mm", "grouped_mm"),
        "cache": ("dynamic", "static"),
        "keeps_memory": (True, False),
        "is_compiled": (False, True),
    },
}


def start(peer: str, case: Case) -> dict[str, Any]:
    """The first setting that is tried."""
    experts = {"experts": "eager"} if peer == TRANSFORMERS and preset(case.shape).moe else {}
    return {**STARTS[peer], **experts}


def variations(peer: str, case: Case) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(key, its values) in the order in which they are tried."""
    known = start(peer, case)
    for key, values in CHOICES[peer].items():
        matters = key != "unified" or case.batch > 1
        if key in known and matters:
            yield key, values


@dataclass(frozen=True, kw_only=True)
class StoredBytes:
    """What one side's weights take up."""

    dense_bytes: int  # read in every step
    expert_bytes: int  # of all routed experts; a step reads those that are chosen
    bits_per_weight: float
    cache_bytes_per_number: float = 2.0


def bytes_per_step(case: Case, stored: StoredBytes) -> float:
    """Weights and cache that a decode step of `case` reads, at the mean length of its sequences."""
    config = preset(case.shape)
    length = case.prompt_tokens + case.new_tokens / 2
    cache = case.batch * length * count(config).kv_elements_per_token * stored.cache_bytes_per_number
    return stored.dense_bytes + stored.expert_bytes * expert_share(config, batch=case.batch) + cache


def expert_share(config: ModelConfig, *, batch: int) -> float:
    """Expected share of the experts that `batch` tokens visit, each choosing independently and evenly."""
    if config.moe is None:
        return 0.0
    return 1 - (1 - config.moe.num_experts_per_tok / config.moe.n_routed_experts) ** batch


def usd_per_million_tokens(tokens_per_second: float, *, price_per_hour: float) -> float:
    """What a million tokens cost at this rate on a machine of this price."""
    return price_per_hour / 3600 / tokens_per_second * 1e6


def choose_cases(names: list[str] | None) -> list[Case]:
    """The cases of these names, and where no case is called so, those that begin so; None: all."""
    if names is None:
        return list(CASES.values())
    chosen: dict[str, Case] = {}
    for name in names:
        found = [CASES[name]] if name in CASES else [c for c in CASES.values() if c.name.startswith(name)]
        if not found:
            raise SystemExit(f"no case begins with {name!r}; known: {', '.join(CASES)}")
        chosen |= {case.name: case for case in found}
    return list(chosen.values())
