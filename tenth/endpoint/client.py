"""Many questions to one endpoint: cached, bounded in number and money, asked again where that may help.

Why: this is where the parts meet in the one order that loses nothing: the money is put aside, the request
leaves, the reply is on disk, and only then is the money settled.
In:  `Ask`s.  Out: a `Reply` each, in order; those that came to nothing say so in `error`.
Raises BudgetExceeded or EndpointError when going on makes no sense; what was on its way is waited for, and
everything that was paid for stays in the cache, so the same call goes on where it stopped.
Not here: one request (http.py), many samples of one conversation (responder.py).
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.errors import ConfigError, EndpointError, TenthError
from tenth.base.records import AskParams, Finish, Message, Reply, Usage
from tenth.base.seeds import stream_random
from tenth.endpoint.budget import Budget
from tenth.endpoint.cache import ReplyCache, reply_key
from tenth.endpoint.http import Connection
from tenth.endpoint.retry import HOPELESS, Failure, wait_before_retry
from tenth.endpoint.settings import EndpointSettings
from tenth.endpoint.wire import Said, most_prompt_tokens, request_body

_POLL_SECONDS = 0.02  # how often another holder of a key, or the money on its way, is looked at
_INTERRUPTED = "insufficient_system_resource"  # DeepSeek's: it gave up; another time it may not
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One sample of one conversation."""

    messages: tuple[Message, ...]
    params: AskParams
    sample: int = 0


@dataclass(slots=True)
class Counts:
    """What this client has done so far."""

    num_replies: int = 0  # usable ones
    num_cached: int = 0  # of those, found on disk
    num_requests: int = 0  # sent, again or for the first time
    num_failed: int = 0  # asks that came to nothing


class EndpointClient:
    """One endpoint and the directory of what it has answered."""

    def __init__(self, settings: EndpointSettings, directory: Path) -> None:
        self.settings, self.directory = settings, directory
        self.cache = ReplyCache(directory)
        self.budget = Budget(directory, limit_usd=settings.budget_usd)
        self.counts = Counts()

    @property
    def spent_usd(self) -> float:
        """Of this directory, in all its life."""
        return self.budget.spent_usd

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """A reply to each. Nothing is sent for what the cache has."""
        for each in asks:
            if each.params.max_tokens is None and self.settings.budget_usd is not None:
                raise ConfigError(
                    f"the budget of ${self.settings.budget_usd:.6g} cannot be kept where an answer may be of "
                    "any length; set max_tokens."
                )
        return _run(_Round(self, asks).run())


class _Round:
    """One call of `ask`: some workers and one list of things to do."""

    def __init__(self, client: EndpointClient, asks: Sequence[Ask]) -> None:
        self._client, self._settings, self._counts = client, client.settings, client.counts
        self._asks = asks
        self._todo = iter(range(len(asks)))
        self._replies: list[Reply | None] = [None] * len(asks)
        self._end: TenthError | None = None  # why there is no use in going on
        self._failed_in_row = 0

    async def run(self) -> list[Reply]:
        settings = self._settings
        key, most_open = settings.key(), settings.concurrency
        async with Connection(settings.url, key=key, limits=settings.limits, most_open=most_open) as http:
            workers = (self._work(http) for _ in range(min(most_open, len(self._asks))))
            await asyncio.gather(*workers)
        if self._end is not None:
            raise self._end
        return [reply for reply in self._replies if reply is not None]

    async def _work(self, http: Connection) -> None:
        for number in self._todo:
            try:
                reply = await self._reply(self._asks[number], http)
            except _Over:
                return
            except TenthError as error:
                self._end = self._end or error
                return
            self._replies[number] = reply
            if reply.error is None:
                self._counts.num_replies += 1
            else:
                self._counts.num_failed += 1

    async def _reply(self, ask: Ask, http: Connection) -> Reply:
        settings, cache = self._settings, self._client.cache
        key = reply_key(settings.place, settings.model, ask.messages, ask.params, sample=ask.sample)
        while True:
            found = cache.get(key)
            if found is not None:
                self._counts.num_cached += 1
                return found
            with cache.hold(key) as is_ours:
                if is_ours and cache.get(key) is None:
                    return await self._fetched(ask, key, http)
            await self._pause(_POLL_SECONDS)

    async def _fetched(self, ask: Ask, key: str, http: Connection) -> Reply:
        """Asked for until it comes or there is no use in asking."""
        random = stream_random(ask.params.seed, "retry", key)
        num_failures = num_unusable = 0
        while True:
            try:
                reply = await self._paid(ask, key, http)
            except Failure as failure:
                num_failures += 1
                num_unusable += failure.may_be_billed
                seconds = wait_before_retry(
                    failure,
                    self._settings.patience,
                    num_failures=num_failures,
                    num_unusable=num_unusable,
                    random=random,
                )
                if seconds is None:
                    return self._given_up(failure)
                await self._pause(seconds)
            else:
                self._failed_in_row = 0
                return reply

    async def _paid(self, ask: Ask, key: str, http: Connection) -> Reply:
        """One request, with its money put aside before and settled after."""
        settings, budget = self._settings, self._client.budget
        most_usd = _most_usd(ask, settings)
        name = budget.reserve(most_usd)
        while name is None:
            await self._pause(_POLL_SECONDS)
            name = budget.reserve(most_usd)
        body = request_body(
            ask.messages,
            ask.params,
            model=settings.model,
            sample=ask.sample,
            is_streaming=settings.is_streaming,
        )
        begin = time.perf_counter()
        is_settled = False
        try:
            self._counts.num_requests += 1
            said = await http.ask(body)
            usd = _usd(said.usage, settings, most_usd=most_usd)
            if said.finish != _INTERRUPTED:
                reply = _to_reply(said, usd=usd, seconds=time.perf_counter() - begin)
                self._client.cache.put(key, reply, request=_shown(body))
            budget.settle(name, usd)
            is_settled = True
        except Failure as failure:
            if not failure.may_be_billed:
                budget.settle(name, 0.0)
                is_settled = True
            raise
        finally:
            if not is_settled:
                budget.leave(name)
        if said.finish == _INTERRUPTED:
            raise Failure(f"gave up ({_INTERRUPTED})", may_be_billed=usd > 0)
        if settings.budget_usd is not None and usd > most_usd:
            raise EndpointError(
                f"{settings.base_url} billed {said.usage} although max_tokens was {ask.params.max_tokens}, "
                "so no budget can be kept; some count thoughts apart: set max_tokens to more than it billed."
            )
        return reply

    def _given_up(self, failure: Failure) -> Reply:
        """The failure as a reply, unless it ends everything."""
        sentence = f"{self._settings.base_url} {failure}"
        if failure.status == 402:
            raise EndpointError(
                f"{sentence}: the account is empty; every reply that was paid for stays in "
                f"{self._client.directory}, so top up and ask again."
            )
        if failure.status in HOPELESS:
            raise EndpointError(
                f"{sentence}; check the address, the model '{self._settings.model}' and {self._key_place()}."
            )
        if failure.status not in (400, 413, 422):  # those are about one conversation
            self._failed_in_row += 1
        if self._failed_in_row > 2 * self._settings.concurrency:
            raise EndpointError(
                f"{sentence}; {self._failed_in_row} questions in a row came to nothing, so this stops here: "
                "ask again when the endpoint is well; what was answered stays in "
                f"{self._client.directory}."
            )
        return Reply(text="", reasoning=None, finish=Finish.ERROR, error=f"{sentence}.")

    def _key_place(self) -> str:
        """Where the key came from, in words."""
        variable = self._settings.key_variable
        if variable is not None:
            return f"the key in {variable}"
        return "the key: none was sent (--key-env, or key_variable in a recipe, names where it is)"

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not longer than this round lasts."""
        end = time.monotonic() + seconds
        while self._end is None:
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, 10 * _POLL_SECONDS))
        raise _Over


class _Over(Exception):  # noqa: N818
    """Another worker found that there is no use in going on."""


def _most_usd(ask: Ask, settings: EndpointSettings) -> float:
    if settings.prices is None:
        return 0.0
    return settings.prices.most_usd(
        prompt_tokens=most_prompt_tokens(ask.messages), completion_tokens=ask.params.max_tokens or 0
    )


def _usd(usage: Usage | None, settings: EndpointSettings, *, most_usd: float) -> float:
    """What it cost; the most that it can have cost, where the endpoint does not tell."""
    if settings.prices is None:
        return 0.0
    return most_usd if usage is None else settings.prices.usd(usage)


def _to_reply(said: Said, *, usd: float, seconds: float) -> Reply:
    finish = _FINISHES.get(said.finish, Finish.ERROR)
    error = None
    if finish is Finish.ERROR:  # it will say so again, so this is kept like an answer
        error = f"the endpoint ended the answer with '{said.finish}', which is no answer in text."
    return Reply(
        text=said.text,
        reasoning=said.reasoning,
        finish=finish,
        usage=said.usage or Usage(),
        seconds=seconds,
        usd=usd,
        error=error,
    )


def _shown(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("stream", "stream_options")}


def _run(work: Coroutine[Any, Any, list[Reply]]) -> list[Reply]:
    """To its end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
