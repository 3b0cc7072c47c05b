import asyncio
import json
import os
import re
import threading

import pytest
from asking import KEY_VARIABLE, QUICK, SHORT, ask, client_of, user
from server import FINE, Act, Server, error

from tenth.base.errors import ConfigError, EndpointError
from tenth.base.records import AskParams, Finish, Usage
from tenth.endpoint.client import EndpointClient
from tenth.endpoint.responder import EndpointResponder
from tenth.endpoint.settings import EndpointSettings, Limits


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, Server().key)


def served(*acts: Act, **settings) -> Server:
    return Server(script=acts, **settings)


# what comes back


@pytest.mark.parametrize("is_streaming", [False, True])
def test_a_reply_is_what_the_endpoint_said_and_counted(tmp_path, is_streaming):
    act = Act(num_keep_alives=3)
    with served(act, answer=lambda messages: ("3 and 4 are 7.", "答案是 \\boxed{7}")) as server:
        (reply,) = ask(client_of(server, tmp_path, is_streaming=is_streaming), "3+4?")
    assert (reply.reasoning, reply.text, reply.finish) == ("3 and 4 are 7.", "答案是 \\boxed{7}", Finish.STOP)
    # a token is a byte: 14 of thought, 10 + 9 of text (three characters of 3 bytes, a blank, 9), the end
    completion = 14 + 19 + 1
    assert reply.error is None
    prompt_tokens = len(json.dumps([{"role": "user", "content": "3+4?"}]))
    assert reply.usage == Usage(
        prompt_tokens=prompt_tokens, completion_tokens=completion, reasoning_tokens=14
    )


def test_each_conversation_gets_its_n_replies_in_order_from_different_seeds(tmp_path):
    def answer(messages, body):
        return None, f"{messages[0]['content']} {body['seed']}"

    with Server(answer=answer) as server:
        responder = EndpointResponder(client_of(server, tmp_path))
        replies = responder.respond([user("a"), user("b"), user("a")], AskParams(n=3, max_tokens=50))
    texts = [[reply.text for reply in each] for each in replies]
    assert [[text[0] for text in each] for each in texts] == [["a"] * 3, ["b"] * 3, ["a"] * 3]
    assert len(set(texts[0] + texts[2])) == 6  # asked twice, a gets further samples


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_may_have_its_v1_or_not(tmp_path, suffix):
    with Server() as server:
        settings = EndpointSettings(base_url=server.url + suffix, model="m", key_variable=KEY_VARIABLE)
        assert ask(EndpointClient(settings, tmp_path), "hello")[0].text == "hello"


def test_an_answer_cut_off_by_its_length_says_so(tmp_path):
    with Server() as server:
        (reply,) = ask(client_of(server, tmp_path), "hello", params=AskParams(max_tokens=8))
    assert (reply.finish, reply.text, reply.reasoning) == (Finish.LENGTH, "", "They say")


def test_tags_in_the_content_are_thinking_too(tmp_path):
    with served(Act(thinks_in_content=True)) as server:
        (reply,) = ask(client_of(server, tmp_path), "hello")
    assert (reply.reasoning, reply.text) == ("They say hello.", "hello")


def test_it_works_where_a_loop_is_running_already(tmp_path):
    async def notebook():
        return ask(client_of(server, tmp_path), "hello")[0].text

    with Server() as server:
        assert asyncio.run(notebook()) == "hello"


def test_no_more_requests_are_on_their_way_than_allowed(tmp_path):
    together = threading.Barrier(3)  # nobody is answered before three are there

    def act(number, body):
        together.wait(timeout=60)
        return FINE

    with Server(script=act) as server:
        ask(client_of(server, tmp_path, concurrency=3), *map(str, range(12)))
    assert server.max_concurrent == 3


# faults that pass


@pytest.mark.parametrize(
    "act",
    [
        *(error(status) for status in (408, 409, 429, 500, 503)),
        error(429, retry_after="0.001"),
        error(503, retry_after_ms="1"),
        Act(cut_bytes=0),
        Act(cut_bytes=60),
        Act(body=b"data: {garbage\n\n"),
        Act(body=b"", content_type="application/json"),
        Act(body=b'{"choices": [{"message": {"content"', content_type="application/json"),
        Act(body=b"<html>502</html>", content_type="text/html"),
        Act(stream_error="the node went away"),
        Act(finish="insufficient_system_resource"),
        Act(finish=None),
        Act(headers={"content-encoding": "gzip"}),
    ],
)
@pytest.mark.parametrize("is_streaming", [False, True])
def test_a_fault_that_passes_is_asked_again_and_the_answer_is_the_right_one(tmp_path, act, is_streaming):
    if act.stream_error and not is_streaming:
        pytest.skip("only a stream can break off so")
    with served(act) as server:
        (reply,) = ask(client_of(server, tmp_path, is_streaming=is_streaming), "hello")
    assert (reply.text, reply.error) == ("hello", None)
    assert len(server.requests) == 2


def test_a_fault_that_stays_is_an_error_in_the_reply_and_the_others_are_answered(tmp_path):
    def act(number, body):
        return error(500) if "bad" in body["messages"][0]["content"] else FINE

    with Server(script=act) as server:
        good, bad = ask(client_of(server, tmp_path), "good", "bad")
    assert good.text == "good"
    assert bad.error == f"{server.url} answered 500 (Server Error)."
    assert bad.finish is Finish.ERROR
    assert len(server.requests) == 1 + 1 + QUICK.max_retries


@pytest.mark.parametrize("status", [400, 422])
def test_a_question_that_is_refused_is_asked_once_and_concerns_nobody_else(tmp_path, status):
    with served(error(status)) as server:
        first, second = ask(client_of(server, tmp_path, concurrency=1), "one", "two")
    assert str(status) in (first.error or "")
    assert second.text == "two"
    assert len(server.requests) == 2


def test_an_answer_that_is_withheld_is_an_error_that_is_kept_like_an_answer(tmp_path):
    with served(Act(finish="content_filter")) as server:
        client = client_of(server, tmp_path)
        (first,), (second,) = ask(client, "x"), ask(client, "x")
    assert "content_filter" in (first.error or "")
    assert first == second
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("variable", "named"), [(KEY_VARIABLE, f"the key in {KEY_VARIABLE}"), (None, "--key-env")]
)
def test_a_refused_key_is_named_by_where_it_came_from(tmp_path, variable, named):
    with served(error(401)) as server, pytest.raises(EndpointError, match=re.escape(named)):
        ask(client_of(server, tmp_path, key_variable=variable), "x")


def test_a_connection_that_closes_early_is_not_called_unreachable(tmp_path):
    with Server(script=lambda *_: Act(cut_bytes=20)) as server:
        (reply,) = ask(client_of(server, tmp_path), "x")
    assert "broke off before its answer was whole" in (reply.error or "")


def test_an_endpoint_that_is_not_there_is_given_up_with_a_sentence(tmp_path):
    with Server() as server:
        client = client_of(server, tmp_path, concurrency=1)
    assert "could not be reached" in (ask(client, "hello")[0].error or "")
    with pytest.raises(EndpointError, match="3 questions in a row came to nothing"):
        ask(client, *"abcdef")


# limits


@pytest.mark.parametrize(
    ("act", "limits", "sentence"),
    [
        (Act(wait_seconds=0.3), {"header_seconds": 0.05}, "sent nothing for 0.05 s"),
        (Act(gap_seconds=0.3), {"idle_seconds": 0.05}, "fell silent for 0.05 s"),
        (Act(gap_seconds=0.01, num_keep_alives=99), {"total_seconds": 0.1}, "longer than 0.1 s"),
        (Act(num_keep_alives=999), {"max_bytes": 5000}, "more than 5,000 bytes"),
    ],
)
def test_no_endpoint_takes_more_time_or_memory_than_it_may(tmp_path, act, limits, sentence):
    with served(act, act) as server:
        (reply,) = ask(client_of(server, tmp_path, limits=Limits(**limits)), "hello")
    assert sentence in (reply.error or "")


# faults that do not pass


def test_an_empty_account_ends_everything_and_keeps_what_was_paid_for(tmp_path):
    def act(number, body):
        return error(402) if number >= 2 else FINE

    with Server(script=act) as server:
        client = client_of(server, tmp_path, concurrency=1)
        with pytest.raises(EndpointError, match=r"402 \(Insufficient Balance\): the account is empty"):
            ask(client, *"abcdef")
        assert len(server.requests) == 3
        server.script = ()
        assert [reply.text for reply in ask(client, *"abcdef")] == list("abcdef")
        assert len(server.requests) == 3 + 4


def test_the_key_is_in_no_error_and_no_file_even_where_the_server_quotes_it(tmp_path, monkeypatch):
    def tells(messages):
        return None, "the key is sk-wrong-777"

    with Server(answer=tells, key="sk-wrong-777") as server:
        client = client_of(server, tmp_path)
        monkeypatch.setenv(KEY_VARIABLE, "sk-other-888")
        with pytest.raises(EndpointError, match="401") as caught:
            ask(client, "hello")
        monkeypatch.setenv(KEY_VARIABLE, "sk-wrong-777")
        assert ask(client, "hello")[0].text == "the key is [key]"
    assert "sk-" not in str(caught.value)
    assert KEY_VARIABLE in str(caught.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"sk-" in path.read_bytes()]


@pytest.mark.parametrize("key", ["", "  ", "two words", "schlüssel", "a\nb"])
def test_a_key_that_is_none_is_refused_before_anything_is_sent_and_not_shown(tmp_path, monkeypatch, key):
    monkeypatch.setitem(os.environ, KEY_VARIABLE, key)
    with Server() as server:
        with pytest.raises(ConfigError, match=KEY_VARIABLE) as caught:
            ask(client_of(server, tmp_path), "hello")
        assert not server.requests
    assert not key.strip() or key not in str(caught.value)


def test_no_key_is_sent_elsewhere_by_a_redirect(tmp_path):
    with Server() as other, served(Act(status=307, headers={"location": other.url}, body=b"")) as server:
        (reply,) = ask(client_of(server, tmp_path), "hello")
        assert not other.requests
    assert "answered 307" in (reply.error or "")


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"base_url": url}
            for url in ("", "api.deepseek.com", "ftp://x", "http://", "http://a b", "http://[")
        ),
        *({"base_url": url} for url in ("http://a..b", "https://me:secret@host", "http://host?key=secret")),
        *({"model": ""}, {"concurrency": 0}, {"budget_usd": 0.0}, {"budget_usd": 1.0}),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(settings):
    with pytest.raises(ConfigError) as caught:
        EndpointSettings(**{"base_url": "https://api.deepseek.com", "model": "m"} | settings)
    assert "secret" not in str(caught.value)


def test_nothing_to_ask_is_no_replies(tmp_path):
    with Server() as server:
        assert EndpointResponder(client_of(server, tmp_path)).respond([], SHORT) == []
