"""One engine, many adapters: every request gets what it would get alone, from its own adapter, and nothing
from another's cache."""

import dataclasses

import pytest
import torch
from adapted_models import attach, merged, shake
from engine_models import CONFIGS, DEEPSEEK, QWEN, build, build_long, random_prompts

from tenth.base.errors import ConfigError
from tenth.base.records import Finish
from tenth.engine.engine import Engine
from tenth.engine.native_network import cell_dtype
from tenth.engine.padded_runner import PaddedRunner
from tenth.engine.request import Request, SamplingParams
from tenth.engine.settings import EngineSettings, Speculation
from tenth.model.lora import LoraConfig, attach_lora, detach_lora, routing_of
from tenth.model.quantize import quantize_model
from tenth.training.batches import Layout, TrainedSequence, collate
from tenth.training.logprobs import answer_logprobs

bit_for_bit = pytest.mark.skipif(
    cell_dtype(build(QWEN, dtype=torch.float32)) is None, reason="no compiler for the C++ kernels"
)

NAMES = ("a", "b", "c")
PROMPTS = random_prompts(5, 130, 17, 64, 30)
PARAMS = SamplingParams(max_new_tokens=12, n=2, stop_ids=(0,))
ASKED = [(prompt, name) for prompt in PROMPTS for name in (None, *NAMES)]


def ask(engine, asked, params=PARAMS):
    """Generations of all (prompt, adapter) at once, by request, then sample."""
    samples = [
        engine.submit(
            Request(request_id=str(number), prompt_ids=tuple(prompt), params=params, adapter=adapter),
            is_quiet=True,
        )
        for number, (prompt, adapter) in enumerate(asked)
    ]
    while engine.has_work:
        engine.advance()
    assert engine.stats().free_blocks == engine.num_blocks
    return [[sample.generation() for sample in each] for each in samples]


def said(groups):
    return [[(each.ids, each.logprobs, each.finish) for each in group] for group in groups]


def alone(model, asked, params=PARAMS):
    plain = EngineSettings(prefix_caching=False, cache_bytes=2**21)
    return said(ask(Engine(model, plain), [each], params)[0] for each in asked)


# what is computed

BASES = {
    "float32": lambda config: build_long(config, dtype=torch.float32),
    "bfloat16": lambda config: build_long(config, dtype=torch.bfloat16),
    "int8": lambda config: quantize_model(build_long(config, dtype=torch.float32), 8),
}
SCHEDULES = {
    "all at once": EngineSettings(),
    "in chunks": EngineSettings(max_sequences=7, max_batch_tokens=11),
    "guessing from the prompt": EngineSettings(speculation=Speculation.PROMPT_LOOKUP, draft_tokens=3),
    "guessing by MTP": EngineSettings(speculation=Speculation.MTP),
}


@bit_for_bit
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("base", BASES)
def test_a_request_has_the_same_bits_alone_and_among_other_adapters(base, schedule):
    model = attach(BASES[base](DEEPSEEK), *NAMES)
    mixed = Engine(model, SCHEDULES[schedule])
    found = said(ask(mixed, ASKED) + ask(mixed, ASKED))  # the second time from the cache
    assert found == alone(model, ASKED) * 2
    assert mixed.stats().cached_tokens > 0
    assert (mixed.stats().drafted_tokens > 0) == ("guessing" in schedule)


@bit_for_bit
@pytest.mark.parametrize("base", BASES)
def test_so_it_has_when_it_is_sent_away_and_begins_anew(base):
    model = attach(BASES[base](DEEPSEEK), *NAMES)
    settings = EngineSettings(
        max_sequences=12, max_batch_tokens=48, cache_bytes=7 * Engine(model).runner.block_bytes
    )
    asked = [(prompt, name) for prompt in random_prompts(30, 40, 50) for name in (None, *NAMES)]
    params = SamplingParams(max_new_tokens=70)
    crowded = Engine(model, settings)
    assert said(ask(crowded, asked, params)) == alone(model, asked, params)
    assert crowded.stats().preemptions > 0


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_an_adapter_says_what_the_model_says_that_it_is_merged_into(config):
    model = attach(build_long(config), *NAMES)
    engine = Engine(model)
    found = {name: [] for name in (None, *NAMES)}
    for (_, name), group in zip(ASKED, ask(engine, ASKED), strict=True):
        found[name].append(group)
    for name, groups in found.items():
        wanted = Engine(merged(model, name)).generate(PROMPTS, PARAMS)
        for group, other in zip(groups, wanted, strict=True):
            for each, alike in zip(group, other, strict=True):
                assert each.ids == alike.ids
                assert each.logprobs == pytest.approx(alike.logprobs, abs=1e-10)


@bit_for_bit
def test_fifty_adapters_share_a_batch():
    names = [f"adapter {number}" for number in range(50)]
    model = attach(build_long(QWEN, dtype=torch.float32), *names)
    prompt = PROMPTS[2]
    engine = Engine(model)
    groups = ask(engine, [(prompt, name) for name in names])
    assert engine.stats().steps < 20  # they went together
    assert len({group[0].logprobs for group in groups}) == 50
    for name in (names[0], names[23], names[49]):
        assert said([groups[names.index(name)]]) == alone(model, [(prompt, name)])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_samplers_log_probabilities_are_the_trainers_with_the_adapter(config):
    model = attach(build(config, dtype=torch.float32), "other", "policy")
    prompts, params = random_prompts(5, 1, 17, 9, 30), SamplingParams(max_new_tokens=24, n=3, stop_ids=(0,))
    groups = Engine(model).generate(prompts, params, adapter="policy")
    sequences, reported = [], []
    for prompt, group in zip(prompts, groups, strict=True):
        for each in group:
            trained = (False,) * len(prompt) + (True,) * len(each.ids)
            sequences.append(TrainedSequence(ids=(*prompt, *each.ids), trained=trained))
            reported += each.logprobs
    with torch.no_grad(), routing_of(model).using("policy"):
        logp = answer_logprobs(model, collate(sequences, layout=Layout.PACKED)).logp
    assert float((logp - torch.tensor(reported)).abs().max()) < 1e-5


# prefixes


def cached(engine, prompt, adapter):
    return ask(engine, [(prompt, adapter)])[0][0].cached_tokens


def test_a_prefix_is_found_by_its_own_adapter_only():
    engine = Engine(attach(build_long(QWEN), *NAMES))
    first = [cached(engine, PROMPTS[1], name) for name in (None, *NAMES)]
    second = [cached(engine, PROMPTS[1], name) for name in (None, *NAMES)]
    assert (first, second) == ([0] * 4, [128] * 4)


def test_an_adapter_that_learnt_finds_none_of_its_old_prefixes_and_the_others_do():
    model = attach(build_long(QWEN), *NAMES)
    engine = Engine(model)
    for name in (None, *NAMES):
        cached(engine, PROMPTS[1], name)
    shake(model, "b", seed=99)
    assert engine.refresh_adapters() == 1
    assert [cached(engine, PROMPTS[1], name) for name in (None, *NAMES)] == [128, 128, 0, 128]
    assert engine.refresh_adapters() == 1  # nothing has changed, nothing is forgotten
    assert cached(engine, PROMPTS[1], "b") == 128


def test_prefixes_on_disk_belong_to_one_adapter_as_it_was_and_the_base_to_everybody(tmp_path):
    settings = EngineSettings(spill_dir=tmp_path / "spilled", cache_bytes=2**20)

    def ask_anew(model, name):
        engine = Engine(model, settings)
        found = cached(engine, PROMPTS[1], name)
        engine.close()
        return found

    assert ask_anew(build_long(QWEN), None) == 0
    model = attach(build_long(QWEN), *NAMES)
    assert ask_anew(model, None) == 128  # the base is the same, whatever hangs on it
    assert [ask_anew(model, "a"), ask_anew(model, "a"), ask_anew(model, "b")] == [0, 128, 0]
    shake(model, "a", seed=99)
    assert ask_anew(model, "a") == 0
    shake(model, "a", seed=0)
    assert ask_anew(model, "a") == 128
    renamed = attach(build_long(QWEN), "of the same content")
    assert ask_anew(renamed, "of the same content") == 128


# coming, learning, going


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_who_runs_with_an_adapter_that_learns_goes_on_with_the_new_one(dtype):
    model = attach(build_long(QWEN, dtype=dtype), *NAMES)
    engine, prompt = Engine(model), tuple(PROMPTS[1])
    greedy = SamplingParams(max_new_tokens=20, temperature=0)
    running = {
        name: engine.submit(
            Request(request_id=str(name), prompt_ids=prompt, params=greedy, adapter=name), is_quiet=True
        )[0]
        for name in (None, "a", "b")
    }
    for _ in range(6):
        engine.advance()
    before = {name: tuple(sample.generated()) for name, sample in running.items()}
    assert all(0 < len(ids) < 20 for ids in before.values())
    old = Engine(merged(model, "a"), runner=None).generate([prompt], greedy)[0][0].ids
    shake(model, "b", seed=99)
    engine.refresh_adapters()
    while engine.has_work:
        engine.advance()
    assert running["a"].generation().ids == old
    rest = dataclasses.replace(greedy, max_new_tokens=20 - len(before["b"]))
    fresh = Engine(merged(model, "b")).generate([prompt + before["b"]], rest)
    assert running["b"].generation().ids == before["b"] + fresh[0][0].ids
    assert running["b"].generation().weights_version == 1


def test_adapters_come_and_go_while_the_engine_runs():
    model = attach(build_long(QWEN, dtype=torch.float32), "a", "b")
    engine = Engine(model)
    params = SamplingParams(max_new_tokens=30, n=2)
    for name in ("a", "b"):
        engine.add(Request(request_id=name, prompt_ids=tuple(PROMPTS[0]), params=params, adapter=name))
    engine.add(Request(request_id="late", prompt_ids=tuple(PROMPTS[1]), params=params, adapter="a"))
    engine.step()
    detach_lora(model, "a")
    attach(model, "new", seed=7)
    engine.refresh_adapters()
    ends = {}
    while engine.has_work:
        for update in engine.step():
            if update.finish:
                ends[update.request_id, update.sample] = update
    assert {key: end.finish for key, end in ends.items()} == {
        (name, i): Finish.LENGTH if name == "b" else Finish.ERROR
        for name in ("a", "b", "late")
        for i in (0, 1)
    }
    assert ends["a", 0].error == "adapter 'a' was detached while it was in use"
    wanted = Engine(merged(model, "new").double()).generate(PROMPTS, PARAMS)
    found = engine.generate(PROMPTS, PARAMS, adapter="new")
    assert [[each.ids for each in g] for g in found] == [[each.ids for each in g] for g in wanted]


def test_new_weights_and_a_sleep_leave_the_adapters_in_place():
    model = attach(build_long(QWEN, dtype=torch.float32), *NAMES)
    engine = Engine(model)
    before = said(engine.generate(PROMPTS, PARAMS, adapter="b"))
    engine.refresh_weights()
    engine.sleep()
    engine.wake()
    assert said(engine.generate(PROMPTS, PARAMS, adapter="b")) == before


# refusals


def test_an_unknown_adapter_is_refused_with_the_known_ones():
    engine = Engine(attach(build(QWEN), "poet", "judge"))
    asked = Request(request_id="r", prompt_ids=(1,), params=PARAMS, adapter="post")
    with pytest.raises(ConfigError, match=r"request r.* adapter 'post', but this engine serves poet, judge;"):
        engine.add(asked)
    with pytest.raises(ConfigError, match="serves no adapter"):
        Engine(build(QWEN)).generate([[1]], PARAMS, adapter="post")


def test_an_adapter_of_latent_keys_must_be_merged_first():
    model = build(DEEPSEEK)
    attach_lora(model, LoraConfig(rank=2, alpha=2.0, targets=("kv_b_proj", "o_proj")), name="deep")
    with pytest.raises(ConfigError, match=r"'deep' adapts kv_b_proj.*merge"):
        Engine(model)


def test_an_engine_of_fixed_shapes_refuses_adapters():
    model = attach(build(QWEN), "a")
    with pytest.raises(ConfigError, match="adapter 'a' cannot be served by an engine that computes in fixed"):
        Engine(model, EngineSettings(deterministic=True))
    engine = Engine(build(QWEN), runner=PaddedRunner(build(QWEN)))
    attach(engine.model, "a")
    with pytest.raises(ConfigError, match="fixed shapes"):
        engine.refresh_adapters()
    assert engine.generate([[1]], PARAMS)[0][0].ids
