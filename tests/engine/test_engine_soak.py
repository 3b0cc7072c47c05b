"""Random requests, aborts, new weights, preemptions: everybody ends once, as if alone; nothing leaks."""

import random

import pytest
from adapted_models import attach, shake
from engine_models import DEEPSEEK, QWEN, WatchedRunner, build_long, random_prompts

from tenth.base.errors import QueueFull
from tenth.base.records import Finish
from tenth.engine.engine import Engine
from tenth.engine.request import Request, SamplingParams
from tenth.engine.settings import EngineSettings, Speculation

NETWORKS = {config.name: build_long(config) for config in (DEEPSEEK, QWEN)}
SHARED = random_prompts(140, seed=2)[0]


class Client:
    """Sends random requests, aborts some, and writes down what comes back."""

    def __init__(self, engine, *, seed):
        self.engine, self.rng = engine, random.Random(seed)
        self.open: dict[str, Request] = {}
        self.ids: dict[tuple[str, int], list[int]] = {}
        self.ends: dict[tuple[str, int], Finish] = {}
        self.requests: dict[str, Request] = {}
        self.num_refused = 0

    def ask(self):
        name = str(len(self.requests))
        rng = self.rng
        prompt = (
            SHARED[: rng.choice([0, 64, 130])]
            + random_prompts(rng.randint(1, 40), seed=rng.randint(0, 999))[0]
        )
        params = SamplingParams(
            max_new_tokens=rng.choice([1, 5, 70, 70]),
            n=rng.choice([1, 1, 1, 2, 5]),
            temperature=rng.choice([0.0, 1.0]),
            stop_ids=(0,),
            seed=rng.randint(0, 9),
            frequency_penalty=rng.choice([0.0, 0.0, 0.5]),
        )
        request = Request(
            request_id=name,
            prompt_ids=tuple(prompt),
            params=params,
            priority=rng.randint(0, 2),
            adapter=rng.choice([None, *self.engine.adapters]),
        )
        try:
            self.engine.add(request)
        except QueueFull:
            self.num_refused += 1
            return
        self.requests[name] = self.open[name] = request

    def live(self, steps):
        rng = self.rng
        for _ in range(steps):
            if rng.random() < 0.5:
                self.ask()
            if self.open and rng.random() < 0.1:
                name = rng.choice(list(self.open))
                self.engine.abort(name, rng.choice([None, rng.randint(0, 4)]))
            if rng.random() < 0.005:
                self.engine.refresh_weights()
            if rng.random() < 0.005:
                self.engine.refresh_adapters()
            if rng.random() < 0.005:
                self.engine.sleep()
                self.engine.wake()
            self.read()

    def read(self):
        for update in self.engine.step():
            key = (update.request_id, update.sample)
            assert key not in self.ends, "news after the end"
            self.ids.setdefault(key, []).extend(update.ids)
            if update.finish:
                self.ends[key] = update.finish
                request = self.open.get(update.request_id)
                if request and all((update.request_id, i) in self.ends for i in range(request.params.n)):
                    del self.open[update.request_id]


def soak(network, *, steps, blocks, speculation, seed, checked):
    runner = WatchedRunner(network)
    settings = EngineSettings(
        max_sequences=12,
        max_batch_tokens=48,
        max_waiting=20,
        cache_bytes=blocks * runner.block_bytes,
        speculation=speculation,
    )
    engine = Engine(network, settings, runner=runner)
    client = Client(engine, seed=seed)
    client.live(steps)
    while engine.has_work:
        client.read()
    assert not client.open
    assert set(client.ends) == {
        (name, i) for name, request in client.requests.items() for i in range(request.params.n)
    }
    assert engine.stats().free_blocks == blocks
    assert not engine.ledger.requests
    assert set(client.ends.values()) == {Finish.STOP, Finish.LENGTH, Finish.ABORTED}
    assert engine.stats().preemptions > 0
    assert engine.stats().cached_tokens > 0
    plain = Engine(network, EngineSettings(prefix_caching=False), runner=WatchedRunner(network))
    for name in client.rng.sample(list(client.requests), checked):
        request = client.requests[name]
        (alone,) = plain.generate([request.prompt_ids], request.params, adapter=request.adapter)
        for i, generation in enumerate(alone):
            found = tuple(client.ids[name, i])
            if client.ends[name, i] is Finish.ABORTED:
                assert found == generation.ids[: len(found)]
            else:
                assert (found, client.ends[name, i]) == (generation.ids, generation.finish)
    return client


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
@pytest.mark.parametrize("speculation", [Speculation.NONE, Speculation.PROMPT_LOOKUP])
def test_random_requests_end_once_as_if_alone_and_leave_nothing_behind(config, speculation):
    soak(NETWORKS[config.name], steps=120, blocks=7, speculation=speculation, seed=1, checked=15)


def test_so_they_do_while_the_mtp_module_guesses():
    soak(NETWORKS["deepseek"], steps=120, blocks=7, speculation=Speculation.MTP, seed=2, checked=15)


@pytest.mark.parametrize("config", [DEEPSEEK, QWEN], ids=["deepseek", "qwen"])
def test_so_they_do_with_adapters_of_their_own(config):
    network = attach(build_long(config), "a", "b")
    soak(network, steps=120, blocks=7, speculation=Speculation.PROMPT_LOOKUP, seed=1, checked=15)


def test_adapters_that_learn_meanwhile_lose_nobody():
    network = attach(build_long(QWEN), "a", "b")
    runner = WatchedRunner(network)
    settings = EngineSettings(max_sequences=12, max_batch_tokens=48, cache_bytes=7 * runner.block_bytes)
    engine = Engine(network, settings, runner=runner)
    client = Client(engine, seed=4)
    for step in range(60):
        client.live(2)
        shake(network, "ab"[step % 2], seed=100 + step)
        engine.refresh_adapters()
    while engine.has_work:
        client.read()
    assert not client.open
    assert not engine.ledger.requests
    assert engine.stats().free_blocks == 7
    assert engine.stats().weights_version >= 60
    assert set(client.ends.values()) == {Finish.STOP, Finish.LENGTH, Finish.ABORTED}


@pytest.mark.slow
@pytest.mark.parametrize("speculation", list(Speculation))
def test_two_thousand_random_requests(speculation):
    client = soak(NETWORKS["deepseek"], steps=4200, blocks=7, speculation=speculation, seed=3, checked=200)
    assert len(client.requests) + client.num_refused > 2000
