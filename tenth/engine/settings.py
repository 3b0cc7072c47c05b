"""How an engine is set up: how many sequences, how much cache, of what kind, and whether it speculates."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tenth.base.errors import ConfigError


class CacheDtype(StrEnum):
    """How cache entries are stored."""

    AUTO = "auto"  # as the network computes
    INT8 = "int8"  # eight bits and a scale per part of an entry


class Speculation(StrEnum):
    """Where guesses at the next tokens come from. They change the speed, never the tokens."""

    NONE = "none"
    MTP = "mtp"  # the network's own multi-token prediction
    PROMPT_LOOKUP = "prompt_lookup"  # what followed the same few tokens earlier in the sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Bounds and choices of one engine."""

    max_sequences: int = 256  # that get tokens in one step
    max_batch_tokens: int = 512  # that one step computes: one per sequence, the rest reads prompts
    max_waiting: int = 4096  # requests in the queue; more are refused
    cache_bytes: int | None = None  # None: a quarter of the free memory, and no more than could be used
    prefix_caching: bool = True
    cache_dtype: CacheDtype = CacheDtype.AUTO
    spill_dir: Path | None = None  # where cold blocks of the prefix cache go; None: nowhere
    spill_bytes: int = 1 << 30
    speculation: Speculation = Speculation.NONE
    draft_tokens: int = 1  # guesses per step; MTP makes one
    deterministic: bool = False  # the same bits alone or batched; costs nothing where the C++ pass runs

    def __post_init__(self) -> None:
        for name in ("max_sequences", "max_batch_tokens", "max_waiting", "draft_tokens", "spill_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.max_batch_tokens < self.max_sequences:
            raise ConfigError(
                f"max_batch_tokens = {self.max_batch_tokens}, but {self.max_sequences} sequences want a "
                "token in every step; raise it to at least max_sequences."
            )
        if self.spill_dir is not None and not self.prefix_caching:
            raise ConfigError(
                f"spill_dir = {self.spill_dir} is for the prefix cache, but prefix_caching is off; turn it "
                "on or leave spill_dir out."
            )
        if self.cache_bytes is not None and self.cache_bytes < 1:
            raise ConfigError(f"cache_bytes = {self.cache_bytes} must be at least 1, or None to choose it.")
        if self.speculation is Speculation.MTP and self.draft_tokens != 1:
            raise ConfigError(
                f"draft_tokens = {self.draft_tokens}, but an MTP module guesses one token; set it to 1 or "
                "use prompt_lookup."
            )
