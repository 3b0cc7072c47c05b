"""The engine: the same answer alone or in company, ends where it should, and never leaves its buffers."""

import dataclasses
import math

import hypothesis
import pytest
import torch
from engine_models import CONFIGS, CONTEXT, DEEPSEEK, QWEN, VOCABULARY, build, random_prompts
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.base.records import Finish
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings

# Tokens are compared in float64: in float32 another batch width may round a near-tie the other way.
PROMPTS = random_prompts(5, 1, 17, 9, 30, 5, 2)
NETWORKS = {name: build(config) for name, config in CONFIGS.items()}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


@torch.no_grad()
def recompute(network, prompt, ids):
    """Log-probabilities of an answer by one pass over prompt and answer."""
    tokens = torch.tensor([[*prompt, *ids]])
    logp = network.logits(network(tokens)).log_softmax(-1)[0]
    return [float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(ids)]


def assert_same(found, wanted):
    assert [g.ids for g in found] == [g.ids for g in wanted]
    assert [g.finish for g in found] == [g.finish for g in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-10)


@every_network
def test_log_probabilities_are_those_of_a_pass_over_prompt_and_answer(network):
    params = SamplingParams(max_new_tokens=20, n=3, stop_ids=(0,), seed=1)
    for prompt, group in zip(PROMPTS, Engine(network).generate(PROMPTS, params), strict=True):
        for answer in group:
            assert len(answer.ids) == len(answer.logprobs)
            assert answer.logprobs == pytest.approx(recompute(network, prompt, answer.ids), abs=1e-10)


@every_network
def test_greedy_decoding_takes_the_most_likely_token_at_every_step(network):
    params = SamplingParams(max_new_tokens=12, temperature=0.0)
    for prompt, (answer,) in zip(PROMPTS, Engine(network).generate(PROMPTS, params), strict=True):
        tokens = list(prompt)
        for token in answer.ids:
            with torch.no_grad():
                assert token == int(network.logits(network(torch.tensor([tokens])))[0, -1].argmax())
            tokens.append(token)


@every_network
def test_a_request_gets_the_same_answer_alone_and_in_a_batch(network):
    params = SamplingParams(max_new_tokens=16, n=2, temperature=0.9, top_p=0.95, stop_ids=(0, 3), seed=5)
    together = Engine(network).generate(PROMPTS, params)
    for prompt, group in zip(PROMPTS, together, strict=True):
        assert_same(Engine(network).generate([prompt], params)[0], group)
    backwards = Engine(network).generate(PROMPTS[::-1], params)[::-1]
    for a, b in zip(backwards, together, strict=True):
        assert_same(a, b)


@every_network
@pytest.mark.parametrize(("max_sequences", "max_batch_tokens"), [(1, 1), (3, 4), (7, 30), (30, 30)])
def test_bounds_of_a_step_change_nothing(network, max_sequences, max_batch_tokens):
    params = SamplingParams(max_new_tokens=16, n=2, stop_ids=(0, 3), seed=5)
    wanted = Engine(network).generate(PROMPTS, params)
    settings = EngineSettings(max_sequences=max_sequences, max_batch_tokens=max_batch_tokens)
    for a, b in zip(Engine(network, settings).generate(PROMPTS, params), wanted, strict=True):
        assert_same(a, b)


def test_the_seed_decides():
    engine = Engine(NETWORKS["qwen"])
    answers = [
        engine.generate(PROMPTS[:1], SamplingParams(max_new_tokens=16, seed=seed))[0][0].ids
        for seed in (1, 1, 2, 3)
    ]
    assert answers[0] == answers[1]
    assert len(set(answers)) == 3


def test_samples_of_one_prompt_differ_and_so_do_repeated_prompts():
    params = SamplingParams(max_new_tokens=16, n=4)
    groups = Engine(NETWORKS["qwen"]).generate([PROMPTS[0], PROMPTS[1], PROMPTS[0]], params)
    answers = [answer.ids for group in groups for answer in group]
    assert len(set(answers)) == 12


def test_a_sample_does_not_depend_on_how_many_there_are_or_how_long_they_may_grow():
    engine = Engine(NETWORKS["qwen"])
    small = engine.generate(PROMPTS, SamplingParams(max_new_tokens=6, n=2))
    large = engine.generate(PROMPTS, SamplingParams(max_new_tokens=15, n=5))
    for few, many in zip(small, large, strict=True):
        assert [g.ids for g in few] == [g.ids[:6] for g in many[:2]]


@every_network
def test_a_stop_id_is_kept_and_ends_the_answer(network):
    stop_ids = (0, 3)
    params = SamplingParams(max_new_tokens=8, n=4, stop_ids=stop_ids, seed=2)
    answers = [a for group in Engine(network).generate(PROMPTS, params) for a in group]
    assert {a.finish for a in answers} == {Finish.STOP, Finish.LENGTH}  # both happen here
    for answer in answers:
        assert not set(answer.ids[:-1]) & set(stop_ids)
        if answer.finish is Finish.STOP:
            assert answer.ids[-1] in stop_ids
        else:
            assert len(answer.ids) == 8
            assert answer.ids[-1] not in stop_ids


def test_stopping_only_cuts_what_would_have_been_drawn():
    engine = Engine(NETWORKS["deepseek"])
    free = engine.generate(PROMPTS, SamplingParams(max_new_tokens=20, n=2))
    stopped = engine.generate(PROMPTS, SamplingParams(max_new_tokens=20, n=2, stop_ids=(0, 3)))
    for a, b in zip(free, stopped, strict=True):
        for whole, cut in zip(a, b, strict=True):
            assert whole.ids[: len(cut.ids)] == cut.ids


def test_a_stop_id_as_the_last_allowed_token_is_a_stop():
    network = NETWORKS["qwen"]
    ((first,),) = Engine(network).generate(PROMPTS[:1], SamplingParams(max_new_tokens=1))
    assert first.finish is Finish.LENGTH
    params = SamplingParams(max_new_tokens=1, stop_ids=first.ids)
    assert Engine(network).generate(PROMPTS[:1], params)[0][0].finish is Finish.STOP


def test_answers_follow_the_models_distribution():
    # 4000 samples of one token: chi-square against the softmax the model itself gives
    network = NETWORKS["deepseek"]
    params = SamplingParams(max_new_tokens=1, n=1000, temperature=1.3)
    groups = Engine(network).generate(4 * PROMPTS[2:3], params)
    with torch.no_grad():
        logits = network.logits(network(torch.tensor(PROMPTS[2:3])))[0, -1]
    p = (logits / 1.3).softmax(-1)
    counts = torch.bincount(
        torch.tensor([g.ids[0] for group in groups for g in group]), minlength=VOCABULARY
    ).double()
    is_common = p * 4000 >= 5
    expected, found = p[is_common] * 4000, counts[is_common]
    chi_square = float(((found - expected).square() / expected).sum())
    freedom = int(is_common.sum()) - 1
    assert chi_square < freedom + 3.3 * math.sqrt(2 * freedom) + 5  # about once in a thousand


def test_no_prompts_no_answers():
    assert Engine(NETWORKS["qwen"]).generate([], SamplingParams(max_new_tokens=4)) == []


def test_a_prompt_may_fill_the_context_to_the_last_token():
    engine = Engine(NETWORKS["deepseek"])
    for length, new in [(CONTEXT - 1, 1), (CONTEXT - 3, 3), (1, CONTEXT - 1)]:
        (prompt,) = random_prompts(length)
        ((answer,),) = engine.generate([prompt], SamplingParams(max_new_tokens=new))
        assert answer.logprobs == pytest.approx(recompute(engine.model, prompt, answer.ids), abs=1e-10)


def test_an_odd_context_is_no_trouble_either():
    network = build(dataclasses.replace(DEEPSEEK, max_position_embeddings=21))
    prompts = random_prompts(18, 2)  # rounded up to whole eighths 18 would not fit
    for prompt, (answer,) in zip(
        prompts, Engine(network).generate(prompts, SamplingParams(max_new_tokens=3)), strict=True
    ):
        assert answer.logprobs == pytest.approx(recompute(network, prompt, answer.ids), abs=1e-10)


def test_a_prompt_that_may_outgrow_the_context_is_refused_with_a_sentence():
    prompts = random_prompts(5, 70)
    with pytest.raises(
        ConfigError, match=r"prompt 1 has 70 tokens and may grow by 3, but the model's context is 72; shorten"
    ):
        Engine(NETWORKS["qwen"]).generate(prompts, SamplingParams(max_new_tokens=3))


def test_an_empty_prompt_is_refused():
    with pytest.raises(ConfigError, match="prompt 1 is empty; give at least one token"):
        Engine(NETWORKS["qwen"]).generate([[1], []], SamplingParams(max_new_tokens=3))


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"n": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.01}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ConfigError, match="must"):
        SamplingParams(**{"max_new_tokens": 4, **wrong})


@hypothesis.settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    new=st.integers(1, CONTEXT - 40),
    n=st.integers(1, 4),
    max_sequences=st.integers(1, 30),
    spare=st.integers(0, 40),
    stop_ids=st.sets(st.integers(0, VOCABULARY - 1), max_size=VOCABULARY),
    seed=st.integers(0, 99),
)
def test_however_a_batch_is_made_up_everybody_gets_what_the_network_gives(
    lengths, new, n, max_sequences, spare, stop_ids, seed
):
    params = SamplingParams(max_new_tokens=new, n=n, stop_ids=tuple(stop_ids), seed=seed)
    prompts = random_prompts(*lengths, seed=seed)
    network = NETWORKS["qwen"]
    settings = EngineSettings(max_sequences=max_sequences, max_batch_tokens=max_sequences + spare)
    groups = Engine(network, settings).generate(prompts, params)
    for prompt, group in zip(prompts, groups, strict=True):
        answer = group[-1]
        assert answer.logprobs == pytest.approx(recompute(network, prompt, answer.ids), abs=1e-10)


def test_weights_changed_in_place_are_used_once_the_engine_is_told():
    network = build(QWEN)
    engine = Engine(network)
    params = SamplingParams(max_new_tokens=8, temperature=0.0)
    before = engine.generate(PROMPTS, params)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    assert engine.refresh_weights() == 1
    after = engine.generate(PROMPTS, params)
    assert after[0][0].weights_version == 1
    assert [g[0].ids for g in before] != [g[0].ids for g in after]
    assert after[0][0].logprobs == pytest.approx(recompute(network, PROMPTS[0], after[0][0].ids), abs=1e-10)


def test_in_bfloat16_the_engine_runs_and_reports_finite_log_probabilities():
    network = build(DEEPSEEK, dtype=torch.float32).to_compute_dtype(torch.bfloat16)
    groups = Engine(network).generate(PROMPTS, SamplingParams(max_new_tokens=8, n=2))
    assert all(math.isfinite(logprob) and logprob <= 0 for g in groups for a in g for logprob in a.logprobs)
