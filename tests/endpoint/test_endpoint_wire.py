import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.records import AskParams, Message, Role, Usage
from tenth.endpoint.wire import (
    EventLines,
    Said,
    StreamedReply,
    WireError,
    fault_text,
    most_prompt_tokens,
    parse_whole,
    request_body,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
# An answer, of whose parts any may be something else entirely.
FIELDS = ("choices", "usage", "error", "message", "delta", "content", "reasoning_content", "finish_reason")


def whole(message: dict, *, finish="stop", **rest) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"choices": [choice], **rest}).encode()


def streamed(*events: str) -> Said:
    reply = StreamedReply()
    for event in events:
        reply.add(event)
    return reply.take()


def chunk(finish=None, **delta) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


# whole replies


def test_deepseeks_documented_reply_is_read_to_the_last_count():
    # the usage of a real reply, with the reasoner's details
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 11,
        "total_tokens": 111,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 7},
        "prompt_cache_hit_tokens": 64,
        "prompt_cache_miss_tokens": 36,
    }
    data = whole({"role": "assistant", "content": "7", "reasoning_content": "3+4"}, usage=usage)
    counted = Usage(prompt_tokens=100, cached_tokens=64, completion_tokens=11, reasoning_tokens=7)
    assert parse_whole(b"\n\n\n" + data) == Said(text="7", reasoning="3+4", finish="stop", usage=counted)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 0, 2, 0)),
        # OpenAI's names; and one that counts 30 thoughts beside the 2, as its total of 37 shows
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 37}
            | {"completion_tokens_details": {"reasoning_tokens": 30}},
            (5, 0, 32, 30),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 99}, (5, 5, 2, 0)),
    ],
)
def test_usage_keeps_its_invariants_whatever_an_endpoint_counts(usage, expected):
    counted = parse_whole(whole({"content": "x"}, usage=usage)).usage
    assert counted is not None
    assert tuple(counted.to_dict().values()) == expected


@pytest.mark.parametrize(
    "usage", [None, [], {"prompt_tokens": "5"}, {"prompt_tokens": -1}, {"total_tokens": 3}]
)
def test_usage_that_cannot_be_counted_is_none(usage):
    assert parse_whole(whole({"content": "x"}, usage=usage)).usage is None


@pytest.mark.parametrize(
    ("content", "reasoning", "text"),
    [
        ("<think>3+4</think>7", "3+4", "7"),
        ("3+4</think>7", "3+4", "7"),  # the prompt held the opening tag
        ("<think>3+4 and then", "3+4 and then", ""),  # never closed: it has said nothing
        ("7", None, "7"),
    ],
)
def test_thinking_that_stands_in_the_content_is_taken_out(content, reasoning, text):
    said = parse_whole(whole({"content": content}))
    assert (said.reasoning, said.text) == (reasoning, text)


def test_an_answer_without_content_has_an_empty_text():
    assert parse_whole(whole({"content": None, "reasoning_content": "hm"}, finish="length")).text == ""


def test_half_a_character_is_replaced_so_that_every_file_can_hold_the_text():
    assert (
        parse_whole(rb'{"choices": [{"message": {"content": "a\ud800"}, "finish_reason": "stop"}]}').text
        == "a?"
    )


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"<html>502</html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"choices": []}'),
        *(b'{"choices": {"0": 1}}', b'{"choices": [1]}', b'{"choices": [{}]}'),
        *(whole({"content": 7}), whole({"content": ["7"]}), whole({"content": "7"}, finish=None)),
        whole({"content": "7"})[:-2],
        b'{"error": {"message": "overloaded"}}',
        b'{"choices": [' + b"[]," * 3_000_000 + b"[]]}",  # 9 MB that would become 200 in memory
    ],
)
def test_what_is_no_reply_is_one_error(data):
    with pytest.raises(WireError):
        parse_whole(data)


@given(st.recursive(JSON, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner | st.lists(inner))))
def test_no_json_does_anything_but_answer_or_fail_as_foreseen(value):
    for parse in (lambda: parse_whole(json.dumps(value).encode()), lambda: streamed(json.dumps(value))):
        try:
            said = parse()
        except WireError:
            continue
        assert isinstance(said.text, str)


# streams


def test_a_stream_says_what_its_pieces_say_together():
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    events = [
        chunk(role="assistant", content=None, reasoning_content=""),
        chunk(content=None, reasoning_content="3+"),
        chunk(content=None, reasoning_content="4"),
        chunk(content="se", reasoning_content=None),
        chunk(content="ven"),
        chunk("stop"),
        usage,
        "[DONE]",
        "anything after the end",
    ]
    counted = Usage(prompt_tokens=3, completion_tokens=4)
    assert streamed(*events) == Said(text="seven", reasoning="3+4", finish="stop", usage=counted)


def test_an_empty_first_piece_of_reasoning_opens_no_thought():
    assert (
        streamed(chunk(reasoning_content="", content=""), chunk("stop", content="7"), "[DONE]").reasoning
        is None
    )


def test_a_stream_that_ends_without_done_is_whole_only_with_a_finish_reason():
    assert streamed(chunk(content="7"), chunk("stop")).text == "7"
    with pytest.raises(WireError, match="middle of an answer"):
        streamed(chunk(content="7"))


def test_an_error_in_the_middle_of_a_stream_is_told_in_its_own_words():
    with pytest.raises(WireError, match="broke off: the node went away"):
        streamed(chunk(content="7"), json.dumps({"error": {"message": "the node went away"}}))


EVENTS = st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=9))


@given(EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_are_the_same_however_their_bytes_are_cut(events, end, data):
    parts = [f": keep-alive{end}{end}data: {event}{end}id: 7{end}{end}" for event in events]
    raw = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    lines = EventLines()
    found = [
        event
        for begin, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)
        for event in lines.feed(raw[begin:stop])
    ]
    assert found + lines.end() == events


def test_an_event_of_two_lines_is_one_text_and_a_last_one_needs_no_blank_line():
    lines = EventLines()
    assert lines.feed(b"data: a\ndata:b\n\ndata: c") == ["a\nb"]
    assert lines.end() == ["c"]
    assert [*lines.feed(b"data: d\r"), *lines.feed(b"\ndata: e\r\n\r\n")] == ["d\ne"]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_events(raw):
    lines = EventLines()
    for event in [*lines.feed(raw), *lines.end()]:
        assert isinstance(event, str)


# requests


def test_samples_of_one_conversation_differ_by_their_seed_alone():
    messages = [Message(role=Role.USER, content="q")]
    params = AskParams(n=2, max_tokens=5, stop=("\n",))
    bodies = [
        request_body(messages, params, model="m", sample=sample, is_streaming=False) for sample in range(2)
    ]
    seeds = [body.pop("seed") for body in bodies]
    assert bodies[0] == bodies[1]
    assert bodies[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "temperature": 0.6,
        "top_p": 0.95,
        "max_tokens": 5,
        "stop": ["\n"],
    }
    assert seeds[0] != seeds[1]
    assert all(0 <= seed < 2**31 for seed in seeds)


@given(st.text())
def test_a_prompt_is_never_taken_for_shorter_than_its_bytes(text):
    assert most_prompt_tokens([Message(role=Role.USER, content=text)]) > len(text.encode(errors="replace"))


def test_a_refusal_is_told_briefly_whatever_its_body_is():
    assert fault_text(b'{"error": {"message": "Insufficient Balance."}}') == "Insufficient Balance"
    assert fault_text(b'{"error": "no"}') == "no"
    assert fault_text(b"<h1>\n502</h1>") == "<h1> 502</h1>"
    assert len(fault_text(b"x" * 100_000)) == 300
