import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tenth.base.errors import CheckpointError
from tenth.checkpoint.block_fp8 import (
    Fp8Source,
    dequantise_blocks,
    is_fp8_weight,
    quantise_blocks,
    scale_shape,
)
from tenth.checkpoint.tensor_source import TensorInfo


class Tensors:
    """Tensors in memory as a source."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def infos(self):
        return {name: TensorInfo(dtype=t.dtype, shape=tuple(t.shape)) for name, t in self.tensors.items()}

    def read(self, name):
        return self.tensors[name]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [  # DeepSeek-R1's own: q_a, q_b, kv_a (576 = 4 * 128 + 64 rows), kv_b, o
        ((1536, 7168), (12, 56)),
        ((24576, 1536), (192, 12)),
        ((576, 7168), (5, 56)),
        ((32768, 512), (256, 4)),
        ((7168, 16384), (56, 128)),
    ],
)
def test_scales_have_the_shapes_that_are_published(shape, expected):
    assert scale_shape(shape) == expected


def test_every_number_is_multiplied_by_the_scale_of_its_block():
    # 130 x 257: two rows of blocks, the second of 2 rows; three columns of blocks, the third of 1 column
    weight = torch.ones(130, 257).to(torch.float8_e4m3fn)
    scales = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    plain = dequantise_blocks(weight, scales)
    for row, column, scale in [
        (0, 0, 1),
        (127, 127, 1),
        (127, 128, 2),
        (0, 256, 3),
        (128, 0, 4),
        (129, 256, 6),
    ]:
        assert plain[row, column] == scale


def test_a_blocks_largest_number_becomes_448():
    weight = torch.zeros(3, 130)
    weight[1, 5], weight[2, 129] = -7.0, 0.5
    codes, scales = quantise_blocks(weight)
    assert codes.dtype == torch.float8_e4m3fn
    assert codes[1, 5].float() == -448
    assert codes[2, 129].float() == 448
    torch.testing.assert_close(scales, torch.tensor([[7 / 448, 0.5 / 448]]), rtol=1e-7, atol=0)


def test_a_block_of_zeros_stays_zeros():
    assert not dequantise_blocks(*quantise_blocks(torch.zeros(200, 5))).any()


@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 1000),
)
def test_the_error_is_within_half_a_step_of_each_block(rows, columns, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 2.0**exponent
    codes, scales = quantise_blocks(weight)
    error = (dequantise_blocks(codes, scales) - weight).abs()
    # E4M3 has three bits after the point: half a step is 1/16 of a number, and 2^-10 at the low end.
    per_number = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :columns]
    bound = torch.maximum(weight.abs() / 16, per_number * 2.0**-10)
    assert bool((error <= bound * (1 + 1e-5)).all())


@given(rows=st.integers(1, 200), columns=st.integers(1, 200), seed=st.integers(0, 1000))
def test_numbers_that_fp8_holds_come_back_bit_for_bit(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-120, 121, (rows, columns), generator=generator)
    values = weight.to(torch.int8).view(torch.float8_e4m3fn).float().nan_to_num(0)
    values[::128, ::128] = 448  # with the largest in every block its scale is 1
    codes, scales = quantise_blocks(values)
    assert torch.equal(scales, torch.ones_like(scales))
    assert torch.equal(dequantise_blocks(codes, scales), values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_is_quantised_as_its_float32(dtype):
    weight = torch.linspace(-3, 3, 300).view(2, 150).to(dtype)
    for found, expected in zip(quantise_blocks(weight), quantise_blocks(weight.float()), strict=True):
        assert torch.equal(found.float(), expected.float())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight", True),
        ("model.layers.3.mlp.experts.7.down_proj.weight", True),
        ("model.layers.3.mlp.shared_experts.gate_proj.weight", True),
        ("model.layers.3.mlp.gate.weight", False),
        ("model.layers.3.mlp.gate.e_score_correction_bias", False),
        ("model.layers.61.eh_proj.weight", False),
        ("model.layers.61.shared_head.head.weight", False),
        ("model.layers.3.self_attn.q_proj.bias", False),
        ("model.layers.3.self_attn.kv_a_layernorm.weight", False),
        ("model.embed_tokens.weight", False),
        ("lm_head.weight", False),
    ],
)
def test_projections_are_stored_in_fp8_and_nothing_else(name, expected):
    assert is_fp8_weight(name) == expected


def test_a_source_shows_plain_numbers_and_no_scales():
    codes, scales = quantise_blocks(torch.randn(130, 4))
    source = Fp8Source(Tensors(w=codes, w_scale_inv=scales, norm=torch.ones(3)))
    assert list(source.infos()) == ["w", "norm"]
    assert source.infos()["w"] == TensorInfo(dtype=torch.float32, shape=(130, 4))
    assert torch.equal(source.read("w"), dequantise_blocks(codes, scales))
    assert torch.equal(source.read("norm"), torch.ones(3))


@pytest.mark.parametrize("scales", [{}, {"w_scale_inv": torch.ones(1, 1)}, {"w_scale_inv": torch.ones(2)}])
def test_scales_of_other_blocks_are_one_sentence(scales):
    weight = torch.zeros(130, 4).to(torch.float8_e4m3fn)
    with pytest.raises(CheckpointError, match=r"'w' \(130, 4\) .* blocks of 128 x 128 need \(2, 1\)"):
        Fp8Source(Tensors(w=weight, **scales))


def test_an_empty_matrix_is_an_empty_matrix():
    """No network has one, and a stranger's file may."""
    empty = torch.empty(0, 300).to(torch.float8_e4m3fn)
    assert dequantise_blocks(empty, torch.empty(0, 3)).shape == (0, 300)
