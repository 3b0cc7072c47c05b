"""The plain runner: logits of the whole pass however tokens are cut, drafts of the training pass."""

import itertools

import pytest
import torch
from engine_models import CONFIGS, DEEPSEEK, QWEN, VOCABULARY, build_long

from tenth.engine.runner import Batch
from tenth.engine.torch_runner import TorchRunner

LENGTH = 150
NETWORKS = {name: build_long(config) for name, config in CONFIGS.items()}


def random_ids(*shape, seed=0):
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def batch_of(ids, parts, *, tables, outputs=None, firsts=None):
    """`parts`: (sequence, first position, last position + 1)."""
    tokens = [ids[s, start:end] for s, start, end in parts]
    counts = [0, *(end - start for _, start, end in parts)]
    return Batch(
        ids=torch.cat(tokens),
        positions=torch.cat([torch.arange(start, end) for _, start, end in parts]),
        starts=torch.tensor(list(itertools.accumulate(counts)), dtype=torch.int32),
        tables=torch.tensor([tables[s] for s, _, _ in parts], dtype=torch.int32),
        outputs=torch.arange(sum(counts)) if outputs is None else outputs,
        firsts=firsts,
    )


TABLES = [[3, 1, 4], [0, 5, 2]]
STEPS = [  # two sequences: chunks, single tokens and both at once, across the borders of blocks
    [(0, 0, 60), (1, 0, 3)],
    [(1, 3, 4), (0, 60, 70)],
    [(0, 70, 71), (1, 4, 5)],
    [(1, 5, 140)],
    [(0, 71, 149), (1, 140, 142)],
    [(1, 142, 150), (0, 149, 150)],
]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_logits_are_those_of_the_whole_pass_however_tokens_come(network):
    ids = random_ids(2, LENGTH)
    runner = TorchRunner(network)
    runner.allocate(6)
    with torch.no_grad():
        wanted = network.logits(network(ids))
    for parts in STEPS:
        logits = runner.forward(batch_of(ids, parts, tables=TABLES))
        expected = torch.cat([wanted[s, start:end] for s, start, end in parts])
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)


def test_only_logits_that_are_wanted_are_made():
    runner = TorchRunner(NETWORKS["qwen"])
    runner.allocate(6)
    ids = random_ids(2, LENGTH)
    whole = runner.forward(batch_of(ids, STEPS[0], tables=TABLES))
    some = runner.forward(batch_of(ids, STEPS[0], tables=TABLES, outputs=torch.tensor([59, 62])))
    torch.testing.assert_close(some, whole[[59, 62]], rtol=0, atol=1e-12)


def test_drafts_are_those_of_the_training_pass():
    network = NETWORKS["deepseek"]
    ids = random_ids(2, LENGTH + 1)
    with torch.no_grad():
        hidden = network.forward_training(ids, depth=1).mtp_hidden[0]
        wanted = network.logits(hidden)  # [s, t] saw tokens 0 to t + 1 and predicts the one after
    runner = TorchRunner(network)
    runner.allocate(6)
    for parts in STEPS:
        batch = batch_of(ids, parts, tables=TABLES)
        runner.forward(batch)
        after = [(s, start + 1, end + 1) for s, start, end in parts]  # the token after each computed one
        drafted = runner.draft(
            batch_of(ids, after, tables=TABLES, firsts=torch.ones(len(parts), dtype=torch.int64)),
            torch.arange(len(batch.ids)),
        )
        expected = torch.cat([wanted[s, start:end] for s, start, end in parts])
        # one position further: the same but for the angles, which are tabled in float32
        torch.testing.assert_close(drafted, expected, rtol=0, atol=1e-6)


def test_a_draft_behind_a_gap_sees_nothing_before_it():
    network = NETWORKS["deepseek"]
    ids = random_ids(1, LENGTH)
    drafted = []
    for rubbish in (0.0, float("nan")):
        runner = TorchRunner(network)
        runner.allocate(6)
        with torch.inference_mode():
            runner.cache.entries.fill_(rubbish)
        runner.forward(batch_of(ids, [(0, 0, 100)], tables=TABLES))
        batch = batch_of(ids, [(0, 91, 101)], tables=TABLES, firsts=torch.tensor([91]))
        drafted.append(runner.draft(batch, torch.arange(90, 100)))
    assert torch.equal(*drafted)


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
def test_a_block_read_and_written_elsewhere_serves_as_well(config):
    network = NETWORKS[config.name]
    ids = random_ids(1, LENGTH)
    runner = TorchRunner(network)
    runner.allocate(6)
    runner.forward(batch_of(ids, [(0, 0, 128)], tables=TABLES))
    wanted = runner.forward(batch_of(ids, [(0, 128, 150)], tables=TABLES))
    saved = [runner.read_block(block) for block in TABLES[0][:2]]
    runner.free()
    runner.allocate(6)
    for block, data in zip((5, 0), saved, strict=True):
        runner.write_block(block, data)
    found = runner.forward(batch_of(ids, [(0, 128, 150)], tables=[[5, 0, 2]]))
    assert torch.equal(found, wanted)
