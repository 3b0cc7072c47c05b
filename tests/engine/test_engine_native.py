"""Over the native runner not only the tokens are the same however they are computed: their bits are."""

import pytest
import torch
from engine_models import DEEPSEEK, QWEN, build_long, random_prompts

from tenth.engine.engine import Engine
from tenth.engine.native_network import cell_dtype
from tenth.engine.native_runner import NativeRunner
from tenth.engine.request import SamplingParams
from tenth.engine.settings import CacheDtype, EngineSettings, Speculation
from tenth.native.build import library

pytestmark = pytest.mark.skipif(library() is None, reason="no kernels")

SHARED = random_prompts(130, seed=7)[0]
PROMPTS = [SHARED + each for each in random_prompts(3, 40)] + random_prompts(64, 65, 5, 127)
PARAMS = SamplingParams(max_new_tokens=30, n=2, temperature=0.8, top_p=0.95, stop_ids=(0,), seed=4)
NETWORKS = {
    (config.name, dtype): build_long(config, dtype=torch.float32).to_compute_dtype(dtype)
    for config in (DEEPSEEK, QWEN)
    for dtype in (torch.float32, torch.bfloat16)
}
CASES = {
    "batched": {},
    "no prefix cache": {"prefix_caching": False},
    "chunks of 7": {"max_batch_tokens": 7, "max_sequences": 5},
    "preempted": {"blocks": 8},
    "lookup": {"speculation": Speculation.PROMPT_LOOKUP, "draft_tokens": 4},
    "the module guesses": {"speculation": Speculation.MTP},
    "the module guesses, preempted": {"speculation": Speculation.MTP, "blocks": 8, "max_batch_tokens": 20,
                                      "max_sequences": 20},
}  # fmt: skip


def generate(network, cache_dtype, prompts, **settings):
    assert cell_dtype(network) is not None
    runner = NativeRunner(network, cache_dtype=cache_dtype)
    blocks = settings.pop("blocks", None)
    if blocks:
        settings["cache_bytes"] = blocks * runner.block_bytes
    engine = Engine(network, EngineSettings(**{"max_sequences": 20, **settings}), runner=runner)
    groups = engine.generate(prompts, PARAMS)
    assert engine.stats().free_blocks == engine.num_blocks
    return [[(answer.ids, answer.logprobs, answer.finish) for answer in group] for group in groups]


@pytest.fixture(scope="module")
def alone():
    """One prompt at a time, whole, nothing kept."""
    return {
        (key, cache_dtype): [
            group
            for prompt in PROMPTS
            for group in generate(network, cache_dtype, [prompt], prefix_caching=False, max_sequences=1)
        ]
        for key, network in NETWORKS.items()
        for cache_dtype in CacheDtype
    }


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cache_dtype", list(CacheDtype))
@pytest.mark.parametrize("key", NETWORKS, ids=lambda key: f"{key[0]}-{key[1]}")
def test_tokens_and_log_probabilities_have_the_bits_of_a_request_alone(key, cache_dtype, settings, alone):
    if settings.get("speculation") is Speculation.MTP and key[0] == "qwen":
        pytest.skip("has no module that guesses")
    assert generate(NETWORKS[key], cache_dtype, PROMPTS, **settings) == alone[key, cache_dtype]
