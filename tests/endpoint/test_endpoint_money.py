import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from asking import KEY_VARIABLE, PRICES, SHORT, ask, client_of, user
from hypothesis import given, settings
from hypothesis import strategies as st
from server import FINE, HIT_USD, MISS_USD, OUTPUT_USD, Act, Server, error

from tenth.base.errors import BudgetExceeded, ConfigError, RunError
from tenth.base.records import AskParams, Finish, Reply, Usage
from tenth.endpoint.budget import JOURNAL, Budget
from tenth.endpoint.cache import ReplyCache, reply_key
from tenth.endpoint.client import Ask
from tenth.endpoint.settings import Prices

CENT = {"prices": PRICES, "budget_usd": 0.01}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, Server().key)


# prices


def test_deepseeks_prices_of_february_2025_come_to_what_it_published():
    # DeepSeek, open-infra-index, day 6: 342 B tokens of hits, 266 B of misses and 168 B of output at R1's
    # prices of 0.14, 0.55 and 2.19 dollars would have been 562,027 dollars
    usage = Usage(
        prompt_tokens=608_000_000_000, cached_tokens=342_000_000_000, completion_tokens=168_000_000_000
    )
    assert PRICES.usd(usage) == pytest.approx(562_027, rel=1e-3)


@given(st.tuples(*[st.floats(0, 1000)] * 3), st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 10**6))
def test_no_answer_costs_more_than_the_most_it_can_cost(prices, prompt, share, completion):
    sold = Prices(hit_usd=prices[0], miss_usd=prices[1], output_usd=prices[2])
    usage = Usage(prompt_tokens=prompt, cached_tokens=int(share * prompt), completion_tokens=completion)
    most = sold.most_usd(prompt_tokens=prompt, completion_tokens=completion)
    assert sold.usd(usage) <= most * (1 + 1e-9)


# the budget


def test_what_a_client_books_is_what_the_provider_takes(tmp_path):
    with Server(script=[error(429), FINE, error(503)]) as server:
        client = client_of(server, tmp_path, **CENT)
        replies = ask(client, *"abc")
    assert client.spent_usd == pytest.approx(server.usd)
    assert sum(reply.usd for reply in replies) == pytest.approx(server.usd)


def test_the_budget_stops_before_the_request_that_could_exceed_it(tmp_path):
    # the most that "0" can cost: 64 + 32 + 1 tokens of prompt, 200 of output
    most = (97 * MISS_USD + 200 * OUTPUT_USD) / 1e6
    with Server() as server:
        client = client_of(server, tmp_path, prices=PRICES, budget_usd=1.5 * most, concurrency=4)
        with pytest.raises(BudgetExceeded) as caught:
            ask(client, *"0123456789")
        num_paid = server.num_answered
        assert 1 <= num_paid < 10
        assert server.usd <= 1.5 * most
        words = str(caught.value)
        assert f"${1.5 * most:.6g}" in words
        assert f"${client.spent_usd:.6g} is spent" in words
        assert str(tmp_path) in words
        # a restart has no fresh budget, what was paid for is still there, and more money goes on from it
        with pytest.raises(BudgetExceeded):
            ask(client_of(server, tmp_path, prices=PRICES, budget_usd=1.5 * most), *"0123456789")
        assert server.num_answered == num_paid
        ask(client_of(server, tmp_path, **CENT), *"0123456789")
        assert server.num_answered == 10


def test_a_request_waits_for_money_on_its_way_rather_than_to_give_up(tmp_path):
    budget = Budget(tmp_path, limit_usd=1.0)
    first = budget.reserve(0.7)
    assert first is not None
    assert budget.reserve(0.7) is None
    budget.settle(first, 0.1)
    assert budget.reserve(0.7) is not None


def test_an_answer_that_was_lost_counts_with_the_most_it_can_have_cost(tmp_path):
    with Server(script=[Act(cut_bytes=60)]) as server:
        client = client_of(server, tmp_path, **CENT)
        (reply,) = ask(client, "0")
    most = (97 * MISS_USD + 200 * OUTPUT_USD) / 1e6
    assert client.spent_usd == pytest.approx(most + reply.usd)
    assert client.spent_usd >= server.usd


def test_an_endpoint_that_does_not_count_is_booked_at_its_most(tmp_path):
    with Server(script=[Act(has_usage=False)]) as server:
        client = client_of(server, tmp_path, **CENT)
        ask(client, "0")
    assert client.spent_usd == pytest.approx((97 * MISS_USD + 200 * OUTPUT_USD) / 1e6)


def test_an_endpoint_that_bills_more_than_was_asked_for_is_stopped_after_one_answer(tmp_path):
    usage = {"prompt_tokens": 10, "completion_tokens": 5000}
    with Server(script=lambda number, body: Act(usage=usage)) as server:
        client = client_of(server, tmp_path, concurrency=1, **CENT)
        with pytest.raises(Exception, match="although max_tokens was 200"):
            ask(client, *"abc")
        assert len(server.requests) == 1
        assert client.spent_usd == pytest.approx((10 * MISS_USD + 5000 * OUTPUT_USD) / 1e6)


def test_a_budget_needs_a_longest_answer(tmp_path):
    with Server() as server:
        with pytest.raises(ConfigError, match="max_tokens"):
            ask(client_of(server, tmp_path, **CENT), "a", params=AskParams())
        assert not server.requests


def test_threads_together_never_reserve_more_than_there_is(tmp_path):
    budget = Budget(tmp_path, limit_usd=1.0)
    taken = []

    def take():
        try:
            while (name := budget.reserve(0.3)) is not None:
                taken.append(name)
        except BudgetExceeded:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 3


@settings(max_examples=25)
@given(st.integers(2, 400), st.binary(max_size=20))  # 1: the line is all there but for its end
def test_a_torn_or_spoilt_journal_never_forgets_a_whole_line(tmp_path_factory, cut, junk):
    directory = tmp_path_factory.mktemp("journal")
    budget = Budget(directory, limit_usd=None)
    for _ in range(5):
        budget.settle(str(budget.reserve(2.0)), 1.0)
    path = directory / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - min(cut, len(whole))] + junk.replace(b"\n", b""))
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    expected = sum({row["id"]: row["usd"] for row in rows}.values())
    again = Budget(directory, limit_usd=None)
    assert again.spent_usd >= expected
    again.settle("new", 7.0)
    assert Budget(directory, limit_usd=None).spent_usd >= expected + 7.0


def test_nobody_reserves_while_another_process_looks_at_the_journal(tmp_path):
    budget = Budget(tmp_path, limit_usd=1.0)
    assert budget.spent_usd == 0.0
    thread = threading.Thread(target=budget.reserve, args=(0.3,))
    with (tmp_path / JOURNAL).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive()
    thread.join()
    assert budget.spent_usd == pytest.approx(0.3)


def test_two_processes_share_one_budget(tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    workers = [context.Process(target=reserve_all, args=(tmp_path, together)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = (tmp_path / JOURNAL).read_bytes().splitlines()
    assert len(lines) == 333  # of 0.003 dollars, out of one


def reserve_all(directory: Path, together) -> None:
    budget = Budget(directory, limit_usd=1.0)
    together.wait(timeout=60)
    try:
        while budget.reserve(0.003) is not None:
            pass
    except BudgetExceeded:
        pass


# the cache


def test_nothing_is_paid_twice_and_more_samples_keep_the_first(tmp_path):
    with Server() as server:
        ask(client_of(server, tmp_path), "a", "b")
        ask(client_of(server, tmp_path), "b", "a", params=AskParams(n=3, max_tokens=200))
        ask(client_of(server, tmp_path, is_streaming=False, concurrency=1), "a", "b")
        assert len(server.requests) == 2 + 2 * 2


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0.5},
        {"top_p": 1.0},
        {"max_tokens": 199},
        {"seed": 1},
        {"stop": ("x",)},
    ],
)
def test_whoever_asks_differently_gets_an_answer_of_his_own(changed):
    one = reply_key("host/v1", "m", user("a"), SHORT, sample=0)
    assert reply_key("host/v1", "m", user("a"), AskParams(**{"max_tokens": 200} | changed), sample=0) != one
    assert reply_key("host/v1", "m", user("a"), AskParams(max_tokens=200, n=9), sample=0) == one


@settings(max_examples=30)
@given(st.data())
def test_a_damaged_entry_is_none_or_what_it_was(tmp_path_factory, data):
    cache, key = ReplyCache(tmp_path_factory.mktemp("cache")), "ab" * 16
    usage = Usage(prompt_tokens=9, completion_tokens=5)
    reply = Reply(text="7 ist \\boxed{7} 答", reasoning=None, finish=Finish.STOP, usage=usage, usd=0.1 + 0.2)
    cache.put(key, reply, request={"model": "m"})
    raw = bytearray(cache.path(key).read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    cache.path(key).write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    assert cache.get(key) in (None, reply)


@pytest.mark.parametrize(
    "damaged", [b'{"key": "', b'{"key": "x", "reply": 1}', b"\x00" * 99, b"[" * 99_999, None]
)
def test_a_damaged_entry_is_asked_for_again(tmp_path, damaged):
    with Server() as server:
        ask(client_of(server, tmp_path), "a")
        (path,) = tmp_path.glob("*/*.json")
        changed = path.read_bytes().replace(b'"text": "a"', b'"text": "b"')
        path.write_bytes(changed if damaged is None else damaged)
        assert ask(client_of(server, tmp_path), "a")[0].text == "a"
        assert len(server.requests) == 2


def test_who_wants_an_answer_that_is_on_its_way_waits_for_it(tmp_path):
    ask_a = Ask(messages=tuple(user("a")), params=SHORT)
    with Server(script=lambda number, body: Act(wait_seconds=0.05)) as server:
        assert [reply.text for reply in client_of(server, tmp_path).ask([ask_a] * 5)] == ["a"] * 5
        assert len(server.requests) == 1


def test_a_key_is_held_by_one_at_a_time_and_free_afterwards(tmp_path):
    cache, key = ReplyCache(tmp_path), "ab" * 16
    for _ in range(2):
        with cache.hold(key) as first, cache.hold(key) as second:
            assert (first, second) == (True, False)


def test_two_processes_that_want_the_same_pay_once(tmp_path):
    with Server(script=lambda number, body: Act(wait_seconds=0.05)) as server:
        asking = [asker(server, tmp_path) for _ in range(2)]
        assert [process.wait() for process in asking] == [0, 0]
        assert len(server.requests) == len(server.answered) == 8


def test_a_killed_process_has_lost_no_answer_that_it_wrote_and_forgotten_no_money(tmp_path):
    arrived = threading.Event()

    def act(number, body):
        if number == 3:
            arrived.set()
        return Act(wait_seconds=60.0) if number >= 3 and not is_killed else FINE

    is_killed = False
    with Server(script=act) as server:
        process = asker(server, tmp_path, concurrency=1)
        assert arrived.wait(timeout=60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        is_killed = True
        client = client_of(server, tmp_path, **CENT)
        most = (97 * MISS_USD + 200 * OUTPUT_USD) / 1e6  # of the one that was on its way
        assert client.spent_usd == pytest.approx(server.usd + most)
        assert [reply.text for reply in ask(client, *"01234567")] == list("01234567")
        assert server.num_answered == 8


def asker(server: Server, directory: Path, **given) -> subprocess.Popen[bytes]:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from asking import PRICES, ask, client_of\n"
        f"server = SimpleNamespace(url={server.url!r})\n"
        f"client = client_of(server, Path({str(directory)!r}), prices=PRICES, budget_usd=0.01, **{given!r})\n"
        "assert [reply.text for reply in ask(client, *'01234567')] == list('01234567')\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_directory_that_cannot_be_written_is_one_sentence_before_anything_is_paid(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with Server() as server:
        with pytest.raises(RunError, match="another directory"):
            ask(client_of(server, tmp_path / "file", **CENT), "a")
        assert not server.requests


def test_hits_of_the_providers_cache_cost_less(tmp_path):
    text = "x" * 200
    with Server() as server:
        client = client_of(server, tmp_path, concurrency=1, **CENT)
        first, second = ask(client, text, text)
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 192)  # whole units of 64
    assert first.usd - second.usd == pytest.approx(192 * (MISS_USD - HIT_USD) / 1e6)
