import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import CONFIGS, DEEPSEEK, QWEN, build, random_ids
from torch import Tensor, nn

from tenth.base.errors import ConfigError
from tenth.model.config import ModelConfig
from tenth.model.mla import LatentAttention
from tenth.model.moe import MoE
from tenth.model.quantize import (
    GROUP,
    Quantisation,
    fill,
    quantisation_of,
    quantize_model,
    round_to_nearest,
)
from tenth.model.quantized import (
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
    QuantizedMatrix,
    pack,
    unpack,
)
from tenth.model.transformer import Transformer

QUANTIZABLE = {name: config for name, config in CONFIGS.items() if "no kernel" not in name}


def quantized(weight: Tensor, *, bits: int) -> QuantizedMatrix:
    module = QuantizedMatrix(*weight.shape, bits=bits, group=GROUP)
    fill(module, weight)
    return module


def matrix(rows: int = 64, width: int = 96, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


# what is stored


def test_two_codes_of_four_bits_share_a_byte_the_even_column_low():
    # stored plus 8: -8 -> 0, 7 -> 15; 1 -> 9, -1 -> 7
    packed = pack(torch.tensor([[-8, 7, 1, -1]]), bits=4)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0xF0, 0x79]]


def test_every_pair_of_codes_comes_back():
    codes = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8))
    assert torch.equal(unpack(pack(codes, bits=4), bits=4), codes.to(torch.int8))


def test_a_weight_is_its_code_times_the_scale_of_its_group():
    module = QuantizedLinear(1, 64, bits=8, group=32)
    module.codes[:] = torch.arange(64, dtype=torch.int8)
    module.scales[:] = torch.tensor([[0.5, -2.0]])
    expected = [0.5 * k for k in range(32)] + [-2.0 * k for k in range(32, 64)]
    assert module.dequantised().tolist() == [expected]


@pytest.mark.parametrize(("bits", "bits_per_weight"), [(8, 8.5), (4, 4.5)])
def test_a_weight_takes_its_bits_and_a_thirty_second_of_a_scale(bits, bits_per_weight):
    module = quantized(matrix(2, 64), bits=bits)
    assert 8 * sum(tensor.nbytes for tensor in module.state_dict().values()) / 128 == bits_per_weight


# the search


@pytest.mark.parametrize(("bits", "largest"), [(4, -8), (4, 7), (8, 127), (8, -127)])
def test_weights_that_lie_on_a_grid_come_back_exactly(bits, largest):
    codes = torch.arange(32) % 7 - 3
    codes[5] = largest
    assert torch.equal(quantized(0.25 * codes[None], bits=bits).dequantised(), 0.25 * codes[None])


def test_the_larger_half_of_the_four_bit_range_goes_to_the_sign_that_needs_it():
    weight = torch.zeros(2, 32)
    weight[:, 0], weight[:, 1] = torch.tensor([8.0, -8.0]), torch.tensor([-7.0, 7.0])
    weight[:, 2:] = torch.arange(30) % 7 - 3
    module = quantized(weight, bits=4)
    assert module.scales.tolist() == [[-1.0], [1.0]]
    assert torch.equal(module.dequantised(), weight)


@pytest.mark.parametrize("bits", [8, 4])
def test_what_was_quantised_once_loses_nothing_a_second_time(bits):
    once = quantized(matrix(), bits=bits).dequantised()
    torch.testing.assert_close(quantized(once, bits=bits).dequantised(), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [8, 4])
def test_no_weight_within_the_range_is_off_by_more_than_half_a_step(bits):
    weight = matrix()
    module = quantized(weight, bits=bits)
    step = module.scales.float().repeat_interleave(32, dim=-1)
    lowest, highest = {8: (-127, 127), 4: (-8, 7)}[bits]
    position = weight / step
    inside = (position >= lowest) & (position <= highest)
    assert inside.float().mean() > 0.95
    error = (weight - module.dequantised()).abs() / step.abs()
    assert float(error[inside].max()) <= 0.5 + 1e-5


@given(
    st.sampled_from([8, 4]),
    st.integers(0, 2**32 - 1),
    st.floats(1e-7, 1e4),
    st.sampled_from(["normal", "heavy tails", "one sign", "sparse"]),
)
def test_the_search_is_never_worse_than_rounding_to_nearest(bits, seed, size, kind):
    weight = size * matrix(4, 64, seed=seed)
    if kind == "heavy tails":
        weight = weight**3
    elif kind == "one sign":
        weight = weight.abs()
    elif kind == "sparse":
        weight[:, ::3] = 0
    weight = weight.clamp(-60000, 60000)

    def errors(approximation: Tensor) -> Tensor:
        return (weight.double() - approximation).unflatten(-1, (-1, GROUP)).square().sum(-1)

    searched = errors(quantized(weight, bits=bits).dequantised())
    energy = weight.double().unflatten(-1, (-1, GROUP)).square().sum(-1)
    # the comparison is made in float32, so a tie may be lost by its last digits
    assert bool((searched <= errors(round_to_nearest(weight, bits=bits)) + 1e-6 * energy).all())


def test_the_search_takes_a_quarter_off_the_squared_error_of_four_bits():
    weight = matrix(256, 256)
    searched = (weight - quantized(weight, bits=4).dequantised()).square().sum()
    assert searched < 0.75 * (weight - round_to_nearest(weight, bits=4)).square().sum()


def test_a_long_matrix_is_worked_on_in_pieces_that_do_not_show():
    weight = matrix(5000, 32)  # more groups than one piece holds
    pieces = torch.cat([quantized(part, bits=4).codes for part in weight.split(1)])
    assert torch.equal(quantized(weight, bits=4).codes, pieces)


@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_stay_zeros(bits):
    assert not quantized(torch.zeros(2, 64), bits=bits).dequantised().any()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [1e-5, 1e-7, 1e-12])
def test_weights_too_small_for_a_scale_are_off_by_half_the_least_scale_at_most(bits, size):
    weight = size * matrix(4, 64).clamp(-2, 2)
    error = (weight - quantized(weight, bits=bits).dequantised()).abs().max()
    assert float(error) <= max(2.0**-25, 0.2 * size)


# modules


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_computes_with_the_dequantised_matrix(bits, has_bias):
    weight, x, bias = matrix(48, 96), matrix(5, 96, seed=1).double(), matrix(1, 48, seed=2)[0].double()
    module = QuantizedLinear(48, 96, bits=bits, group=GROUP, bias=nn.Parameter(bias) if has_bias else None)
    fill(module, weight)
    expected = [
        [
            sum(float(a) * float(b) for a, b in zip(row, column, strict=True)) + has_bias * float(offset)
            for column, offset in zip(module.dequantised(), bias, strict=True)
        ]
        for row in x
    ]
    torch.testing.assert_close(module(x), torch.tensor(expected, dtype=torch.float64))


def test_an_embedding_looks_up_the_rows_of_its_matrix():
    module = QuantizedEmbedding(20, 64, bits=4, group=GROUP)
    fill(module, matrix(20, 64))
    ids = torch.tensor([[3, 19], [3, 0]])
    assert torch.equal(module(ids), module.dequantised()[ids])


def test_changing_the_dtype_changes_what_is_computed_in_and_not_what_is_stored():
    module = quantized(matrix(), bits=8).to(torch.bfloat16)
    assert (module.codes.dtype, module.scales.dtype) == (torch.int8, torch.float16)
    assert module.weight.dtype == torch.bfloat16
    assert torch.equal(module.dequantised(), quantized(matrix(), bits=8).dequantised())


# whole models


def with_dequantised_weights(model: Transformer, config: ModelConfig) -> Transformer:
    """A plain network that holds what the quantised one stands for."""
    plain, tensors = build(config), {}
    for name, tensor in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        if last == "codes":
            module = model.get_submodule(stem)
            suffix = "" if isinstance(module, QuantizedExperts) else ".weight"
            tensors[stem + suffix] = module.dequantised()
        elif last != "scales":
            tensors[name] = tensor
    plain.load_state_dict(tensors)
    return plain


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("config", QUANTIZABLE.values(), ids=QUANTIZABLE)
def test_a_quantised_model_computes_what_its_dequantised_weights_compute(bits, config):
    model, ids = quantize_model(build(config), bits), random_ids(2, 12)
    plain = with_dequantised_weights(model, config)
    torch.testing.assert_close(model.logits(model(ids)), plain.logits(plain(ids)))


def test_norms_the_router_and_the_latent_s_expansion_stay_as_they_are():
    original, model = build(DEEPSEEK), quantize_model(build(DEEPSEEK), 4)
    kept = {name for name in model.state_dict() if name.rpartition(".")[2] not in ("codes", "scales")}
    assert all(torch.equal(model.state_dict()[name], original.state_dict()[name]) for name in kept)
    attention = next(module for module in model.modules() if isinstance(module, LatentAttention))
    experts = next(module for module in model.modules() if isinstance(module, MoE))
    assert isinstance(attention.kv_b, nn.Linear)
    assert isinstance(attention.qkv_a, QuantizedLinear)
    assert isinstance(experts.router.weight, nn.Parameter)
    assert isinstance(experts.gate_up, QuantizedExperts)
    assert isinstance(model.head, QuantizedLinear)


def test_a_width_that_is_no_multiple_of_the_group_keeps_its_matrix():
    # an intermediate size of 48 is no multiple of 32, the hidden size is
    block = quantize_model(build(QWEN), 4).layers[0]
    assert isinstance(block.ffn.down, nn.Linear)
    assert isinstance(block.ffn.gate_up, QuantizedLinear)


def test_a_tied_head_reads_the_embedding_s_numbers():
    model = quantize_model(build(QWEN), 4)
    assert model.head is None
    assert torch.equal(model.head_weight, model.embed(torch.arange(QWEN.vocab_size)))


def test_the_head_has_eight_bits_in_either_format_and_a_table_that_is_only_looked_up_has_not():
    tied, untied = (quantize_model(build(config), 4) for config in (QWEN, DEEPSEEK))
    assert (tied.embed.bits, untied.embed.bits, untied.head.bits) == (8, 4, 8)
    assert quantisation_of(tied) == quantisation_of(untied) == Quantisation(bits=4)


def test_the_head_has_four_bits_where_that_is_asked_for():
    tied, untied = (quantize_model(build(config), 4, head_bits=4) for config in (QWEN, DEEPSEEK))
    assert (tied.embed.bits, untied.head.bits) == (4, 4)
    assert quantisation_of(tied) == quantisation_of(untied) == Quantisation(bits=4, head_bits=4)


def test_quantising_is_deterministic():
    first, second = (quantize_model(build(DEEPSEEK), 4).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_quantised_model_computes_in_the_dtype_that_is_asked_for():
    model = quantize_model(build(QWEN, dtype=torch.float32), 8).to_compute_dtype(torch.bfloat16)
    hidden = model(random_ids(1, 5))
    assert hidden.dtype == model.logits(hidden).dtype == torch.bfloat16
    assert model.embed.scales.dtype == torch.float16


def test_progress_is_told_until_all_is_done():
    told = []
    quantize_model(build(QWEN), 8, on_progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    # per layer: 32 x (64 + 2 * 32) qkv, 64 x 32 o, 32 x 96 gate and up; the table: 40 x 32
    assert told[-1] == (2 * (4096 + 2048 + 3072) + 1280,) * 2


# what is refused


def test_other_numbers_of_bits_are_one_sentence():
    with pytest.raises(ConfigError, match="bits = 5 is not a known format of weights; choose 8 or 4"):
        quantize_model(build(QWEN), 5)


def test_other_groups_are_one_sentence():
    with pytest.raises(ConfigError, match="group = 64 is not implemented"):
        Quantisation(bits=8, group=64)


def test_a_quantised_model_is_not_quantised_again():
    model = quantize_model(build(QWEN), 8)
    assert quantisation_of(model) == Quantisation(bits=8)
    with pytest.raises(ConfigError, match="is quantised already; start from the original"):
        quantize_model(model, 4)


def test_a_model_whose_widths_do_not_fit_is_one_sentence():
    config = dataclasses.replace(CONFIGS["deepseek, widths no kernel takes"], num_nextn_predict_layers=0)
    with pytest.raises(ConfigError, match="no matrix whose width is a multiple of 32"):
        quantize_model(build(config), 8)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e5])
def test_weights_that_no_scale_reaches_are_one_sentence_with_the_matrix_s_name(bad):
    model = build(QWEN)
    model.layers[1].attention.o.weight.data[3, 3] = bad
    with pytest.raises(ConfigError, match=r"'layers\.1\.attention\.o' holds weights from"):
        quantize_model(model, 8)
