"""Requests one by one: news of every token, an end for everybody, trouble that stays with whoever made it."""

import itertools

import pytest
import torch
from engine_models import DEEPSEEK, QWEN, VOCABULARY, WatchedRunner, build, build_long, random_prompts

from tenth.base.errors import ConfigError, QueueFull, RunError
from tenth.base.records import Finish
from tenth.engine.block_pool import BLOCK
from tenth.engine.engine import Engine
from tenth.engine.request import Request, SamplingParams
from tenth.engine.settings import EngineSettings

NETWORK = build(QWEN)
PROMPTS = [tuple(prompt) for prompt in random_prompts(5, 1, 17, 9, 30)]


def request(name, prompt=PROMPTS[0], *, priority=0, **params):
    return Request(
        request_id=name,
        prompt_ids=prompt,
        params=SamplingParams(**{"max_new_tokens": 8, **params}),
        priority=priority,
    )


def run(engine):
    """All news until nobody is left, by (request, sample)."""
    news = {}
    while engine.has_work:
        for update in engine.step():
            news.setdefault((update.request_id, update.sample), []).append(update)
    assert engine.stats().free_blocks == engine.num_blocks
    assert engine.stats().running == engine.stats().waiting == 0
    return news


def ids(updates):
    return tuple(itertools.chain.from_iterable(update.ids for update in updates))


def finishes(news):
    return {key: updates[-1].finish for key, updates in news.items()}


def test_every_token_is_told_once_and_only_the_last_news_says_how_it_ended():
    engine = Engine(NETWORK)
    for number, prompt in enumerate(PROMPTS):
        engine.add(request(str(number), prompt, n=2, stop_ids=(0, 3), seed=5))
    news = run(engine)
    wanted = engine.generate(PROMPTS, SamplingParams(max_new_tokens=8, n=2, stop_ids=(0, 3), seed=5))
    for (name, sample), updates in news.items():
        generation = wanted[int(name)][sample]
        assert ids(updates) == generation.ids
        assert sum((update.logprobs for update in updates), ()) == generation.logprobs
        assert [update.finish for update in updates[:-1]] == [None] * (len(updates) - 1)
        assert updates[-1].finish is generation.finish
    assert len(news) == 2 * len(PROMPTS)


def test_a_name_can_be_used_again_when_its_request_has_ended_and_not_before():
    engine = Engine(NETWORK)
    engine.add(request("a"))
    with pytest.raises(ConfigError, match="request a is running"):
        engine.add(request("a"))
    run(engine)
    engine.add(request("a"))
    assert finishes(run(engine)) == {("a", 0): Finish.LENGTH}


def test_lower_priorities_run_first():
    engine = Engine(NETWORK, EngineSettings(max_sequences=1, max_batch_tokens=8))
    for name, priority in (("last", 2), ("first", 0), ("middle", 1)):
        engine.add(request(name, priority=priority))
    ended = [u.request_id for _ in range(100) for u in engine.step() if u.finish]
    assert ended == ["first", "middle", "last"]


def test_a_full_queue_refuses_and_serves_on():
    engine = Engine(NETWORK, EngineSettings(max_waiting=2))
    engine.add(request("a"))
    engine.add(request("b"))
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        engine.add(request("c"))
    assert set(finishes(run(engine))) == {("a", 0), ("b", 0)}


def test_generate_takes_more_prompts_than_the_queue_holds():
    engine = Engine(NETWORK, EngineSettings(max_waiting=1, max_sequences=2))
    params = SamplingParams(max_new_tokens=4, n=3)
    found = engine.generate(PROMPTS, params)
    assert [[g.ids for g in group] for group in found] == [
        [g.ids for g in group] for group in Engine(NETWORK).generate(PROMPTS, params)
    ]


def test_generate_leaves_the_news_of_others_to_them():
    engine = Engine(NETWORK)
    engine.add(request("other"))
    engine.generate(PROMPTS, SamplingParams(max_new_tokens=20))
    news = run(engine)
    assert len(ids(news["other", 0])) == 8


def test_what_can_never_fit_is_refused_with_the_remedy():
    runner = WatchedRunner(build_long(QWEN))
    engine = Engine(runner.model, EngineSettings(cache_bytes=2 * runner.block_bytes), runner=runner)
    with pytest.raises(ConfigError, match=r"request a: the prompt has 121 tokens and may grow by 8, but the "
                       r"cache has room for 128 tokens; .* raise cache_bytes"):  # fmt: skip
        engine.add(request("a", (1,) * 121))
    engine.add(request("a", (1,) * 120))
    assert finishes(run(engine)) == {("a", 0): Finish.LENGTH}
    with pytest.raises(ConfigError, match="one block of 64 tokens needs"):
        Engine(runner.model, EngineSettings(cache_bytes=100))


@pytest.mark.parametrize("wrong", [{"prompt": (1, VOCABULARY)}, {"stop_ids": (VOCABULARY,)}])
def test_ids_that_the_network_does_not_know_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"holds id {VOCABULARY}, but the model's vocabulary has"):
        Engine(NETWORK).add(request("a", **wrong))


# aborts


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("speed", [3, 512])
def test_an_abort_is_possible_at_any_time_and_told_once(steps, speed):
    engine = Engine(NETWORK, EngineSettings(max_batch_tokens=speed, max_sequences=min(speed, 256)))
    engine.add(request("a", PROMPTS[2], n=3))
    engine.add(request("b", PROMPTS[3]))
    news = [update for _ in range(steps) for update in engine.step()]
    engine.abort("a")
    engine.abort("a")
    engine.abort("nobody")
    rest = run(engine)
    for sample in range(3):
        told = [u for u in news if (u.request_id, u.sample) == ("a", sample)] + rest["a", sample]
        assert [u.finish for u in told if u.finish] == [Finish.ABORTED]
    assert ids(rest["b", 0]) == Engine(NETWORK).generate([PROMPTS[3]], request("b").params)[0][0].ids[-len(
        ids(rest["b", 0])) :]  # fmt: skip


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("steps", [0, 2, 8])
def test_one_sample_may_go_and_the_others_do_not_notice(victim, steps):
    engine = Engine(NETWORK, EngineSettings(max_batch_tokens=4, max_sequences=4))
    engine.add(request("a", PROMPTS[2], n=3, seed=1))  # 17 tokens: its prompt takes five steps
    news = [update for _ in range(steps) for update in engine.step()]
    engine.abort("a", victim)
    for updates in run(engine).values():
        news += updates
    wanted = Engine(NETWORK).generate([PROMPTS[2]], SamplingParams(max_new_tokens=8, n=3, seed=1))[0]
    for sample in range(3):
        told = [u for u in news if u.sample == sample]
        assert told[-1].finish is (Finish.ABORTED if sample == victim else Finish.LENGTH)
        assert ids(told) == wanted[sample].ids[: len(ids(told))]


# trouble


def test_scores_that_are_no_numbers_end_their_request_and_no_other():
    poison = 7
    runner = WatchedRunner(NETWORK, poison=poison)
    engine = Engine(NETWORK, runner=runner)
    for number, prompt in enumerate(PROMPTS):
        engine.add(request(str(number), prompt, n=2, max_new_tokens=30))
    news = run(engine)
    wanted = Engine(NETWORK).generate(PROMPTS, SamplingParams(max_new_tokens=30, n=2))
    failed = 0
    for (name, sample), updates in news.items():
        answer = wanted[int(name)][sample].ids
        newest = (PROMPTS[int(name)][-1], *answer[:-1])  # before each token
        if poison in newest:
            failed += 1
            assert updates[-1].finish is Finish.ERROR
            number = newest.index(poison)
            assert f"scores for token {number} hold NaN" in updates[-1].error
            assert ids(updates) == answer[:number]
        else:
            assert ids(updates) == answer
            assert updates[-1].error is None
    assert 0 < failed < 10


def test_weights_gone_bad_fail_every_request_and_good_ones_serve_again():
    network = build(DEEPSEEK)
    engine = Engine(network, runner=WatchedRunner(network))
    good = network.head.weight.detach().clone()
    params = SamplingParams(max_new_tokens=4, n=2)
    wanted = engine.generate(PROMPTS, params)
    for bad in (torch.nan, torch.inf):
        network.layers[0].ffn.down.weight.data[0] = bad
        engine.refresh_weights()
        answers = [a for group in engine.generate(PROMPTS, params) for a in group]
        assert all(a.finish is Finish.ERROR and not a.ids and "NaN" in a.error for a in answers)
    network.layers[0].ffn.down.weight.data.copy_(build(DEEPSEEK).layers[0].ffn.down.weight)
    assert torch.equal(network.head.weight, good)
    engine.refresh_weights()
    assert [[a.ids for a in g] for g in engine.generate(PROMPTS, params)] == [
        [a.ids for a in g] for g in wanted
    ]


def test_a_mask_that_raises_ends_its_request_and_no_other():
    def mask(generated):
        if len(generated) == 3:
            raise KeyError("state 5")
        return None

    engine = Engine(NETWORK)
    engine.add(request("bad", logit_mask=mask, n=2))
    engine.add(request("good", PROMPTS[1]))
    news = run(engine)
    assert finishes(news) == {("bad", 0): Finish.ERROR, ("bad", 1): Finish.ERROR, ("good", 0): Finish.LENGTH}
    assert news["bad", 1][-1].error == "the request's logit_mask failed with KeyError: 'state 5'"
    assert len(ids(news["bad", 0])) == 3


def test_a_mask_that_forbids_everything_says_so():
    nothing = torch.zeros(VOCABULARY, dtype=torch.bool)
    ((answer,),) = Engine(NETWORK).generate(
        PROMPTS[:1], SamplingParams(max_new_tokens=4, logit_mask=lambda _: nothing)
    )
    assert answer.finish is Finish.ERROR
    assert "leave no token to draw" in answer.error


def test_an_interrupt_leaves_no_request_behind():
    class Interrupted(WatchedRunner):
        def forward(self, batch):
            if len(self.widths) == 3:
                raise KeyboardInterrupt
            return super().forward(batch)

    engine = Engine(NETWORK, runner=Interrupted(NETWORK))
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, SamplingParams(max_new_tokens=8, n=2))
    assert engine.step() == []
    assert not engine.has_work
    assert engine.stats().free_blocks == engine.num_blocks


# what few requests ask for


def test_a_mask_sees_the_tokens_so_far_and_decides_what_may_come():
    seen = []

    def mask(generated):
        seen.append(list(generated))
        allowed = torch.zeros(VOCABULARY, dtype=torch.bool)
        allowed[[2 * len(generated), 2 * len(generated) + 1]] = True
        return allowed

    ((answer,),) = Engine(NETWORK).generate(PROMPTS[:1], SamplingParams(max_new_tokens=5, logit_mask=mask))
    assert [token // 2 for token in answer.ids] == [0, 1, 2, 3, 4]
    assert seen == [list(answer.ids[:i]) for i in range(5)]


def test_log_probabilities_and_alternatives_are_the_networks_own_whatever_was_done_to_the_scores():
    params = SamplingParams(
        max_new_tokens=6, temperature=0.5, top_logprobs=3, presence_penalty=1.5, logit_bias={4: 5.0}
    )
    prompt = PROMPTS[2]
    ((answer,),) = Engine(NETWORK).generate([prompt], params)
    with torch.no_grad():
        logp = NETWORK.logits(NETWORK(torch.tensor([prompt + answer.ids]))).log_softmax(-1)[0]
    for i, (token, logprob, top) in enumerate(
        zip(answer.ids, answer.logprobs, answer.top_logprobs, strict=True)
    ):
        row = logp[len(prompt) + i - 1]
        assert logprob == pytest.approx(float(row[token]), abs=1e-10)
        best = row.topk(3)
        assert [each for each, _ in top] == best.indices.tolist()
        assert [each for _, each in top] == pytest.approx(best.values.tolist(), abs=1e-10)


def test_one_demanding_request_changes_nothing_for_the_others():
    engine = Engine(NETWORK)
    engine.add(request("plain", PROMPTS[2]))
    engine.add(request("demanding", PROMPTS[3], repetition_penalty=1.5, min_new_tokens=5, stop_ids=(1, 2, 3)))
    news = run(engine)
    assert ids(news["plain", 0]) == Engine(NETWORK).generate([PROMPTS[2]], request("x").params)[0][0].ids
    assert not set(ids(news["demanding", 0])[:5]) & {1, 2, 3}


def test_streams_given_decide_instead_of_the_seed():
    engine = Engine(NETWORK)
    answers = []
    for name, seed, streams in (("a", 1, (5, 6)), ("b", 2, (5, 6)), ("c", 1, (6, 5))):
        params = SamplingParams(max_new_tokens=8, n=2, seed=seed)
        engine.add(Request(request_id=name, prompt_ids=PROMPTS[0], params=params, streams=streams))
        news = run(engine)
        answers.append([ids(news[name, sample]) for sample in range(2)])
    assert answers[0] == answers[1] == answers[2][::-1]
    assert answers[0][0] != answers[0][1]


# sleep


def test_sleep_frees_the_cache_and_running_requests_go_on_after_waking():
    wanted = Engine(NETWORK).generate(PROMPTS, SamplingParams(max_new_tokens=8, n=2))
    engine = Engine(NETWORK, runner=WatchedRunner(NETWORK))
    for number, prompt in enumerate(PROMPTS):
        engine.add(request(str(number), prompt, n=2))
    early = [update for _ in range(3) for update in engine.step()]
    engine.sleep()
    assert engine.runner._cache is None
    with pytest.raises(RunError, match=r"sleeps and has no cache; call wake\(\) first"):
        engine.step()
    engine.wake()
    news = run(engine)
    for number, group in enumerate(wanted):
        for sample, generation in enumerate(group):
            first = [u for u in early if (u.request_id, u.sample) == (str(number), sample)]
            assert ids([*first, *news[str(number), sample]]) == generation.ids


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="but 8 sequences want a token in every step"):
        EngineSettings(max_sequences=8, max_batch_tokens=7)
    with pytest.raises(ConfigError, match="max_waiting = 0 must be at least 1"):
        EngineSettings(max_waiting=0)
    assert BLOCK == 64
