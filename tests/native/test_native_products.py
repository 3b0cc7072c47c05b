"""Packed products of every format against the dequantised matrix in float64, and against themselves."""

import ctypes

import pytest
import torch

from tenth.engine.native_network import NativeNetwork, cell_dtype
from tenth.model.ops import kernels, pointer
from tenth.model.presets import preset
from tenth.model.quantize import fill
from tenth.model.quantized import QuantizedLinear
from tenth.model.transformer import Transformer

TINY = Transformer(preset("nano-zero"))
pytestmark = pytest.mark.skipif(cell_dtype(TINY) is None, reason="no compiler for the C++ kernels")
SIZES = [(40, 64), (896, 896), (151, 4864)]
ROWS = 37  # tiles of sixteen, eight, four, two and one


def packed(kind: str, rows: int, cols: int):
    """The matrix for the kernels, what keeps it alive, and its numbers in float64."""
    weight = torch.randn(rows, cols, generator=torch.Generator().manual_seed(rows))
    is_bf16 = kind == "bf16" and kernels().tenth_has_bf16_products()
    network = NativeNetwork(TINY, cells=torch.bfloat16 if is_bf16 else torch.float32)
    if kind in ("float32", "bf16"):
        weight = weight.bfloat16() if is_bf16 else weight
        return network._packed(weight), network, weight.double()
    module = QuantizedLinear(rows, cols, bits=int(kind), group=32)
    fill(module, weight)
    return network._matrix(module), network, module.dequantised().double()


def multiply(matrix, x):
    y = torch.empty(len(x), (matrix.rows + 15) // 16 * 16)
    kernels().tenth_product(ctypes.byref(matrix), pointer(x), ctypes.c_int64(len(x)), pointer(y))
    return y[:, : matrix.rows]


@pytest.mark.parametrize("kind", ["float32", "bf16", "8", "4"])
@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_a_product_is_that_of_the_numbers_the_matrix_stands_for(kind, rows, cols):
    matrix, _kept, exact = packed(kind, rows, cols)
    x = torch.randn(ROWS, cols, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    found, wanted = multiply(matrix, x), x.double() @ exact.t()
    # Quantised weights meet activations of 16 bits, the others float32 sums.
    assert (found - wanted).abs().max() < (1e-4 if kind in "84" else 1e-5) * wanted.abs().max()
    for start, end in ((0, 1), (3, 5), (2, 9), (0, 16), (5, 37)):
        assert torch.equal(multiply(matrix, x[start:end].contiguous()), found[start:end])


@pytest.mark.parametrize("kind", ["float32", "bf16", "8", "4"])
def test_a_looked_up_row_is_exact(kind):
    matrix, _kept, exact = packed(kind, 151, 96)
    ids, rows = torch.tensor([0, 17, 150]), torch.empty(3, 96)
    kernels().tenth_matrix_rows(ctypes.byref(matrix), pointer(ids), ctypes.c_int64(3), pointer(rows))
    assert torch.equal(rows.double(), exact[ids])
