"""What an engine tells about itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counts since the engine was built, and how things stand now."""

    running: int
    waiting: int
    free_blocks: int
    total_blocks: int
    steps: int
    prompt_tokens: int  # of requests that have begun
    cached_tokens: int  # of those, found in the prefix cache
    new_tokens: int
    drafted_tokens: int
    accepted_tokens: int  # of the drafted ones
    preemptions: int
    weights_version: int
    spilled_blocks: int = 0  # written to spill_dir
    loaded_blocks: int = 0  # read from there
    spill_problem: str | None = None  # why nothing is written there any more

    @property
    def acceptance(self) -> float:
        """The share of drafts that were right; 0 before the first."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0
