"""Requests in text over an engine in token ids: prompts in, pieces of answers out.

Why: a batch call, a stream and a server differ in who waits for what; what they ask of the engine, and what
they make of its updates, is the same and is here.
In:  a prompt as text or ids, `SamplingParams`, stop strings.
Out: `Piece`s, as soon as their text is certain. A stop string ends its own sample only, and the ids end with
the token that completed it, however many the engine had drawn ahead.
Not here: waiting (llm.py, async_llm.py), what templates write (tokenizer/chat.py).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenth.base.records import Finish, Message
from tenth.engine.request import Request, SamplingParams, Update
from tenth.engine.stats import EngineStats
from tenth.llm.detokenizer import build_detokenizer
from tenth.llm.outputs import Piece
from tenth.llm.stop_strings import StopStrings
from tenth.model.config import ModelConfig
from tenth.tokenizer.chat import ChatTemplate, Template, render_prompt
from tenth.tokenizer.tokenizer import Tokenizer

Prompt = str | Sequence[int]


class StepEngine(Protocol):
    """What is needed of an engine (engine/engine.py); all but `check` is called from one thread."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        ...

    @property
    def max_tokens(self) -> int:
        """How long a prompt and its answer may be together, by the model's context and by the cache."""
        ...

    def check(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, name: str, adapter: str | None = None
    ) -> None:
        """Raise what is wrong with a prompt; called from any thread."""
        ...

    def add(self, request: Request) -> None:
        """Queue a request."""
        ...

    def abort(self, request_id: str, sample: int | None = None) -> None:
        """End one sample of a request, or all of them; an unknown one is ignored."""
        ...

    def step(self) -> list[Update]:
        """Compute one step."""
        ...

    def stats(self) -> EngineStats:
        """How it is doing."""
        ...

    def close(self) -> None:
        """Give memory back; keep on disk what is to be found again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """What ends an answer besides the stop ids and the number of tokens."""

    strings: Sequence[str] = ()
    include: bool = False  # the stop string, or the stop id's text, is shown
    ignore_eos: bool = False  # only for measuring: the end token does not end the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """A checked request that may be added."""

    request: Request
    stops: StopStrings

    @property
    def key(self) -> str:
        """What the engine calls it; no other request of this process does."""
        return self.request.request_id

    @property
    def num_samples(self) -> int:
        """How many answers will end."""
        return self.request.params.n


class TextRequests:
    """The requests under way in one engine. `prepare` may be called from any thread, the rest from one."""

    def __init__(
        self,
        engine: StepEngine,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        template: ChatTemplate = Template.PLAIN,
    ) -> None:
        """`template` is how conversations are written for this model where nobody says otherwise."""
        self.engine, self.tokenizer, self.config, self.template = engine, tokenizer, config, template
        self._open: dict[str, dict[int, _Sample]] = {}
        self._numbers = itertools.count()

    def prepare(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        stops: Stops,
        name: str,
        priority: int = 0,
        streams: tuple[int, ...] | None = None,
        adapter: str | None = None,
    ) -> TextRequest:
        """A request whose every fault has been found. `name` is for messages and need not be unique."""
        ids = self.prompt_ids(prompt)
        if not stops.ignore_eos:
            stop_ids = tuple(dict.fromkeys((*params.stop_ids, *self.tokenizer.eos_ids)))
            params = dataclasses.replace(params, stop_ids=stop_ids)
        self.engine.check(ids, params, name=name, adapter=adapter)
        request = Request(
            # Unique, so that no late update of an aborted request meets a new one of the same name.
            request_id=f"{name} ({next(self._numbers)})",
            prompt_ids=ids,
            params=params,
            priority=priority,
            streams=streams,
            adapter=adapter,
        )
        request.check_vocabulary(self.config.vocab_size)
        return TextRequest(request=request, stops=StopStrings(stops.strings, include_stop=stops.include))

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Ids as they are; of a text, the ids behind the token that begins a document, where there is one.

        Special tokens may be written out. For what strangers wrote, render a conversation instead.
        """
        if not isinstance(prompt, str):
            return tuple(prompt)
        ids, bos_id = self.tokenizer.encode(prompt), self.tokenizer.bos_id
        return tuple(ids if bos_id is None or ids[:1] == [bos_id] else [bos_id, *ids])

    def render(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        template: ChatTemplate | None,
        prefill: str,
    ) -> list[int]:
        """A conversation as a prompt: ids up to the place where the assistant speaks."""
        turns = [each if isinstance(each, Message) else Message.from_dict(each) for each in messages]
        return render_prompt(self.tokenizer, turns, template=template or self.template, prefill=prefill)

    def add(self, asked: TextRequest) -> None:
        """Hand it to the engine, or raise what the engine raises: QueueFull, for one."""
        self.engine.add(asked.request)
        self._open[asked.request.request_id] = {
            number: _Sample(number, asked, self.tokenizer) for number in range(asked.request.params.n)
        }

    def abort(self, request_id: str) -> list[Piece]:
        """End a request; what its open samples still held back. One that has ended is left alone."""
        samples = self._open.pop(request_id, {})
        if samples:
            self.engine.abort(request_id)
        return [sample.end(Finish.ABORTED) for sample in samples.values()]

    @property
    def has_work(self) -> bool:
        """Whether a request is under way."""
        return bool(self._open)

    def step(self) -> list[tuple[str, Piece]]:
        """One step of the engine: (request id, piece) for every sample that got tokens."""
        if self._open and not self.engine.has_work:
            raise RuntimeError(
                f"the engine lost {len(self._open)} requests, such as '{next(iter(self._open))}'"
            )
        pieces: list[tuple[str, Piece]] = []
        for update in self.engine.step():
            samples = self._open.get(update.request_id, {})
            if update.sample not in samples:  # aborted while the step ran
                continue
            piece = samples[update.sample].take(update)
            if piece.finish is not None:
                del samples[update.sample]
                if not samples:
                    del self._open[update.request_id]
                if update.finish is None:  # the engine cannot know of a stop string
                    self.engine.abort(update.request_id, update.sample)
            pieces.append((update.request_id, piece))
        return pieces


class _Sample:
    """One answer on its way from ids to text."""

    def __init__(self, number: int, asked: TextRequest, tokenizer: Tokenizer) -> None:
        params = asked.request.params
        self._number, self._num_ids = number, 0
        self._hidden_ids = frozenset() if asked.stops.include_stop else frozenset(params.stop_ids)
        self._min_new_tokens = params.min_new_tokens
        self._detokenizer, self._watch = build_detokenizer(tokenizer), asked.stops.watch()

    def take(self, update: Update) -> Piece:
        """The next ids."""
        text, kept, finish = [], 0, update.finish
        for token_id in update.ids:
            kept += 1
            ends_here = finish is Finish.STOP and kept == len(update.ids)
            if not (ends_here and token_id in self._hidden_ids):
                text.append(self._show(token_id))
            if self._watch.found is not None:
                finish = Finish.STOP
                break
        if finish is not None and self._watch.found is None:
            text.append(self._rest())
            finish = finish if self._watch.found is None else Finish.STOP
        return Piece(
            sample=self._number,
            text="".join(text),
            ids=update.ids[:kept],
            logprobs=update.logprobs[:kept],
            top_logprobs=update.top_logprobs[:kept],
            finish=finish,
            stop=self._watch.found,
            cached_tokens=update.cached_tokens,
            error=update.error,
        )

    def end(self, finish: Finish) -> Piece:
        """No ids will follow."""
        return Piece(sample=self._number, text=self._rest(), ids=(), logprobs=(), finish=finish)

    def _show(self, token_id: int) -> str:
        self._num_ids += 1
        text = self._detokenizer.feed(token_id)
        # As for stop ids: an answer that has to be longer does not stop yet.
        return text if self._num_ids <= self._min_new_tokens else self._watch.feed(text)

    def _rest(self) -> str:
        return self._watch.feed(self._detokenizer.flush()) + self._watch.flush()
