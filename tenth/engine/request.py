"""What is asked of the engine and what it answers: sampling parameters and one generated sequence."""

from dataclasses import dataclass

from tenth.base.errors import ConfigError
from tenth.base.records import Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to draw. Names follow vLLM where it has one."""

    max_new_tokens: int
    n: int = 1  # samples per prompt
    temperature: float = 1.0  # 0: the most likely token
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()  # ids that end a sequence; the id itself is kept
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.n < 1:
            raise ConfigError(
                f"max_new_tokens = {self.max_new_tokens} and n = {self.n} must both be at least 1."
            )
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature = {self.temperature}, top_p = {self.top_p}: temperature must be 0 or more, "
                "top_p in (0, 1]."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One sampled sequence."""

    ids: tuple[int, ...]  # without the prompt; the stop id is included when one was drawn
    logprobs: tuple[float, ...]  # natural log, of the temperature-1 distribution
    finish: Finish
