"""A request gets the same tokens whatever the engine does to be fast."""

import statistics

import pytest
import torch
from engine_models import DEEPSEEK, QWEN, WatchedRunner, build_long, random_prompts

from tenth.engine.engine import Engine
from tenth.engine.request import Request, SamplingParams
from tenth.engine.settings import CacheDtype, EngineSettings, Speculation
from tenth.engine.torch_runner import TorchRunner

SHARED = random_prompts(130, seed=7)[0]  # two blocks and a bit
PROMPTS = [SHARED + each for each in random_prompts(3, 40)] + random_prompts(64, 65, 5, 127)
PARAMS = SamplingParams(max_new_tokens=24, n=2, temperature=0.8, top_p=0.95, stop_ids=(0,), seed=4)

both_types = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
both_networks = pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
NETWORKS = {
    (config.name, dtype): build_long(config, dtype=dtype)
    for config in (DEEPSEEK, QWEN)
    for dtype in (torch.float64, torch.float32)
}


def engine_of(config, dtype, **settings):
    network = NETWORKS[config.name, dtype]
    runner = WatchedRunner(network)
    blocks = settings.pop("blocks", None)
    if blocks:
        settings["cache_bytes"] = blocks * runner.block_bytes
    return Engine(network, EngineSettings(**settings), runner=runner)


def tokens(groups):
    return [[(answer.ids, answer.finish) for answer in group] for group in groups]


def alone(config, dtype):
    """The plainest way: one request at a time, nothing shared, nothing guessed, whole prompts."""
    found = []
    for prompt in PROMPTS:
        engine = engine_of(config, dtype, prefix_caching=False, max_sequences=1)
        found += engine.generate([prompt], PARAMS)
    return tokens(found)


@pytest.fixture(scope="module")
def wanted():
    return {
        (config.name, dtype): alone(config, dtype)
        for config in (DEEPSEEK, QWEN)
        for dtype in (torch.float64, torch.float32)
    }


@both_types
@both_networks
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prefix_caching": False},
        {"max_batch_tokens": 7, "max_sequences": 5},
        {"max_batch_tokens": 64, "max_sequences": 3},
        {"blocks": 8},
        {"blocks": 8, "max_batch_tokens": 16, "max_sequences": 16},
        {"speculation": Speculation.PROMPT_LOOKUP, "draft_tokens": 4},
        {"speculation": Speculation.PROMPT_LOOKUP, "draft_tokens": 2, "blocks": 6, "max_batch_tokens": 300},
    ],
    ids=["batched", "no prefix cache", "chunks of 7", "3 at a time", "preempted", "preempted chunks",
         "lookup", "lookup, preempted"],
)  # fmt: skip
def test_the_tokens_are_those_of_a_request_alone(config, dtype, settings, wanted):
    engine = engine_of(config, dtype, **settings)
    assert tokens(engine.generate(PROMPTS, PARAMS)) == wanted[config.name, dtype]
    stats = engine.stats()
    assert stats.free_blocks == stats.total_blocks
    assert ("blocks" not in settings) == (stats.preemptions == 0)
    assert (stats.drafted_tokens > 0) == ("speculation" in settings)


@both_types
@pytest.mark.parametrize(
    "settings",
    [{}, {"max_batch_tokens": 9, "max_sequences": 4}, {"blocks": 8}],
    ids=["batched", "chunks of 9", "preempted"],
)
def test_guesses_of_the_mtp_module_change_no_token(dtype, settings, wanted):
    engine = engine_of(DEEPSEEK, dtype, speculation=Speculation.MTP, **settings)
    for _ in range(2):  # the second time prompts come from the prefix cache
        assert tokens(engine.generate(PROMPTS, PARAMS)) == wanted["deepseek", dtype]
    assert engine.stats().accepted_tokens > 0
    assert engine.stats().free_blocks == engine.num_blocks


@pytest.mark.parametrize("speculation", list(Speculation))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_change_no_token_of_a_demanding_request(speculation, temperature):
    params = SamplingParams(
        max_new_tokens=40,
        temperature=temperature,
        repetition_penalty=1.1,
        frequency_penalty=0.3,
        top_logprobs=2,
    )
    prompts = PROMPTS[1:4]
    found = engine_of(DEEPSEEK, torch.float64, speculation=speculation).generate(prompts, params)
    plain = engine_of(DEEPSEEK, torch.float64).generate(prompts, params)
    assert tokens(found) == tokens(plain)
    for a, b in zip(found, plain, strict=True):
        assert [[token for token, _ in top] for top in a[0].top_logprobs] == [
            [token for token, _ in top] for top in b[0].top_logprobs
        ]


@both_networks
def test_a_prefix_that_was_read_before_is_not_read_again(config):
    engine = engine_of(config, torch.float64)
    params = SamplingParams(max_new_tokens=1)
    engine.generate(PROMPTS[:1], params)
    read = engine.runner.num_tokens
    ((answer,),) = engine.generate([[*SHARED, 1, 2, 3]], params)
    assert answer.cached_tokens == 128  # the two full blocks of SHARED
    assert engine.runner.num_tokens == read + 130 + 3 - 128


def test_samples_read_their_prompt_once():
    engine = engine_of(QWEN, torch.float64, prefix_caching=False)
    engine.generate([SHARED], SamplingParams(max_new_tokens=5, n=10))
    assert engine.runner.num_tokens == 130 + 10 * 4  # every sample's last token is never computed


def test_an_answer_can_be_read_on_from_the_cache():
    # a conversation: the next prompt is the last prompt, its answer and something new
    engine = engine_of(QWEN, torch.float64)
    ((first,),) = engine.generate([SHARED], SamplingParams(max_new_tokens=70))
    ((second,),) = engine.generate([[*SHARED, *first.ids, 1]], SamplingParams(max_new_tokens=1))
    assert second.cached_tokens == 192  # three blocks of 200 tokens


@pytest.mark.parametrize("speculation", list(Speculation))
def test_new_weights_reach_requests_that_run(speculation):
    # the first tokens by the old weights, the rest by the new ones over a cache computed anew
    network = build_long(DEEPSEEK)
    engine = Engine(network, EngineSettings(speculation=speculation), runner=WatchedRunner(network))
    params = SamplingParams(max_new_tokens=12, temperature=0.0)
    engine.add(Request(request_id="a", prompt_ids=tuple(SHARED), params=params))
    before = []
    while len(before) < 4:
        before += [token for update in engine.step() for token in update.ids]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    assert engine.refresh_weights() == 1
    after = [token for _ in range(12) for update in engine.step() for token in update.ids]
    assert len(before) + len(after) == 12
    sequence = [*SHARED, *before]
    for token in after:
        with torch.no_grad():
            assert token == int(network.logits(network(torch.tensor([sequence])))[0, -1].argmax())
        sequence.append(token)
    ((again,),) = engine.generate([SHARED], SamplingParams(max_new_tokens=1))
    assert (again.cached_tokens, again.weights_version) == (128, 1)  # blocks written since


def test_old_entries_are_not_found_under_new_weights():
    engine = engine_of(QWEN, torch.float64)
    engine.generate([SHARED], SamplingParams(max_new_tokens=1))
    engine.refresh_weights()
    ((answer,),) = engine.generate([SHARED], SamplingParams(max_new_tokens=1))
    assert answer.cached_tokens == 0


@both_networks
def test_a_cache_of_eight_bits_stays_near_the_exact_one(config):
    params = SamplingParams(max_new_tokens=1, top_logprobs=5)
    exact = engine_of(config, torch.float64).generate(PROMPTS, params)
    network = NETWORKS[config.name, torch.float64]
    runner = TorchRunner(network, cache_dtype=CacheDtype.INT8)
    narrow = Engine(network, runner=runner).generate(PROMPTS, params)
    differences = [
        abs(logprob - dict(b.top_logprobs[0])[token])
        for (a,), (b,) in zip(exact, narrow, strict=True)
        for token, logprob in a.top_logprobs[0]
        if token in dict(b.top_logprobs[0])
    ]
    assert len(differences) > 20
    assert 0 < statistics.median(differences) < 0.05
