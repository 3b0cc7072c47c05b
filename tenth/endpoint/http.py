"""One request to one endpoint: out comes what it said, or a `Failure` that tells what may be done about it.

Why: whatever a stranger's server does, it takes bounded time and memory here, and the key stays out of every
text that leaves this file.
In:  a request's body.  Out: `Said`, or a Failure.
Not here: asking again (retry.py, client.py), what the bytes mean (wire.py), money (budget.py).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import httpx

from tenth.endpoint.retry import Failure, told_wait_seconds
from tenth.endpoint.settings import Limits
from tenth.endpoint.wire import EventLines, Said, StreamedReply, WireError, fault_text, parse_whole

_MAX_FAULT_BYTES = 1 << 16
_MAX_FINISH_CHARS = 40
_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Connection:
    """An open pool of connections to one endpoint; use it as an asynchronous context."""

    def __init__(self, url: str, *, key: str | None, limits: Limits, most_open: int) -> None:
        self._url, self._key, self._limits = url, key, limits
        # Compressed, a small reply may become a large one: none is asked for, and none is taken.
        headers = {"accept-encoding": "identity", "user-agent": "tenth"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            limits=httpx.Limits(max_connections=most_open),
            timeout=httpx.Timeout(limits.idle_seconds, connect=limits.connect_seconds, read=None, pool=None),
            follow_redirects=False,  # the key is for this place and no other
        )

    async def __aenter__(self) -> "Connection":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._client.__aexit__(*failure)

    async def ask(self, body: Mapping[str, Any]) -> Said:
        """The answer to `body`; a Failure in every other case."""
        try:
            async with asyncio.timeout(self._limits.total_seconds):
                return self._without_key(await self._ask(body))
        except TimeoutError as error:
            raise Failure(f"took longer than {self._limits.total_seconds:g} s", may_be_billed=True) from error
        except WireError as error:
            raise Failure(self._hidden(str(error)), may_be_billed=True) from error
        except httpx.HTTPError as error:
            what = self._hidden(str(error)) or type(error).__name__
            has_left = not isinstance(error, _NEVER_LEFT)
            how = "broke off before its answer was whole" if has_left else "could not be reached"
            raise Failure(f"{how} ({what})", may_be_billed=has_left) from error

    async def _ask(self, body: Mapping[str, Any]) -> Said:
        content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        headers = {"content-type": "application/json"}
        request = self._client.build_request("POST", self._url, content=content, headers=headers)
        try:
            async with asyncio.timeout(self._limits.header_seconds):
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise WireError(f"sent nothing for {self._limits.header_seconds:g} s") from error
        try:
            if response.status_code != 200:
                raise await self._refusal(response)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise WireError("sent a compressed reply that was not asked for")
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return await self._streamed(response)
            return parse_whole(b"".join([chunk async for chunk in self._chunks(response)]))
        finally:
            await response.aclose()

    async def _streamed(self, response: httpx.Response) -> Said:
        lines, reply = EventLines(), StreamedReply()
        async for chunk in self._chunks(response):
            for event in lines.feed(chunk):
                reply.add(event)
            if reply.is_done:
                return reply.take()
        for event in lines.end():
            reply.add(event)
        return reply.take()

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it arrives, within the limits."""
        chunks, num_bytes = response.aiter_raw(), 0
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_seconds):
                    chunk = await anext(chunks, b"")
            except TimeoutError as error:
                raise WireError(f"fell silent for {self._limits.idle_seconds:g} s") from error
            if not chunk:
                return
            num_bytes += len(chunk)
            if num_bytes > self._limits.max_bytes:
                raise WireError(f"sent more than {self._limits.max_bytes:,} bytes")
            yield chunk

    async def _refusal(self, response: httpx.Response) -> Failure:
        data = bytearray()
        try:
            async for chunk in self._chunks(response):
                data += chunk
                if len(data) >= _MAX_FAULT_BYTES:
                    break
        except (WireError, httpx.HTTPError):
            pass  # the status says enough
        text = self._hidden(fault_text(bytes(data[:_MAX_FAULT_BYTES])))
        told = response.headers.get("x-should-retry")
        return Failure(
            f"answered {response.status_code}" + (f" ({text})" if text else ""),
            status=response.status_code,
            wait_seconds=told_wait_seconds(response.headers),
            should_retry=None if told not in ("true", "false") else told == "true",
        )

    def _without_key(self, said: Said) -> Said:
        reasoning = None if said.reasoning is None else self._hidden(said.reasoning)
        finish = self._hidden(said.finish)[:_MAX_FINISH_CHARS]
        return replace(said, text=self._hidden(said.text), reasoning=reasoning, finish=finish)

    def _hidden(self, text: str) -> str:
        """Some servers quote the key that they were shown."""
        return text if self._key is None else text.replace(self._key, "[key]")
