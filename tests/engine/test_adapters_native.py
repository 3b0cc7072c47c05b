"""Adapters in the C++ pass: a row has the numbers of its own adapter, whoever stands beside it."""

import dataclasses

import pytest
import torch
from adapted_models import attach, merged
from engine_models import CONFIGS, QWEN, build
from runner_batches import PROMPTS, WHOLE, allocated, batch

from tenth.engine.adapters import read_adapters
from tenth.engine.native_network import cell_dtype
from tenth.engine.native_runner import NativeRunner
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.engine.torch_runner import TorchRunner
from tenth.model.quantize import quantize_model
from tenth.model.transformer import Transformer

pytestmark = pytest.mark.skipif(
    cell_dtype(build(QWEN, dtype=torch.float32)) is None, reason="no compiler for the C++ kernels"
)

NETWORKS = {
    name: dataclasses.replace(config, max_position_embeddings=200) for name, config in CONFIGS.items()
}
# heads of 80: matrices whose last panel is not full
NETWORKS["wide heads"] = dataclasses.replace(
    NETWORKS["qwen"],
    num_attention_heads=6,
    gqa=dataclasses.replace(QWEN.gqa, num_key_value_heads=1, head_dim=80),
    intermediate_size=56 * 2,
)
NAMES = ("a", "b", "c")
MIXED = (2, -1, 0, 1)  # the adapter of each prompt
every_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)


def serving(runner, model: Transformer):
    runner.set_adapters({name: each.pairs for name, each in read_adapters(model).items()})
    return allocated(runner)


def adapted(whole: Batch, numbers: tuple[int, ...]) -> Batch:
    """Sequence i of the batch has adapter numbers[i]."""
    counts = whole.starts.diff().long()
    return dataclasses.replace(
        whole, adapters=torch.tensor(numbers, dtype=torch.int32).repeat_interleave(counts)
    )


def gap(found, wanted) -> float:
    return (found.double().log_softmax(-1) - wanted.double().log_softmax(-1)).abs().max().item()


@every_network
def test_every_row_computes_with_its_own_adapter_as_if_it_were_merged(config):
    model = attach(build(config, dtype=torch.float32), *NAMES)
    found = serving(NativeRunner(model), model).forward(adapted(batch(*WHOLE), MIXED))
    each = found.split([len(prompt) for prompt in PROMPTS])
    for piece, number, rows in zip(WHOLE, MIXED, each, strict=True):
        plain = merged(model, NAMES[number] if number >= 0 else None).double()
        assert gap(rows, allocated(TorchRunner(plain)).forward(batch(piece))) < 1e-4


@every_network
def test_the_twin_in_torch_routes_rows_alike_to_twelve_digits(config):
    model = attach(build(config), *NAMES)
    found = serving(TorchRunner(model), model).forward(adapted(batch(*WHOLE), MIXED))
    each = found.split([len(prompt) for prompt in PROMPTS])
    for piece, number, rows in zip(WHOLE, MIXED, each, strict=True):
        plain = merged(model, NAMES[number] if number >= 0 else None)
        assert gap(rows, allocated(TorchRunner(plain)).forward(batch(piece))) < 1e-11


def test_in_bfloat16_an_adapter_sees_what_it_sees_in_torch():
    model = attach(build(NETWORKS["qwen"], dtype=torch.bfloat16), *NAMES)
    whole = adapted(batch(*WHOLE), MIXED)
    rounded = serving(TorchRunner(model), model).forward(whole)
    wide = attach(build(NETWORKS["qwen"], dtype=torch.bfloat16).double(), *NAMES)
    wanted = serving(TorchRunner(wide), wide).forward(whole)
    found = serving(NativeRunner(model), model).forward(whole)
    own = (rounded.double() - wanted).abs().mean()
    assert (found.double() - wanted).abs().mean() <= 1.2 * own


BASES = {"float32": (torch.float32, None), "bfloat16": (torch.bfloat16, None)} | {
    f"int{bits}": (torch.float32, bits) for bits in (8, 4)
}

CUTS = {
    "one by one": [[(i, 0, end)] for i, _, end in WHOLE],
    "in chunks": [
        [(0, 0, 7), (1, 0, 33), (3, 0, 64)],
        [(2, 0, 2), (1, 33, 65), (3, 64, 65)],
        [(0, 7, 200), (3, 65, 129), (2, 2, 3), (1, 65, 70)],
    ],
    "token by token": [[(i, t, t + 1) for i, _, n in WHOLE if t < n] for t in range(200)],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("dtype", "bits"), BASES.values(), ids=BASES)
@pytest.mark.parametrize("config", [NETWORKS["deepseek"], NETWORKS["wide heads"]], ids=["mla", "gqa"])
def test_a_token_has_the_same_bits_however_the_mixed_batch_is_cut(config, dtype, bits, cut):
    model = build(config, dtype=dtype)
    model = attach(model if bits is None else quantize_model(model, bits), *NAMES)
    whole = serving(NativeRunner(model), model).forward(adapted(batch(*WHOLE), MIXED))
    runner, found = serving(NativeRunner(model), model), {}
    for pieces in cut:
        logits = runner.forward(adapted(batch(*pieces), tuple(MIXED[prompt] for prompt, _, _ in pieces)))
        for (prompt, start, _), rows in zip(
            pieces, logits.split([end - start for _, start, end in pieces]), strict=True
        ):
            found |= {(prompt, start + i): row for i, row in enumerate(rows)}
    places = [(prompt, i) for prompt, _, end in WHOLE for i in range(end)]
    assert torch.equal(torch.stack([found[place] for place in places]), whole)


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_over_a_quantised_base_equal_their_twin_over_the_same(bits):
    model = attach(quantize_model(build(NETWORKS["deepseek"], dtype=torch.float32), bits), *NAMES)
    whole = adapted(batch(*WHOLE), MIXED)
    found = serving(NativeRunner(model), model).forward(whole)
    wanted = serving(TorchRunner(model), model).forward(whole)
    assert (found.double().softmax(-1) - wanted.double().softmax(-1)).abs().mean() < 1e-5


def test_rows_without_an_adapter_have_the_bits_of_an_engine_that_knows_none():
    model = build(NETWORKS["deepseek"], dtype=torch.float32)
    wanted = allocated(NativeRunner(model)).forward(batch(*WHOLE))
    runner = serving(NativeRunner(attach(model, *NAMES)), model)
    assert torch.equal(runner.forward(batch(*WHOLE)), wanted)
    mixed = runner.forward(adapted(batch(*WHOLE), (0, -1, 1, -1)))
    is_plain = torch.tensor([False, True, False, True]).repeat_interleave(
        torch.tensor([len(p) for p in PROMPTS])
    )
    assert torch.equal(mixed[is_plain], wanted[is_plain])
    assert not torch.equal(mixed[~is_plain], wanted[~is_plain])


def test_the_active_adapter_is_the_trainers_affair_and_changes_no_row():
    model = attach(build(NETWORKS["qwen"]), *NAMES)
    runner = serving(TorchRunner(model), model)
    whole = batch((1, 0, 70), (2, 0, 3))
    wanted = allocated(TorchRunner(merged(model, None))).forward(whole)
    assert gap(runner.forward(whole), wanted) < 1e-12


def test_a_cache_of_bytes_serves_adapters_too():
    model = attach(build(NETWORKS["qwen"], dtype=torch.float32), *NAMES)
    whole = adapted(batch(*WHOLE), MIXED)
    found = serving(NativeRunner(model, cache_dtype=CacheDtype.INT8), model).forward(whole)
    wanted = serving(TorchRunner(model, cache_dtype=CacheDtype.INT8), model).forward(whole)
    assert (found - wanted).abs().mean() < 0.05
