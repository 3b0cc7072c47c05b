"""Steps of fixed shape, here with steps that are their own recordings: the plain runner's numbers, nobody's
blocks touched, and the same bits whoever keeps company."""

import copy
import dataclasses

import pytest
import torch
from engine_models import CONFIGS, DEEPSEEK, QWEN, build_long
from runner_batches import LENGTHS, NUM_BLOCKS, STARTS, allocated, answers, assert_same_bits, batch

from tenth.base.errors import RunError
from tenth.engine.build import build_runner
from tenth.engine.padded_runner import PaddedRunner
from tenth.engine.settings import CacheDtype, EngineSettings, Speculation
from tenth.engine.torch_runner import TorchRunner

NETWORKS = {name: build_long(config) for name, config in CONFIGS.items()}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


class Recorder:
    """Says how often it was asked to record, and how often recordings were repeated."""

    def __init__(self):
        self.recorded = self.repeated = 0

    def __call__(self, step):
        self.recorded += 1

        def repeat():
            self.repeated += 1
            step()

        return repeat


def assert_near(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@every_network
@pytest.mark.parametrize("cache_dtype", list(CacheDtype))
def test_padded_steps_compute_what_the_plain_runner_computes(network, cache_dtype):
    plain = allocated(TorchRunner(network, cache_dtype=cache_dtype))
    padded = allocated(PaddedRunner(network, cache_dtype=cache_dtype, max_rows=4))
    for pieces in (
        [(i, 0, length - 3) for i, length in enumerate(LENGTHS) if length > 3],  # as they come
        [(0, 197, 198), (1, 67, 68), (2, 0, 1), (3, 126, 127)],
        [(0, 198, 200), (2, 1, 3), (3, 127, 128)],  # guesses to check; cut
        [(1, 68, 69)],
    ):
        assert_near(padded.forward(batch(*pieces)), plain.forward(batch(*pieces)))


def test_padded_drafts_are_those_of_the_plain_runner():
    network = NETWORKS["deepseek"]
    runners = [allocated(each) for each in (TorchRunner(network), PaddedRunner(network, max_rows=4))]
    drafts = []
    for runner in runners:
        runner.forward(batch((0, 0, 20), (1, 0, 30)))
        first = runner.draft(batch((0, 1, 21), (1, 1, 31), firsts=[1, 1]), torch.arange(50))
        runner.forward(batch((0, 20, 21), (1, 30, 32)))
        second = runner.draft(batch((0, 21, 22), (1, 31, 33), firsts=[1, 8]), torch.tensor([0, 1, 2]))
        drafts.append((first, second))
    for found, wanted in zip(drafts[1], drafts[0], strict=True):
        assert_near(found, wanted)


def test_only_the_rows_that_were_asked_for_come_back():
    runner, plain = (allocated(c(NETWORKS["qwen"])) for c in (PaddedRunner, TorchRunner))
    asked = dataclasses.replace(batch((0, 0, 1), (2, 0, 3)), outputs=torch.tensor([3, 0]))
    found = runner.forward(asked)
    assert found.shape == (2, QWEN.vocab_size)
    assert_near(found, plain.forward(asked))


def test_padding_writes_to_no_block_of_a_sequence():
    runner = allocated(PaddedRunner(NETWORKS["qwen"], max_rows=8))
    with torch.inference_mode():
        runner.cache.entries.zero_()
    runner.forward(batch((0, 0, 1), (1, 69, 70), (3, 0, 1)))  # five of eight rows are nobody's
    used = (runner.cache.entries != 0).flatten(2).any(-1).any(0).nonzero().flatten().tolist()
    assert used == [3, 6, 15, NUM_BLOCKS]  # each sequence's own block, and the scratch block


def test_what_others_left_in_a_block_is_not_seen_even_if_it_is_no_number():
    runner = allocated(PaddedRunner(NETWORKS["deepseek"], max_rows=8))
    with torch.inference_mode():
        runner.cache.entries.fill_(torch.nan)
    assert bool(runner.forward(batch((0, 0, 1), (2, 0, 3))).isfinite().all())


def test_a_step_is_recorded_once_for_its_shape():
    recorder = Recorder()
    runner = allocated(PaddedRunner(NETWORKS["qwen"], max_rows=8, build_capture=lambda: recorder))
    for count in (3, 4, 1, 3, 4, 1):
        runner.forward(batch(*[(i, 0, 1) for i in range(count)]))
    assert (recorder.recorded, recorder.repeated) == (2, 6)  # four rows serve three
    runner.forward(batch((0, 64, 65)))
    assert (recorder.recorded, recorder.repeated) == (3, 7)  # two blocks
    runner.forward(batch((0, 0, 65)))
    assert (recorder.recorded, recorder.repeated) == (3, 7)  # a prompt


def test_recordings_outlive_weights_written_in_place_and_nothing_else():
    network = copy.deepcopy(NETWORKS["qwen"])
    recorder = Recorder()
    runner = allocated(PaddedRunner(network, build_capture=lambda: recorder))
    old = runner.forward(batch((0, 0, 1)))
    with torch.no_grad():
        network.layers[0].attention.o.weight.mul_(-1)
    runner.refresh()
    new = runner.forward(batch((0, 0, 1)))
    assert recorder.recorded == 1
    assert not torch.allclose(new, old)
    assert_near(new, allocated(TorchRunner(network)).forward(batch((0, 0, 1))))
    network.norm.weight.data = network.norm.weight.data.clone()
    runner.refresh()
    runner.forward(batch((0, 0, 1)))
    assert recorder.recorded == 2
    runner.free()
    assert not runner.recordings
    with pytest.raises(RunError, match="wake"):
        runner.forward(batch((0, 0, 1)))
    allocated(runner).forward(batch((0, 0, 1)))
    assert recorder.recorded == 3


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_one_row_at_a_time_gives_the_same_bits_alone_together_and_in_chunks(config, dtype):
    network = build_long(config, dtype=dtype)
    assert_same_bits(lambda: PaddedRunner(network, fixed_rows=1))


def test_an_eight_bit_cache_changes_nothing_about_that():
    network = build_long(DEEPSEEK, dtype=torch.float32)
    assert_same_bits(lambda: PaddedRunner(network, fixed_rows=1, cache_dtype=CacheDtype.INT8))


def test_fixed_rows_compute_what_the_plain_runner_computes():
    for network in NETWORKS.values():
        wanted = allocated(TorchRunner(network)).forward(batch(*STARTS))
        for fixed_rows in (1, 16):
            found = allocated(PaddedRunner(network, fixed_rows=fixed_rows)).forward(batch(*STARTS))
            assert_near(found, wanted)


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
def test_an_engine_of_one_row_at_a_time_gives_the_same_answers_to_the_last_bit(config):
    network = build_long(config, dtype=torch.float32)
    wanted = answers(
        network, PaddedRunner(network, fixed_rows=1), EngineSettings(max_sequences=1, prefix_caching=False)
    )
    for settings in (
        EngineSettings(),
        EngineSettings(max_sequences=3, max_batch_tokens=9),
        EngineSettings(speculation=Speculation.PROMPT_LOOKUP, draft_tokens=3),
        EngineSettings(cache_bytes=4 * PaddedRunner(network).block_bytes),  # they take turns
    ):
        assert answers(network, PaddedRunner(network, fixed_rows=1), settings) == wanted


def test_blocks_computed_with_fixed_rows_are_not_taken_for_others():
    network = NETWORKS["qwen"]
    assert PaddedRunner(network, fixed_rows=1).layout != PaddedRunner(network).layout


def test_a_deterministic_engine_gets_such_a_runner_where_the_native_pass_does_not_run():
    network = NETWORKS["qwen"]  # float64
    runner = build_runner(network, EngineSettings(deterministic=True))
    assert isinstance(runner, PaddedRunner)
    assert runner.fixed_rows == 1
    assert not isinstance(build_runner(network, EngineSettings()), PaddedRunner)
