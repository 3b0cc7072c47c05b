"""DeepSeek's FP8: numbers in E4M3, one float32 scale for each block of 128 x 128.

Why: the published weights of V3 and R1 are stored like this, in half the bytes of bfloat16 (arXiv:2412.19437,
section 3.3; README_WEIGHTS of DeepSeek-V3). A block at the edge may be smaller: 576 rows have five rows of
blocks, the last one of 64 rows.
In:  E4M3 matrices with their `NAME_scale_inv`, which despite its name is multiplied; or matrices to store so.
Out: float32 matrices; or E4M3 and scales.
Which matrices are stored so: `is_fp8_weight`. Not here: 8-bit arithmetic; other tools' quantisations.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.checkpoint.tensor_source import TensorInfo, TensorSource

BLOCK = 128
SCALE = "_scale_inv"  # appended to the matrix' name
_LARGEST = 448.0  # of E4M3
# Projections are stored in FP8; embedding, head, norms, biases, the router's gate and MTP's eh_proj are not.
_FP8_ENDING = "_proj.weight"
_WIDE = ("eh_proj.weight",)


def is_fp8_weight(name: str) -> bool:
    """Whether official checkpoints store the tensor in FP8, by its Hugging Face name."""
    return name.endswith((_FP8_ENDING, "kv_a_proj_with_mqa.weight")) and not name.endswith(_WIDE)


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One scale per block, edges included: (576, 7168) -> (5, 56)"""
    return tuple(-(-size // BLOCK) for size in shape)


def dequantise_blocks(weight: Tensor, scale_inv: Tensor) -> Tensor:
    """(M, N) E4M3, (ceil(M/128), ceil(N/128)) -> (M, N) float32: every number times its block's scale."""
    values = weight.float()  # (M, N)
    if not values.numel():
        return values  # a stranger's file may hold it, and what is split of it is one piece, not none
    scales = scale_inv.float().repeat_interleave(BLOCK, 1)[:, : values.shape[1]]  # (blocks of rows, N)
    for rows, scale in zip(values.split(BLOCK), scales, strict=True):
        rows *= scale
    return values


def quantise_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(M, N) -> E4M3 (M, N) and float32 scales: a block's largest number becomes E4M3's largest, 448."""
    codes = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty(scale_shape(tuple(weight.shape)))
    for i, rows in enumerate(weight.split(BLOCK)):  # (128, N) at a time: little memory beside the result
        padded = torch.zeros(len(rows), scales.shape[1] * BLOCK)
        padded[:, : rows.shape[1]] = rows
        blocks = padded.unflatten(1, (-1, BLOCK))  # (128, blocks, 128)
        wanted = blocks.abs().amax((0, 2)) / _LARGEST  # (blocks,)
        scales[i] = torch.where(wanted > 0, wanted, 1.0)
        scaled = (blocks / scales[i].unsqueeze(-1)).clamp_(-_LARGEST, _LARGEST)
        codes[i * BLOCK : i * BLOCK + len(rows)] = scaled.flatten(1)[:, : rows.shape[1]].to(codes.dtype)
    return codes, scales


def in_fp8(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """As DeepSeek publishes its models: projections in FP8 with scales, the selection bias whole, all else
    in bfloat16."""
    for name, tensor in tensors:
        if is_fp8_weight(name):
            codes, scales = quantise_blocks(tensor)
            yield from ((name, codes), (name + SCALE, scales))
        else:
            is_whole = name.endswith("e_score_correction_bias")
            yield name, tensor.float() if is_whole else tensor.bfloat16()


class Fp8Source:
    """A `TensorSource` whose FP8 matrices come dequantised; their scales are not seen."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        stored = source.infos()
        self._infos = {
            name: TensorInfo(dtype=torch.float32, shape=info.shape)
            if info.dtype == torch.float8_e4m3fn
            else info
            for name, info in stored.items()
            if not name.endswith(SCALE)
        }
        for name, info in stored.items():
            if info.dtype == torch.float8_e4m3fn:
                _require_scales(name, info, stored.get(name + SCALE))

    def infos(self) -> Mapping[str, TensorInfo]:
        """Without the scales."""
        return self._infos

    def read(self, name: str) -> Tensor:
        """Plain numbers."""
        tensor = self._source.read(name)
        if tensor.dtype != torch.float8_e4m3fn:
            return tensor
        return dequantise_blocks(tensor, self._source.read(name + SCALE))


def _require_scales(name: str, info: TensorInfo, scales: TensorInfo | None) -> None:
    expected = scale_shape(info.shape)
    if scales is None or len(info.shape) != 2 or scales.shape != expected:
        found = "none" if scales is None else str(scales.shape)
        raise CheckpointError(
            f"'{name}' {info.shape} holds FP8 and its scales have the shape {found}, where blocks of "
            f"{BLOCK} x {BLOCK} need {expected}; other FP8 formats are not read, choose the bfloat16 weights."
        )
