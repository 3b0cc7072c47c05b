"""`AsyncLLM`: one model, many callers at once, from an event loop.

Why: a server answers hundreds of people from one engine. Each request is a task that reads its own pieces;
all of them share the engine's steps, and none of them waits in the loop.
In:  prompts as text or token ids, `SamplingParams`, stop strings.
Out: `Piece`s as they are written, or one `Output`. A task that is cancelled, and a stream that is closed,
abort their request.
Not here: the thread (engine_thread.py), HTTP, who may ask for how much.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import torch

from tenth.base.errors import ConfigError
from tenth.base.records import Message
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.llm.engine_thread import EngineThread, Mailbox
from tenth.llm.loading import load_requests
from tenth.llm.outputs import Gathered, Output, Piece
from tenth.llm.text_requests import Prompt, StepEngine, Stops, TextRequest, TextRequests
from tenth.tokenizer.chat import ChatTemplate

T = TypeVar("T")


class AsyncLLM:
    """A loaded model for many tasks of one event loop. Close it, or use it with `async with`."""

    def __init__(
        self,
        model_dir: Path | str,
        *,
        dtype: torch.dtype = torch.bfloat16,
        settings: EngineSettings | None = None,
        adapters: Mapping[str, Path | str] | None = None,
    ) -> None:
        self._begin(load_requests(model_dir, dtype=dtype, settings=settings, adapters=adapters))

    @classmethod
    def over(cls, requests: TextRequests) -> Self:
        """The same over parts that are already there."""
        llm = cls.__new__(cls)
        llm._begin(requests)
        return llm

    def _begin(self, requests: TextRequests) -> None:
        self.requests, self.tokenizer, self.config = requests, requests.tokenizer, requests.config
        self._thread = EngineThread(requests)
        self._keys: dict[str, str] = {}  # request id -> what the engine calls it
        self._numbers = itertools.count()

    @property
    def engine(self) -> StepEngine:
        """To be used through `call` only: `await llm.call(llm.engine.stats)`."""
        return self.requests.engine

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        ignore_eos: bool = False,
        priority: int = 0,
        request_id: str | None = None,
        adapter: str | None = None,
    ) -> AsyncIterator[Piece]:
        """Pieces as they are written, samples interleaved. What cannot be run raises here, at once.

        The request starts with the first piece that is asked for; there, a full queue raises QueueFull.
        """
        self._thread.check()
        name = f"request {next(self._numbers)}" if request_id is None else request_id
        if name in self._keys:
            raise ConfigError(f"request_id = {name} is under way already; give every request its own.")
        stops = Stops(strings=stop, include=include_stop, ignore_eos=ignore_eos)
        asked = self.requests.prepare(
            prompt, params, stops=stops, name=name, priority=priority, adapter=adapter
        )
        return self._pieces(asked, name)

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        ignore_eos: bool = False,
        priority: int = 0,
        request_id: str | None = None,
        adapter: str | None = None,
    ) -> Output:
        """The whole of what `stream` brings."""
        gathered = Gathered(params.n)
        async for piece in self.stream(
            prompt,
            params,
            stop=stop,
            include_stop=include_stop,
            ignore_eos=ignore_eos,
            priority=priority,
            request_id=request_id,
            adapter=adapter,
        ):
            gathered.add(piece)
        return Output(prompt_ids=self.requests.prompt_ids(prompt), samples=tuple(gathered.take()))

    async def render(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        template: ChatTemplate | None = None,
        prefill: str = "",
    ) -> list[int]:
        """A conversation as a prompt, written as the model's directory says or as `template` does.

        Awaited: a foreign template is rendered by another process, and a bad one may take seconds.
        """
        return await asyncio.to_thread(self.requests.render, messages, template=template, prefill=prefill)

    def abort(self, request_id: str) -> None:
        """End a request: its stream brings what is certain, with Finish.ABORTED. One that has ended is left
        alone."""
        if request_id in self._keys:
            self._thread.abort(self._keys[request_id])

    async def call(self, action: Callable[[], T]) -> T:
        """Run something in the engine's thread, between two steps."""
        return await asyncio.wrap_future(self._thread.call(action))

    async def drain(self) -> None:
        """Refuse new requests, wait for those under way, then close."""
        self._thread.drain()
        await asyncio.to_thread(self._thread.join)

    async def close(self) -> None:
        """Refuse new requests and abort those under way. Twice is the same as once."""
        self._thread.close()
        await asyncio.to_thread(self._thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _pieces(self, asked: TextRequest, name: str) -> AsyncIterator[Piece]:
        mailbox, num_open = (
            Mailbox(asyncio.get_running_loop(), num_samples=asked.num_samples),
            asked.num_samples,
        )
        self._keys[name] = asked.key
        self._thread.add(asked, mailbox)
        try:
            while num_open:
                for piece in await mailbox.take():
                    num_open -= piece.finish is not None
                    yield piece
        finally:
            self._keys.pop(name, None)
            self._thread.abort(asked.key)  # does nothing where it has ended
