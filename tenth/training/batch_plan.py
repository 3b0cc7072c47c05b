"""Who is trained with whom: rollouts into minibatches (one optimizer step each), those into micro-batches.

Why: one rule, printed at the start: prompts × samples = rollouts = minibatches × size. Any sizes work; a
last, smaller minibatch counts for its share. Cutting a minibatch into micro-batches changes memory only.
In:  sizes and lengths. Out: indices. No tensors here.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenth.base.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Minibatch(Generic[T]):
    """What one optimizer step sees."""

    items: list[T]
    share: float  # its size as a share of a full minibatch: 1 but for the last


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The sizes of one round of sampling and training."""

    prompts: int
    samples: int  # per prompt: the group
    minibatch_size: int  # rollouts per optimizer step

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError(
                f"samples per prompt = {self.samples}, but an answer is judged against its group's mean, "
                "so a group needs at least 2; set it to 8 or more."
            )
        if self.prompts < 1 or self.minibatch_size < 1:
            raise ConfigError(
                f"prompts = {self.prompts} and minibatch size = {self.minibatch_size} must be at least 1."
            )

    @property
    def rollouts(self) -> int:
        """How many answers one round samples."""
        return self.prompts * self.samples

    @property
    def num_minibatches(self) -> int:
        """How many optimizer steps one pass over the rollouts takes."""
        return -(-self.rollouts // self.minibatch_size)

    def sentence(self) -> str:
        """The rule with its numbers.

        >>> BatchPlan(prompts=32, samples=16, minibatch_size=200).sentence()
        '32 prompts × 16 samples = 512 rollouts = 3 minibatches × 200 (the last has 112)'
        """
        last = self.rollouts - (self.num_minibatches - 1) * self.minibatch_size
        short = "" if last == self.minibatch_size else f" (the last has {last})"
        noun = "minibatch" if self.num_minibatches == 1 else "minibatches"
        return (
            f"{self.prompts} prompts × {self.samples} samples = {self.rollouts} rollouts = "
            f"{self.num_minibatches} {noun} × {self.minibatch_size}{short}"
        )

    def minibatches(self, items: Sequence[T], rng: random.Random) -> Iterator[Minibatch[T]]:
        """Shuffle and cut; works for any number of items (dynamic sampling may keep fewer than planned)."""
        order = list(items)
        rng.shuffle(order)
        for start in range(0, len(order), self.minibatch_size):
            part = order[start : start + self.minibatch_size]
            yield Minibatch(items=part, share=len(part) / self.minibatch_size)


def plan_micro_batches(lengths: Sequence[int], *, budget_tokens: int) -> list[list[int]]:
    """Cut indices into micro-batches of at most `budget_tokens` padded tokens each, the longest first.

    Sorted by length, so that little is padding and memory that will not suffice fails at once. A sequence
    longer than the budget gets a micro-batch of its own.
    """
    parts: list[list[int]] = []
    widest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not parts or widest * (len(parts[-1]) + 1) > budget_tokens:
            parts.append([])
            widest = lengths[index]
        parts[-1].append(index)
    return parts
