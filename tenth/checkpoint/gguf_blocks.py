"""The number formats of a GGUF file: float32, bf16, float16, Q8_0 and Q4_0, both ways.

Why: one table says how wide each is, and one door leads to the `gguf` library, whose quantisation is ggml's
own: codes equal those of llama.cpp's quantiser bit for bit.
Q8_0: blocks of 32 with one float16 scale and bytes. Q4_0: the same with half bytes, -8 to 7.
In:  rows of float32, or bytes.  Out: bytes, or a tensor.
Not here: which tensor gets which format (gguf_writer.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from torch import Tensor

from tenth.base.errors import CheckpointError

GgmlType = gguf.GGMLQuantizationType


@dataclass(frozen=True, slots=True)
class Block:
    """The smallest piece of a row that is stored by itself."""

    length: int  # numbers
    num_bytes: int
    dtype: torch.dtype | None  # of plain numbers; None: codes, which are read as float32


_PLAIN = {
    GgmlType.F32: torch.float32,
    GgmlType.F16: torch.float16,
    GgmlType.BF16: torch.bfloat16,
}
_READ = (*_PLAIN, GgmlType.Q8_0, GgmlType.Q4_0)


def block_of(type_id: int) -> Block:
    """The block of any of ggml's types, by its number, whether its numbers are read or not."""
    try:
        kind = GgmlType(type_id)
    except ValueError as error:
        raise CheckpointError(
            f"a tensor is of type number {type_id}, which ggml does not have; fetch the file again."
        ) from error
    length, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    return Block(length, num_bytes, _PLAIN.get(kind))


def require_readable(type_ids: Iterable[int]) -> None:
    """A sentence for types whose numbers are not read."""
    others = sorted({type_name(each) for each in type_ids if each not in _READ})
    if others:
        raise CheckpointError(
            f"its numbers are stored as {', '.join(others)}; {', '.join(each.name for each in _READ)} are "
            "read; take a file of one of these types."
        )


def type_name(type_id: int) -> str:
    """What ggml calls a type."""
    return GgmlType(type_id).name


def encode(rows: Tensor, kind: GgmlType) -> NDArray[np.uint8]:
    """The bytes of rows (…, columns), which must be whole blocks."""
    if kind is GgmlType.BF16:  # torch rounds to nearest even, as ggml does
        return rows.bfloat16().contiguous().view(torch.uint8).numpy()
    values = rows.float().contiguous().numpy()
    return quantize(values, kind).view(np.uint8)


def decode(data: Tensor, type_id: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers from bytes (uint8): plain ones as a view of them, codes as float32."""
    block = block_of(type_id)
    if block.dtype is not None:
        return data.view(block.dtype).view(shape)
    stored = data.view(*shape[:-1], shape[-1] // block.length * block.num_bytes)
    return torch.from_numpy(dequantize(stored.numpy(), GgmlType(type_id)).reshape(shape))
