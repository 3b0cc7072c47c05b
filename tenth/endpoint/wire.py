"""What goes over the wire and what comes back, as pure functions: bodies, JSON replies, event streams.

Why: replies are a stranger's. Whatever arrives, it becomes a `Said` or one `WireError`, in memory that
grows with what arrived only.
In:  messages and `AskParams`; bytes.  Out: a request's body; `Said`.
The shapes are DeepSeek's (api-docs.deepseek.com, create-chat-completion), which are OpenAI's plus
`reasoning_content` and cache counts. Not here: sockets and limits (http.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from tenth.base.records import AskParams, Message, Usage
from tenth.base.seeds import stream_seed

_MAX_COUNT = 1 << 40  # tokens; more is no count
_THINK, _END_THINK = "<think>", "</think>"
DONE = "[DONE]"
MAX_JSON_BYTES = 8 << 20  # small values take twenty times their text in memory; no answer is as long


class WireError(Exception):
    """These bytes are no answer. Its message continues a sentence: "the endpoint ..."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One whole answer as it came."""

    text: str
    reasoning: str | None
    finish: str  # in the endpoint's word
    usage: Usage | None  # None: it did not tell, or nothing that can be counted


def request_body(
    messages: Sequence[Message], params: AskParams, *, model: str, sample: int, is_streaming: bool
) -> dict[str, Any]:
    """The body that asks for one sample. Samples differ by their seed."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": str(each.role), "content": each.content} for each in messages],
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": stream_seed(params.seed, "sample", sample) >> 32,  # 31 bits: every server's integer
    }
    if params.max_tokens is not None:
        body["max_tokens"] = params.max_tokens
    if params.stop:
        body["stop"] = list(params.stop)
    if is_streaming:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """More tokens than a prompt can have: none is shorter than a byte, and a turn has a few of its own."""
    return 64 + sum(32 + len(each.content.encode(errors="replace")) for each in messages)


def parse_whole(data: bytes) -> Said:
    """A reply in one piece; blank lines before it keep a connection alive (DeepSeek's rate-limit page)."""
    value = _object(data)
    choice = _choice(value)
    if choice is None:
        raise WireError("sent a reply without choices")
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise WireError("sent a choice without a message")
    content, reasoning = _text(message, "content"), _reasoning(message)
    return _said(content or "", reasoning, choice.get("finish_reason"), value.get("usage"))


class StreamedReply:
    """Adds up the events of one stream."""

    def __init__(self) -> None:
        self._content, self._reasoning = StringIO(), StringIO()
        self._finish: Any = None
        self._usage: Any = None
        self.is_done = False

    def add(self, event: str) -> None:
        """The data of the next event."""
        if self.is_done or event.startswith(DONE):
            self.is_done = True
            return
        if not event.strip():  # another way of keeping a connection alive
            return
        value = _object(event)
        self._usage = value.get("usage") or self._usage
        choice = _choice(value)
        if choice is None or choice.get("index", 0) != 0:
            return
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta")
        if delta is None:
            return
        if not isinstance(delta, Mapping):
            raise WireError("sent an event whose delta is no object")
        self._content.write(_text(delta, "content") or "")
        self._reasoning.write(_reasoning(delta) or "")

    def take(self) -> Said:
        """The answer, once the stream has ended."""
        if not self.is_done and self._finish is None:
            raise WireError("closed the stream in the middle of an answer")
        # DeepSeek's first chunk of reasoning is empty, for answers without a thought, too.
        reasoning = self._reasoning.getvalue() or None
        return _said(self._content.getvalue(), reasoning, self._finish, self._usage)


class EventLines:
    """Server-sent events (WHATWG HTML, section 9.2) from bytes that are cut anywhere: the data of each."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line that has not ended
        self._data: list[str] = []  # of an event that has not ended
        self._ended_by_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """Every event that is complete now."""
        if not chunk:
            return []
        if self._ended_by_cr:
            chunk = chunk.removeprefix(b"\n")  # the second half of CR LF
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._ended_by_cr = chunk.endswith(b"\r")
        if lines:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest = []
        self._rest.append(rest)
        return [event for line in lines for event in self._line(line)]

    def end(self) -> list[str]:
        """What was left: a last event that no blank line follows."""
        line = b"".join(self._rest)
        self._rest = []
        return [*self._line(line), *(self._line(b"") if line else [])]

    def _line(self, line: bytes) -> list[str]:
        if line:
            name, _, value = line.partition(b":")  # a comment begins with the colon
            if name == b"data":
                self._data.append(value.removeprefix(b" ").decode(errors="replace"))
            return []
        event, self._data = self._data, []
        return ["\n".join(event)] if event else []


def fault_text(data: bytes) -> str:
    """What the body of a refusal says, in at most 300 characters."""
    try:
        error = json.loads(data)["error"]
        text = error["message"] if isinstance(error, Mapping) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        text = data.decode(errors="replace")
    return " ".join(str(text).split())[:300].rstrip(".")


def _object(data: bytes | str) -> Mapping[str, Any]:
    if len(data) > MAX_JSON_BYTES:
        raise WireError(f"sent a JSON text of {len(data):,} bytes, more than any answer has")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError("sent what is not JSON, or only half of it") from error
    if not isinstance(value, Mapping):
        raise WireError("sent JSON that is no object")
    if value.get("error"):
        raise WireError(f"broke off: {fault_text(json.dumps(value).encode())}")
    return value


def _choice(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = value.get("choices")
    if not choices:  # the chunk that tells the usage
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], Mapping):
        raise WireError("sent choices that are no list of objects")
    return choices[0]


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """DeepSeek's name for it, or the one that newer servers prefer."""
    found = _text(message, "reasoning_content")
    return _text(message, "reasoning") if found is None else found


def _text(message: Mapping[str, Any], name: str) -> str | None:
    text = message.get(name)
    if text is not None and not isinstance(text, str):
        raise WireError(f"sent a {name} that is no text")
    return text


def _said(content: str, reasoning: str | None, finish: Any, usage: Any) -> Said:
    if not isinstance(finish, str):
        raise WireError("ended an answer without a finish reason")
    text, thought = _whole(content), None if reasoning is None else _whole(reasoning)
    if not thought:
        thought, text = _split(text)
    return Said(text=text, reasoning=thought, finish=finish, usage=_usage(usage))


def _whole(text: str) -> str:
    """JSON can escape half a character (a lone surrogate), which no file can hold."""
    return text.encode(errors="replace").decode()


def _split(content: str) -> tuple[str | None, str]:
    """Thinking and answer of a model that writes its tags itself; one cut off while thinking said nothing."""
    thinking, end, answer = content.partition(_END_THINK)
    if end or thinking.lstrip().startswith(_THINK):
        return thinking.lstrip().removeprefix(_THINK), answer
    return None, content


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, Mapping):
        return None
    prompt, completion = _count(value, "prompt_tokens"), _count(value, "completion_tokens")
    if prompt is None or completion is None:
        return None
    # Some count thoughts beside the completion, not in it; the total has them, and so does the bill.
    completion = max(completion, (_count(value, "total_tokens") or 0) - prompt)
    cached = _count(value, "prompt_cache_hit_tokens")
    if cached is None:
        cached = _count(value.get("prompt_tokens_details"), "cached_tokens") or 0
    reasoning = _count(value.get("completion_tokens_details"), "reasoning_tokens") or 0
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=min(cached, prompt),
        completion_tokens=completion,
        reasoning_tokens=min(reasoning, completion),
    )


def _count(value: Any, name: str) -> int | None:
    count = value.get(name) if isinstance(value, Mapping) else None
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count < _MAX_COUNT
    return count if is_count else None
