"""What the engine asks of whatever computes the network: the cache's memory, logits of a batch, drafts.

Why: a batch is a list of tokens with positions and block tables, whatever they are for (prompts, chunks,
single tokens, guesses to be checked), so that one forward pass serves them all.
Not here: the implementations (torch_runner.py runs anywhere).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tenth.model.lora import LowRankPair

# Shapes: N tokens of S sequences, B blocks of the longest, O tokens whose logits are wanted, V vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tokens to compute. All tensors are on the CPU; a runner moves what it needs."""

    ids: Tensor  # (N,) int64
    positions: Tensor  # (N,) int64
    starts: (
        Tensor  # (S + 1,) int32: sequence s brings tokens starts[s] to starts[s + 1] - 1, positions ascending
    )
    tables: Tensor  # (S, B) int32 block ids
    outputs: Tensor  # (O,) int64 tokens whose logits are wanted
    firsts: Tensor | None = None  # (S,) int64 first position attended to; only in drafting
    adapters: Tensor | None = None  # (N,) int32 the adapter's number, -1: none; None: no token has one


class Runner(Protocol):
    """One network and its cache."""

    block_bytes: int  # of one cache block over all layers
    layout: str  # names type, widths and order of a block's bytes

    def allocate(self, num_blocks: int) -> None:
        """Make room for blocks 0 to num_blocks - 1."""

    def free(self) -> None:
        """Give the memory back."""

    def forward(self, batch: Batch) -> Tensor:
        """Compute the tokens, keep their entries; logits (O, V), float32 at least."""
        ...

    def draft(self, batch: Batch, sources: Tensor) -> Tensor:
        """The MTP module's logits (O, V) for what follows each token.

        sources (N,): the token of the last `forward` whose hidden state stands one position before this one.
        Entries are kept at the token's own position, in a layer of their own.
        """
        ...

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks, source to target, one pair after the other."""

    def read_block(self, block: int) -> bytes:
        """A block's content in all layers."""
        ...

    def write_block(self, block: int, data: bytes) -> None:
        """The inverse of `read_block`."""

    def refresh(self) -> None:
        """The network's weights have changed."""

    def set_adapters(self, adapters: Mapping[str, Mapping[str, LowRankPair]]) -> None:
        """Serve these from now on, numbered from 0. Refuse, with nothing changed, what cannot be served."""
