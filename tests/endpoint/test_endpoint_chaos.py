"""Whatever goes wrong at random, replies are right or errors, and the money holds."""

import threading
from random import Random

import pytest
from asking import KEY_VARIABLE, PRICES, ask, client_of
from hypothesis import given, settings
from hypothesis import strategies as st
from server import FINE, Act, Server, error

from tenth.base.errors import BudgetExceeded, EndpointError
from tenth.endpoint.settings import Limits

TEXTS = [f"question {number}" for number in range(12)]
FAULTS = (
    *(error(status) for status in (400, 408, 409, 422, 429, 500, 503)),
    error(429, retry_after="0.001"),
    *(Act(cut_bytes=cut) for cut in (0, 1, 100, 700, 1500)),
    Act(body=b"data: {\n\n"),
    Act(body=b"\x00\xff" * 99, content_type="application/json"),
    Act(stream_error="gone"),
    Act(finish="insufficient_system_resource"),
    Act(has_usage=False),
    Act(num_keep_alives=5),
    Act(gap_seconds=0.5),
)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, Server().key)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32), share=st.floats(0, 0.9), budget=st.floats(0.001, 0.02), streams=st.booleans()
)
def test_every_reply_is_right_or_an_error_and_the_money_holds(tmp_path_factory, seed, share, budget, streams):
    random, lock = Random(seed), threading.Lock()

    def act(number, body):
        with lock:
            return random.choice(FAULTS) if random.random() < share else FINE

    directory = tmp_path_factory.mktemp("chaos")
    pressed = {"prices": PRICES, "concurrency": 5, "limits": Limits(idle_seconds=0.05)}
    with Server(script=act) as server:
        for _ in range(3):  # a run, and two that go on from it
            client = client_of(server, directory, budget_usd=budget, is_streaming=streams, **pressed)
            try:
                replies = ask(client, *TEXTS)
            except (BudgetExceeded, EndpointError):
                continue
            finally:
                assert server.usd <= client.spent_usd * (1 + 1e-9) <= budget * (1 + 1e-9)
            for text, reply in zip(TEXTS, replies, strict=True):
                assert reply.error or (reply.text, reply.reasoning) == (text, f"They say {text}.")
        server.script = ()
        num_before = len(server.requests)
        kept = len(list(directory.glob("*/*.json")))
        rich = client_of(server, directory, is_streaming=streams, budget_usd=1.0, prices=PRICES)
        assert [reply.text for reply in ask(rich, *TEXTS)] == TEXTS
        assert len(server.requests) - num_before == len(TEXTS) - kept  # nothing that was kept is paid again
