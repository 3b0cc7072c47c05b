"""The name of what a network computes: it changes with every weight, and with nothing else."""

import dataclasses

import pytest
import torch
from small_models import DEEPSEEK, QWEN, build

from tenth.model import fingerprint
from tenth.model.fingerprint import weights_fingerprint
from tenth.model.quantized import QuantizedLinear


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=lambda config: config.name)
def test_networks_with_the_same_weights_have_the_same_name(config):
    assert weights_fingerprint(build(config)) == weights_fingerprint(build(config))
    assert weights_fingerprint(build(config)) != weights_fingerprint(build(config, seed=1))


def test_the_last_bit_of_any_weight_or_selection_bias_changes_the_name():
    network = build(DEEPSEEK, dtype=torch.float32).to_compute_dtype(torch.bfloat16)
    names = {weights_fingerprint(network)}
    tensors = list(network.state_dict().values())
    for tensor in tensors:
        last = tensor.view(-1).view(torch.uint8)
        last[-tensor.element_size()] ^= 1
        names.add(weights_fingerprint(network))
    assert len(names) == 1 + len(tensors)
    for tensor in tensors:
        tensor.view(-1).view(torch.uint8)[-tensor.element_size()] ^= 1
    assert weights_fingerprint(network) in names


def test_codes_of_quantised_weights_are_weights():
    network = build(QWEN)
    network.layers[0].attention.o = QuantizedLinear(64, 32, bits=8, group=32)
    before = weights_fingerprint(network)
    network.layers[0].attention.o.codes[0, 0] += 1
    assert weights_fingerprint(network) != before


def test_the_same_weights_used_otherwise_have_another_name():
    fewer = dataclasses.replace(DEEPSEEK, moe=dataclasses.replace(DEEPSEEK.moe, num_experts_per_tok=2))
    assert weights_fingerprint(build(fewer)) != weights_fingerprint(build(DEEPSEEK))


def test_how_it_is_cut_into_chunks_changes_nothing(monkeypatch):
    network = build(QWEN)
    whole = weights_fingerprint(network)
    monkeypatch.setattr(fingerprint, "_CHUNK", 7)
    assert weights_fingerprint(network) == whole


def test_weights_that_do_not_lie_in_one_piece_are_read_in_order():
    network, other = build(QWEN), build(QWEN)
    weight = other.layers[0].attention.o.weight
    weight.data = weight.data.t().contiguous().t()
    assert weights_fingerprint(network) == weights_fingerprint(other)
