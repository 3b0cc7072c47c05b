"""Decode steps as CUDA graphs. What needs a GPU is marked so; that a step can be recorded at all is shown on
torch's meta device, whose tensors have shapes but no numbers."""

import pytest
import torch
from engine_models import CONFIGS, DEEPSEEK, QWEN, build_long
from runner_batches import allocated, answers, assert_same_bits, batch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tenth.engine.build import build_runner
from tenth.engine.cuda_runner import CudaRunner
from tenth.engine.padded_runner import PaddedRunner, repeat_plainly
from tenth.engine.padding import Shape
from tenth.engine.settings import CacheDtype, EngineSettings, Speculation
from tenth.engine.torch_runner import TorchRunner
from tenth.model.quantize import quantize_model


class SameDevice(TorchDispatchMode):
    """Refuses operations that move anything between the devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, found)) if isinstance(each, torch.Tensor)]
        assert {each.device.type for each in tensors} <= {"meta"}, func
        return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("cache_dtype", list(CacheDtype))
@pytest.mark.parametrize("shape", [Shape(1, 1), Shape(8, 4)])
def test_a_recorded_step_asks_the_device_for_no_number_and_moves_none(config, cache_dtype, shape):
    network = build_long(config, dtype=torch.float32).to_compute_dtype(torch.bfloat16)
    record_without_numbers(network, cache_dtype, shape)


@pytest.mark.parametrize("bits", [8, 4])
def test_neither_does_a_step_over_quantised_weights(bits):
    network = quantize_model(build_long(DEEPSEEK, dtype=torch.float32), bits).to_compute_dtype(torch.bfloat16)
    record_without_numbers(network, CacheDtype.AUTO, Shape(8, 4))


@torch.inference_mode()
def record_without_numbers(network, cache_dtype, shape):
    """Tensors without numbers refuse to answer, and shapes that depend on numbers cannot be made of them."""
    runner = allocated(PaddedRunner(network.to("meta"), cache_dtype=cache_dtype, max_rows=8))
    with SameDevice():
        for is_draft in {False, network.config.num_nextn_predict_layers > 0}:
            runner.compute(shape, is_draft=is_draft)


# on a GPU

gpu = pytest.mark.gpu
CUDA_NETWORKS = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def on_gpu(config, dtype=torch.bfloat16):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return build_long(config, dtype=torch.float32).to_compute_dtype(dtype).to("cuda")


@gpu
@CUDA_NETWORKS
@pytest.mark.parametrize("cache_dtype", list(CacheDtype))
def test_graphs_compute_what_the_plain_runner_computes(config, cache_dtype):
    network = on_gpu(config, torch.float32)
    plain = allocated(TorchRunner(network, cache_dtype=cache_dtype))
    graphs = allocated(CudaRunner(network, cache_dtype=cache_dtype))
    for pieces in (
        [(0, 0, 100), (1, 0, 67), (3, 0, 126)],
        [(0, 100, 101), (1, 67, 68), (2, 0, 1), (3, 126, 127)],
        [(0, 101, 102), (1, 68, 69), (2, 1, 2), (3, 127, 128)],  # a repetition
        [(0, 102, 104), (2, 2, 3), (3, 128, 129)],
    ):
        found, wanted = graphs.forward(batch(*pieces)), plain.forward(batch(*pieces))
        # in eight bits a rounding may fall to the other side
        torch.testing.assert_close(
            found, wanted, rtol=0, atol=1e-3 if cache_dtype is CacheDtype.AUTO else 0.1
        )
    assert graphs.recordings


@gpu
@CUDA_NETWORKS
def test_a_graph_repeated_equals_its_steps_done_plainly_to_the_last_bit(config):
    network = on_gpu(config)
    graphs, plain = (
        allocated(PaddedRunner(network, max_rows=4, build_capture=capture))
        for capture in (CudaRunner(network).build_capture, lambda: repeat_plainly)
    )
    for position in range(3):
        step = batch(*[(i, position, position + 1) for i in range(4)])
        assert torch.equal(graphs.forward(step), plain.forward(step))


@gpu
def test_graphs_use_new_weights():
    network = on_gpu(QWEN, torch.float32)
    runner = allocated(CudaRunner(network))
    old = runner.forward(batch((0, 0, 1)))
    with torch.no_grad():
        network.layers[0].attention.o.weight.mul_(-1)
    runner.refresh()
    assert len(runner.recordings) == 1
    new = runner.forward(batch((0, 0, 1)))
    assert not torch.allclose(new, old)
    wanted = allocated(TorchRunner(network)).forward(batch((0, 0, 1)))
    torch.testing.assert_close(new, wanted, rtol=0, atol=1e-3)


@gpu
def test_a_runner_that_sleeps_has_given_its_memory_back():
    runner = CudaRunner(on_gpu(QWEN))
    left = []
    for _ in range(3):
        allocated(runner).forward(batch((0, 0, 1), (1, 0, 1)))
        runner.free()
        left.append(torch.cuda.memory_allocated())
    assert left[1] == left[2]  # after the first, libraries have what they keep


@gpu
@CUDA_NETWORKS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_deterministic_steps_on_a_gpu_give_the_same_bits_alone_together_and_in_chunks(config, dtype):
    network = on_gpu(config, dtype)
    assert_same_bits(lambda: CudaRunner(network, deterministic=True))


@gpu
def test_a_deterministic_engine_on_a_gpu_gives_the_same_answers_to_the_last_bit():
    network = on_gpu(DEEPSEEK)
    alone = answers(
        network,
        CudaRunner(network, deterministic=True),
        EngineSettings(max_sequences=1, prefix_caching=False),
    )
    for settings in (EngineSettings(), EngineSettings(speculation=Speculation.MTP)):
        assert answers(network, CudaRunner(network, deterministic=True), settings) == alone


@gpu
def test_a_model_on_a_gpu_gets_graphs():
    assert isinstance(build_runner(on_gpu(QWEN), EngineSettings()), CudaRunner)
