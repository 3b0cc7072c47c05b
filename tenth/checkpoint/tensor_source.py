"""Where tensors come from: names with types and shapes at once, numbers one tensor at a time.

Why: every foreign format is read through this one small interface, under Hugging Face names and layouts, so a
reader of N formats and a writer of N formats meet in the middle, and no checkpoint is ever held whole.
In:  nothing: a protocol, implemented by safetensors directories, GGUF and llama2.c files, FP8 views of them.
Out: `TensorInfo` by name, tensors by name.
Not here: which names a model needs (names.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """What is known of a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of its numbers alone."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorSource(Protocol):
    """Tensors under Hugging Face names."""

    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in file order; nothing is read."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor; it may be a view of read-only memory: copy before writing."""
        ...
