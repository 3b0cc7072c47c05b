"""A faithful DeepSeek-shaped endpoint on loopback, scripted to misbehave; counts requests and money.

    with Server(answer=lambda messages: ("3+4=7", "The answer is 7.")) as server:
        ...  # ask server.url; the key is server.key
        server.requests, server.num_answered, server.usd

`answer` maps messages to (reasoning or None, content); it may take the request's body as second argument.
`script` is what the first requests meet, one `Act` each, in the order they arrive; or a function
(number of the request, its body) -> Act. After the script every request is simply answered. Tests of other
directories reach it with sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint")).

What it does is what DeepSeek's documents say: both /chat/completions and /v1/chat/completions, usage with
hits and misses in units of 64 tokens, error bodies of OpenAI's shape, empty lines before JSON and
`: keep-alive` in streams, an empty first chunk of reasoning, usage in the last chunk. A token is a byte here.
Money is what a provider takes: whole answers, and what was written until a connection broke.
"""

import dataclasses
import inspect
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MESSAGES = {
    400: "Invalid request body format",
    401: "Authentication Fails, Your api key: {key} is invalid",  # real ones quote it, too
    402: "Insufficient Balance",
    404: "Not Found",
    422: "Invalid parameters",
    429: "Rate Limit Reached",
    500: "Server Error",
    503: "Server Overloaded",
}
HIT_USD, MISS_USD, OUTPUT_USD = 0.14, 0.55, 2.19  # deepseek-reasoner per million, February 2025


@dataclass(frozen=True, kw_only=True)
class Act:
    """How one request is treated; what is not said is as it should be."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # sent as it is, whatever was asked
    content_type: str | None = None
    finish: str | None = "stop"
    usage: Any = None  # instead of the true one
    has_usage: bool = True
    thinks_in_content: bool = False  # <think> in the content, no reasoning_content
    num_keep_alives: int = 0  # empty lines before JSON, comments in a stream
    wait_seconds: float = 0.0  # before the headers
    gap_seconds: float = 0.0  # between pieces
    cut_bytes: int | None = None  # the connection closes after so many bytes of the body; 0: none
    stream_error: str | None = None  # an error object in the middle of the stream


FINE = Act()


def error(status: int, **headers: str) -> Act:
    """A refusal; `retry_after="1"` becomes the header `retry-after`."""
    return Act(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


def echo(messages: Sequence[Mapping[str, str]]) -> tuple[str | None, str]:
    """Thinks about and repeats the last message."""
    return f"They say {messages[-1]['content']}.", messages[-1]["content"]


class Server:
    """Listens while the block lasts."""

    def __init__(
        self,
        answer: Callable[..., tuple[str | None, str]] = echo,
        *,
        script: Sequence[Act] | Callable[[int, dict[str, Any]], Act] = (),
        key: str = "sk-loopback-0123456789",
        context_tokens: int = 65536,
    ) -> None:
        self.answer, self.script, self.key, self.context_tokens = answer, script, key, context_tokens
        self.takes_body = len(inspect.signature(answer).parameters) > 1
        self.requests: list[Asked] = []
        self.num_answered = 0  # whole answers sent
        self.answered: Counter[str] = Counter()  # the same by body
        self.usd = 0.0
        self.max_concurrent = 0
        self._num_open, self._prefixes, self._lock = 0, set[bytes](), threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.server = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def begin(self, asked: Asked) -> Act:
        with self._lock:
            number = len(self.requests)
            self.requests.append(asked)
            self._num_open += 1
            self.max_concurrent = max(self.max_concurrent, self._num_open)
        if callable(self.script):
            return self.script(number, asked.body)
        return self.script[number] if number < len(self.script) else FINE

    def end(self) -> None:
        with self._lock:
            self._num_open -= 1

    def say(self, body: dict[str, Any]) -> tuple[str | None, str]:
        return self.answer(body["messages"], body) if self.takes_body else self.answer(body["messages"])

    def usage(
        self, body: dict[str, Any], reasoning: str | None, content: str, *, is_cut: bool
    ) -> dict[str, Any]:
        """DeepSeek's: prompt = hit + miss, cached = hit, reasoning <= completion."""
        prompt = json.dumps(body["messages"], ensure_ascii=False).encode()
        ends = range(64, len(prompt) + 1, 64)
        with self._lock:
            hit = max((end for end in ends if prompt[:end] in self._prefixes), default=0)
            self._prefixes.update(prompt[:end] for end in ends)
        thought = len((reasoning or "").encode())
        completion = thought + len(content.encode()) + int(not is_cut)  # the end token
        return {
            "prompt_tokens": len(prompt),
            "completion_tokens": completion,
            "total_tokens": len(prompt) + completion,
            "prompt_tokens_details": {"cached_tokens": hit},
            "completion_tokens_details": {"reasoning_tokens": thought},
            "prompt_cache_hit_tokens": hit,
            "prompt_cache_miss_tokens": len(prompt) - hit,
        }

    def bill(self, body: dict[str, Any], usage: Mapping[str, Any], *, is_whole: bool) -> None:
        usd = (
            HIT_USD * usage["prompt_cache_hit_tokens"]
            + MISS_USD * usage["prompt_cache_miss_tokens"]
            + OUTPUT_USD * usage["completion_tokens"]
        ) / 1e6
        with self._lock:
            self.usd += usd
            self.num_answered += is_whole
            self.answered[json.dumps(body, sort_keys=True)] += is_whole


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    server: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests hang up; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if self.path.removeprefix("/v1") == "/models":
            model = {"id": "deepseek-reasoner", "object": "model", "owned_by": "deepseek"}
            self._send_json(200, {"object": "list", "data": [model]}, Act())
        else:
            self._refuse(404, Act())

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.removeprefix("/v1") != "/chat/completions":
            self._refuse(404, Act())
            return
        try:
            body = json.loads(raw)
        except ValueError:
            self._refuse(400, Act())
            return
        server = self.server.server
        act = server.begin(Asked(path=self.path, headers=dict(self.headers), body=body))
        try:
            time.sleep(act.wait_seconds)
            self._answer(server, body, act)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            server.end()

    def _answer(self, server: Server, body: dict[str, Any], act: Act) -> None:
        if self.headers.get("authorization") != f"Bearer {server.key}":
            self._refuse(401, act)
            return
        if act.body is not None:
            content_type = act.content_type or ("text/event-stream" if body.get("stream") else None)
            self._send(act.status, [act.body], act, content_type=content_type)
            return
        if act.status != 200:
            self._refuse(act.status, act)
            return
        fault = _fault(body)
        if fault:
            self._refuse(fault[0], act, message=fault[1])
            return
        reasoning, content, is_cut = _limited(*server.say(body), limit=body.get("max_tokens", 32768))
        act = dataclasses.replace(act, finish="length") if is_cut else act
        usage = server.usage(body, reasoning, content, is_cut=is_cut)
        if usage["prompt_tokens"] > server.context_tokens:
            self._refuse(400, act, message="This model's maximum context length is exceeded.")
            return
        try:
            if act.thinks_in_content:
                reasoning, content = None, f"<think>{reasoning}</think>{content}"
            send = self._stream if body.get("stream") else self._whole
            is_whole = send(body, act, reasoning, content, usage)
        except OSError:
            server.bill(body, usage, is_whole=False)
            raise
        server.bill(body, usage, is_whole=is_whole)

    def _whole(
        self, body: dict[str, Any], act: Act, reasoning: str | None, content: str, usage: dict[str, Any]
    ) -> bool:
        message = {"role": "assistant", "content": content, "refusal": None}
        if reasoning is not None:
            message["reasoning_content"] = reasoning
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": act.finish}
        reply = _head(body, "chat.completion") | {"choices": [choice]}
        if act.has_usage:
            reply["usage"] = usage if act.usage is None else act.usage
        pieces = [b"\n"] * act.num_keep_alives + [json.dumps(reply).encode()]
        return self._send(200, pieces, act)

    def _stream(
        self, body: dict[str, Any], act: Act, reasoning: str | None, content: str, usage: dict[str, Any]
    ) -> bool:
        first: dict[str, Any] = {"role": "assistant", "content": None if reasoning is not None else ""}
        deltas = [first if reasoning is None else first | {"reasoning_content": ""}]
        deltas += [{"content": None, "reasoning_content": each} for each in _cut(reasoning or "")]
        silent = {} if reasoning is None else {"reasoning_content": None}
        deltas += [{"content": each} | silent for each in _cut(content)]
        pieces = [b": keep-alive\n\n"] * act.num_keep_alives
        for delta in deltas:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            chunk = _head(body, "chat.completion.chunk") | {"choices": [choice]}
            pieces += [_event(chunk), b": keep-alive\n\n"]
        if act.stream_error is not None:
            pieces.insert(len(pieces) // 2, _event({"error": {"message": act.stream_error, "code": 500}}))
        choice = {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": act.finish}
        last = _head(body, "chat.completion.chunk") | {"choices": [choice]}
        if act.has_usage and (body.get("stream_options") or {}).get("include_usage"):
            last["usage"] = usage if act.usage is None else act.usage
        pieces += [_event(last), b"data: [DONE]\n\n"]
        is_whole = self._send(200, pieces, act, content_type="text/event-stream")
        return is_whole and act.stream_error is None

    def _refuse(self, status: int, act: Act, *, message: str | None = None) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        text = message or MESSAGES.get(status, "Unexpected").format(key=key)
        fault = {"message": text, "type": "error", "param": None, "code": str(status)}
        self._send_json(status, {"error": fault}, act)

    def _send_json(self, status: int, value: Any, act: Act) -> None:
        self._send(status, [json.dumps(value).encode()], act)

    def _send(
        self, status: int, pieces: Sequence[bytes], act: Act, *, content_type: str | None = None
    ) -> bool:
        """Chunked; whether all of it was sent."""
        self.send_response(status)
        self.send_header("content-type", act.content_type or content_type or "application/json")
        self.send_header("transfer-encoding", "chunked")
        for name, value in act.headers.items():
            self.send_header(name, value)
        self.end_headers()
        left = act.cut_bytes
        for piece in pieces:
            part = piece if left is None else piece[:left]
            if part:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                self.wfile.flush()
            if left is not None and len(part) == left:
                self.close_connection = True
                return False
            left = None if left is None else left - len(part)
            time.sleep(act.gap_seconds)
        self.wfile.write(b"0\r\n\r\n")
        return True


def _fault(body: dict[str, Any]) -> tuple[int, str] | None:
    """What DeepSeek refuses, and with which status."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(body.get("model"), str):
        return 400, "messages and model are needed"
    if any("reasoning_content" in each for each in messages):
        return 400, "reasoning_content is not allowed in input messages"
    if "stream_options" in body and not body.get("stream"):
        return 400, "stream_options is only allowed with stream"
    max_tokens = body.get("max_tokens", 1)
    if not isinstance(max_tokens, int) or not 1 <= max_tokens <= 65536:
        return 422, f"max_tokens = {max_tokens} is out of range"
    return None


def _limited(reasoning: str | None, content: str, *, limit: int) -> tuple[str | None, str, bool]:
    """Thinking counts, and so does the end token; a token is a byte."""
    thought, said = (reasoning or "").encode(), content.encode()
    if len(thought) + len(said) < limit:
        return reasoning, content, False
    kept_thought, kept = thought[:limit], said[: max(limit - len(thought), 0)]
    cut = kept_thought.decode(errors="ignore")
    return (None if reasoning is None else cut), kept.decode(errors="ignore"), True


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "loopback",
        "object": kind,
        "created": 1738000000,
        "model": body["model"],
        "system_fingerprint": "fp_loopback_fp8_kvcache",
    }


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _cut(text: str, *, size: int = 7) -> list[str]:
    return [text[begin : begin + size] for begin in range(0, len(text), size)]
