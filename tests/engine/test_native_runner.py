"""The C++ forward pass against its twin in float64, and against itself however the batch is cut."""

import dataclasses

import pytest
import torch
from engine_models import CONFIGS, DEEPSEEK, QWEN, build
from torch import Tensor

from tenth.engine.block_pool import BLOCK
from tenth.engine.native_network import cell_dtype
from tenth.engine.native_runner import NativeRunner
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.engine.torch_runner import TorchRunner
from tenth.model.config import ModelConfig
from tenth.model.quantize import quantize_model

LONG = 200  # positions: several blocks
LENGTHS = (1, 70, 3, 129)  # of the sequences of a batch
NETWORKS = {
    name: dataclasses.replace(config, max_position_embeddings=LONG) for name, config in CONFIGS.items()
}
NETWORKS["wide heads"] = dataclasses.replace(
    NETWORKS["qwen"],
    num_attention_heads=6,
    gqa=dataclasses.replace(QWEN.gqa, num_key_value_heads=1, head_dim=80),
)

pytestmark = pytest.mark.skipif(
    cell_dtype(build(QWEN, dtype=torch.float32)) is None, reason="no compiler for the C++ kernels"
)


def tokens(count: int, *, seed: int) -> list[int]:
    return torch.randint(0, QWEN.vocab_size, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


PROMPTS = [tokens(length, seed=length) for length in LENGTHS]


def batch(pieces: list[tuple[int, int, int]]) -> Batch:
    """Tokens start to end - 1 of each (prompt, start, end); prompt i has its own blocks, in falling order."""
    ids, positions, starts, tables = [], [], [0], []
    per_prompt = (LONG + BLOCK - 1) // BLOCK
    for prompt, start, end in pieces:
        ids += PROMPTS[prompt][start:end]
        positions += range(start, end)
        starts.append(len(ids))
        tables.append([prompt * per_prompt + per_prompt - 1 - i for i in range(per_prompt)])
    return Batch(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        starts=torch.tensor(starts, dtype=torch.int32),
        tables=torch.tensor(tables, dtype=torch.int32),
        outputs=torch.arange(len(ids)),
    )


WHOLE = [(i, 0, length) for i, length in enumerate(LENGTHS)]


def native(config: ModelConfig, dtype: torch.dtype, cache: CacheDtype = CacheDtype.AUTO) -> NativeRunner:
    runner = NativeRunner(build(config, dtype=dtype), cache_dtype=cache)
    runner.allocate(16)
    return runner


def reference(config: ModelConfig) -> TorchRunner:
    runner = TorchRunner(build(config, dtype=torch.float64))
    runner.allocate(16)
    return runner


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of log-probabilities."""
    return (found.double().log_softmax(-1) - wanted.double().log_softmax(-1)).abs().max().item()


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_logits_equal_those_of_the_network_in_float64(config):
    whole = batch(WHOLE)
    assert gap(native(config, torch.float32).forward(whole), reference(config).forward(whole)) < 3e-5


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_bfloat16_stays_near_the_same_weights_in_float64(config):
    whole = batch(WHOLE)
    rounded = TorchRunner(build(config, dtype=torch.bfloat16).double())
    rounded.allocate(16)
    found, wanted = native(config, torch.bfloat16).forward(whole), rounded.forward(whole)
    # The network's own bfloat16 pass through torch is the measure: rounding may not cost more than there.
    own = TorchRunner(build(config, dtype=torch.bfloat16))
    own.allocate(16)
    difference = (found.double() - wanted).abs().mean().item()
    assert difference <= 1.2 * (own.forward(whole).double() - wanted).abs().mean().item()


CUTS = {
    "one by one": [[(i, 0, n)] for i, n in enumerate(LENGTHS)],
    "in chunks": [
        [(0, 0, 1), (1, 0, 33), (3, 0, 64)],
        [(1, 33, 65), (3, 64, 65), (2, 0, 2)],
        [(3, 65, 129), (2, 2, 3), (1, 65, 70)],
    ],
    "token by token": [[(i, t, t + 1) for i, n in enumerate(LENGTHS) if t < n] for t in range(max(LENGTHS))],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("cache", CacheDtype)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "config",
    [NETWORKS[name] for name in ("deepseek", "qwen", "deepseek v2", "qwen3, experts", "llama, biases")],
    ids=lambda c: c.name,
)
def test_a_token_has_the_same_bits_however_the_batch_is_cut(config, dtype, cache, cut):
    whole = native(config, dtype, cache).forward(batch(WHOLE))
    runner, found = native(config, dtype, cache), {}
    for pieces in cut:
        logits = runner.forward(batch(pieces)).split([end - start for _, start, end in pieces])
        for (prompt, start, _), part in zip(pieces, logits, strict=True):
            found |= {(prompt, start + i): row for i, row in enumerate(part)}
    places = [(prompt, i) for prompt, _, end in WHOLE for i in range(end)]
    assert torch.equal(torch.stack([found[place] for place in places]), whole)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_quantised_weights_count_as_what_they_stand_for(config, bits):
    model = quantize_model(build(config, dtype=torch.float32), bits)
    runner = NativeRunner(model)
    twin = TorchRunner(model.double())
    for each in (runner, twin):
        each.allocate(16)
    whole = batch(WHOLE)
    found, wanted = runner.forward(whole).double().softmax(-1), twin.forward(whole).softmax(-1)
    assert (found - wanted).abs().mean() < 1e-5  # activations have 16 bits


@pytest.mark.parametrize("config", [NETWORKS["deepseek"], NETWORKS["qwen"]], ids=lambda c: c.name)
def test_a_cache_of_bytes_is_as_near_as_the_twins(config):
    whole = batch(WHOLE)
    exact = reference(config).forward(whole)
    twin = TorchRunner(build(config, dtype=torch.float32), cache_dtype=CacheDtype.INT8)
    twin.allocate(16)
    found = native(config, torch.float32, CacheDtype.INT8).forward(whole)
    assert (
        0 < (found.double() - exact).abs().mean() <= 1.3 * (twin.forward(whole).double() - exact).abs().mean()
    )


GUESSING = {
    "latent": NETWORKS["deepseek"],
    "grouped": dataclasses.replace(NETWORKS["qwen"], num_nextn_predict_layers=1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", GUESSING.values(), ids=GUESSING)
def test_drafts_equal_those_of_the_module_in_float64(config, dtype):
    runner, whole = native(config, dtype), batch(WHOLE)
    twin = TorchRunner(build(config, dtype=dtype).double())
    twin.allocate(16)
    runner.entries.fill_(255)  # NaN in either type: what nobody has written must not be read
    found, wanted = [], []
    for each, into in ((runner, found), (twin, wanted)):
        each.forward(whole)
        rows = [r for r, position in enumerate(whole.positions.tolist()) if position > 0]
        later = batch([(1, 1, 70), (2, 1, 3), (3, 1, 129)])
        drafting = dataclasses.replace(later, firsts=torch.ones(3, dtype=torch.int64))
        into.append(each.draft(drafting, torch.tensor(rows) - 1))
    if dtype == torch.float32:
        assert gap(found[0], wanted[0]) < 1e-4
    else:  # rounding turns some near-ties of the router
        assert (found[0].double() - wanted[0]).abs().median() < 0.05


def test_copied_and_restored_blocks_serve_like_the_originals():
    config = NETWORKS["qwen"]
    runner, first = native(config, torch.float32), batch([(3, 0, 128)])
    wanted = native(config, torch.float32).forward(batch([(3, 0, 129)]))[-1]
    runner.forward(first)
    blocks = first.tables[0].tolist()
    runner.copy_blocks([(blocks[0], 15)])
    runner.write_block(14, runner.read_block(blocks[1]))
    last = batch([(3, 128, 129)])
    moved = dataclasses.replace(last, tables=torch.tensor([[15, 14, 13, 12]], dtype=torch.int32))
    assert torch.equal(runner.forward(moved)[-1], wanted)


def test_new_weights_are_used_after_a_refresh():
    model, other = (build(DEEPSEEK, dtype=torch.float32, seed=seed) for seed in (0, 1))
    runner = NativeRunner(model)
    runner.allocate(16)
    piece = batch([(1, 0, 70)])
    before = runner.forward(piece)
    model.load_state_dict(other.state_dict())
    assert torch.equal(runner.forward(piece), before)
    runner.refresh()
    fresh = NativeRunner(other)
    fresh.allocate(16)
    assert torch.equal(runner.forward(piece), fresh.forward(piece))


def test_what_is_not_a_number_stays_in_its_own_sequence():
    model = build(NETWORKS["deepseek"], dtype=torch.float32)
    pieces, (poisoned,) = batch([(0, 0, 1), (2, 0, 3)]), PROMPTS[0]
    assert poisoned not in PROMPTS[2]
    wanted = native(NETWORKS["deepseek"], torch.float32).forward(pieces)
    model.embed.weight.data[poisoned] = torch.nan
    runner = NativeRunner(model)
    runner.allocate(16)
    found = runner.forward(pieces)
    assert found[0].isnan().all()
    assert torch.equal(found[1:], wanted[1:])
