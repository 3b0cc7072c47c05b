"""Guessing inside the engine: right guesses save steps, guesses that do not pay are not made."""

import math

import pytest
import torch
from engine_models import DEEPSEEK, QWEN, WatchedRunner, build_long, random_prompts

from tenth.base.errors import ConfigError
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings, Speculation

NETWORK = build_long(DEEPSEEK)
MTP = EngineSettings(speculation=Speculation.MTP)
PROMPT = random_prompts(20)[0]


class Foresight(WatchedRunner):
    """Its module guesses with the network's own distribution. For one sequence at a time."""

    engine: Engine

    def draft(self, batch, sources):
        super().draft(batch, sources)
        if not len(batch.outputs):
            return torch.empty(0, NETWORK.config.vocab_size)
        tokens = self.engine.scheduler.running[0].tokens
        with torch.no_grad():
            return NETWORK.logits(NETWORK(torch.tensor([tokens])))[0, -1:]


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("max_batch_tokens", [512, 7])
def test_a_module_that_knows_the_network_is_always_right_and_halves_the_steps(temperature, max_batch_tokens):
    runner = Foresight(NETWORK)
    settings = EngineSettings(speculation=Speculation.MTP, max_batch_tokens=max_batch_tokens, max_sequences=7)
    ticks = iter(range(10**9))  # every step takes as long as any other
    engine = Engine(NETWORK, settings, runner=runner, clock=lambda: float(next(ticks)))
    runner.engine = engine
    engine.speculator.gate.should_draft = lambda width: True
    params = SamplingParams(max_new_tokens=41, temperature=temperature, top_p=0.9)
    ((found,),) = engine.generate([PROMPT], params)
    assert found.ids == Engine(NETWORK).generate([PROMPT], params)[0][0].ids
    stats = engine.stats()
    assert stats.acceptance == 1.0
    prompt_steps = -(-20 // max_batch_tokens)
    assert stats.steps <= prompt_steps + 20  # one token with the prompt, then two per step


def test_answers_with_guesses_follow_the_networks_distribution():
    # 2000 answers of three tokens; chi-square of the first two, the second of which was guessed for each
    settings = EngineSettings(speculation=Speculation.MTP, max_sequences=2000, max_batch_tokens=4000)
    engine = Engine(build_long(DEEPSEEK, dtype=torch.float32), settings)
    engine.speculator.gate.should_draft = lambda width: True
    groups = engine.generate([PROMPT] * 2, SamplingParams(max_new_tokens=3, n=1000, temperature=0.7))
    assert engine.stats().drafted_tokens == 2000
    assert engine.stats().accepted_tokens > 50
    vocabulary = NETWORK.config.vocab_size
    with torch.no_grad():
        first = (NETWORK.logits(NETWORK(torch.tensor([PROMPT])))[0, -1] / 0.7).softmax(-1)
        longer = torch.tensor([[*PROMPT, token] for token in range(vocabulary)])
        second = (NETWORK.logits(NETWORK(longer))[:, -1] / 0.7).softmax(-1)
    p = (first[:, None] * second).flatten()
    pairs = torch.tensor([g.ids[0] * vocabulary + g.ids[1] for group in groups for g in group])
    counts = torch.bincount(pairs, minlength=len(p)).double()
    is_common = p * 2000 >= 5
    assert int(is_common.sum()) > 20
    expected = torch.cat([p[is_common], p[~is_common].sum()[None]]) * 2000
    found = torch.cat([counts[is_common], counts[~is_common].sum()[None]])
    chi_square = float(((found - expected).square() / expected).sum())
    freedom = len(expected) - 1
    assert chi_square < freedom + 3.3 * math.sqrt(2 * freedom) + 5  # about once in a thousand


class Costly(WatchedRunner):
    """Time that passes as rows are computed: `fixed` per call and `per_row` for each."""

    def __init__(self, network, *, fixed, per_row):
        super().__init__(network)
        self.fixed, self.per_row, self.now = fixed, per_row, 0.0

    def forward(self, batch):
        self.now += self.fixed + self.per_row * len(batch.ids)
        return super().forward(batch)


def test_repetition_is_guessed_by_looking_back():
    # a mask forces the answer to repeat seven tokens: all of it can be known after nine
    def mask(generated):
        allowed = torch.zeros(QWEN.vocab_size, dtype=torch.bool)
        allowed[[3, 1, 4, 1, 5, 9, 2][len(generated) % 7]] = True
        return allowed

    network = build_long(QWEN)
    runner = Costly(network, fixed=1.0, per_row=0.0)
    settings = EngineSettings(speculation=Speculation.PROMPT_LOOKUP, draft_tokens=4)
    engine = Engine(network, settings, runner=runner, clock=lambda: runner.now)
    ((found,),) = engine.generate([PROMPT], SamplingParams(max_new_tokens=200, logit_mask=mask))
    assert found.ids == tuple([3, 1, 4, 1, 5, 9, 2] * 29)[:200]
    stats = engine.stats()
    assert stats.acceptance > 0.95
    assert stats.steps < 9 + 200 / 5 + 2 * 8 + 3  # the start, five per step, two trials without guesses


@pytest.mark.parametrize(
    ("fixed", "per_row", "is_paying"), [(1.0, 0.0, True), (0.0, 1.0, False)], ids=["by call", "by row"]
)
def test_guesses_are_made_only_where_they_pay(fixed, per_row, is_paying):
    runner = Costly(NETWORK, fixed=fixed, per_row=per_row)
    engine = Engine(NETWORK, MTP, runner=runner, clock=lambda: runner.now)
    params = SamplingParams(max_new_tokens=250)
    ((found,),) = engine.generate([PROMPT], params)
    assert found.ids == Engine(NETWORK).generate([PROMPT], params)[0][0].ids
    assert (engine.stats().drafted_tokens > 180) == is_paying
    assert (engine.stats().drafted_tokens < 20) == (not is_paying)


def test_while_guessing_is_off_the_module_computes_nothing():
    runner = Costly(NETWORK, fixed=0.0, per_row=1.0)
    engine = Engine(NETWORK, MTP, runner=runner, clock=lambda: runner.now)
    calls = []
    original = runner.draft
    runner.draft = lambda batch, sources: calls.append(1) or original(batch, sources)
    engine.generate([PROMPT], SamplingParams(max_new_tokens=200))
    assert 8 < len(calls) < 25  # the trials, with and without


def test_nothing_is_guessed_for_a_prompt_that_several_samples_are_about_to_leave():
    prompt, params = [1, 2, 3] * 3, SamplingParams(max_new_tokens=5, n=2)
    looking = EngineSettings(
        max_sequences=4, max_batch_tokens=8, speculation=Speculation.PROMPT_LOOKUP, draft_tokens=3
    )  # the first step leaves one token of the prompt
    found = Engine(NETWORK, looking, runner=WatchedRunner(NETWORK)).generate([prompt], params)
    plain = Engine(NETWORK, runner=WatchedRunner(NETWORK)).generate([prompt], params)
    assert [each.ids for each in found[0]] == [each.ids for each in plain[0]]


def test_no_more_is_guessed_than_may_still_come():
    engine = Engine(NETWORK, MTP, runner=WatchedRunner(NETWORK))
    engine.generate([PROMPT], SamplingParams(max_new_tokens=1))
    engine.generate([PROMPT], SamplingParams(max_new_tokens=2))
    assert engine.stats().drafted_tokens == 0  # the second token is the last and needs no guess after it


def test_a_network_without_a_module_cannot_guess_with_it():
    network = build_long(QWEN)
    with pytest.raises(ConfigError, match="model 'qwen' has no MTP module to guess with; set speculation to"):
        Engine(network, MTP)
    with pytest.raises(ConfigError, match="draft_tokens = 2, but an MTP module guesses one token"):
        EngineSettings(speculation=Speculation.MTP, draft_tokens=2)
