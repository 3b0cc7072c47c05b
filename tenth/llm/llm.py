"""`LLM`: a model directory that answers, from Python.

Why: this is the door for people who want text. Scripts call `generate` or `chat` and wait; a terminal reads
`stream`.
In:  prompts as text or token ids, or messages.
Out: one `Output` per prompt, in order; or `Piece`s as they are written.
Not here: many callers at once (async_llm.py), HTTP.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch

from tenth.base.errors import ConfigError, QueueFull
from tenth.base.records import Message
from tenth.engine.request import SamplingParams
from tenth.engine.sequence import sample_streams
from tenth.engine.settings import EngineSettings
from tenth.llm.loading import load_requests
from tenth.llm.outputs import Gathered, Output, Piece
from tenth.llm.text_requests import Prompt, Stops, TextRequest, TextRequests
from tenth.tokenizer.chat import ChatTemplate


class LLM:
    """A loaded model. Not for several threads at once; that is `AsyncLLM`."""

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
        self._sinks: dict[str, Callable[[Piece], None]] = {}  # by request: where its pieces go

    @property
    def context_tokens(self) -> int:
        """How long a prompt and its answer may be together."""
        return self.requests.engine.max_tokens

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        ignore_eos: bool = False,
        adapter: str | None = None,
    ) -> list[Output]:
        """`params.n` samples for every prompt. Nothing starts if any prompt is too long. `adapter` is one of
        those loaded; None: the base alone.

        A prompt's answer depends on the prompt, `params` and how often it came before in this call, never on
        its companions.
        """
        stops = Stops(strings=stop, include=include_stop, ignore_eos=ignore_eos)
        times_seen: Counter[tuple[int, ...]] = Counter()
        asked = []
        for number, prompt in enumerate(_as_list(prompts)):
            ids = self.requests.prompt_ids(prompt)
            streams = sample_streams(ids, params, time=times_seen[ids])
            times_seen[ids] += 1
            name = f"prompt {number}"
            asked.append(
                self.requests.prepare(ids, params, stops=stops, name=name, streams=streams, adapter=adapter)
            )
        return self._run(asked)

    def chat(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        params: SamplingParams,
        *,
        template: ChatTemplate | None = None,
        prefill: str = "",
        stop: Sequence[str] = (),
        include_stop: bool = False,
        adapter: str | None = None,
    ) -> Output:
        """Answer a conversation. `prefill` begins the answer, such as "<think>\\n"; it is not repeated.

        Without `template` it is written as the model's directory says.
        """
        prompt = self.render(messages, template=template, prefill=prefill)
        return self.generate([prompt], params, stop=stop, include_stop=include_stop, adapter=adapter)[0]

    def render(
        self,
        messages: Sequence[Message | Mapping[str, str]],
        *,
        template: ChatTemplate | None = None,
        prefill: str = "",
    ) -> list[int]:
        """A conversation as a prompt, for `stream` too: ids up to the place where the assistant speaks."""
        return self.requests.render(messages, template=template, prefill=prefill)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        adapter: str | None = None,
    ) -> Generator[Piece, None, None]:
        """Pieces as they are written, samples interleaved. Closing the generator aborts the rest."""
        stops = Stops(strings=stop, include=include_stop)
        asked = self.requests.prepare(prompt, params, stops=stops, name="the prompt", adapter=adapter)
        return self._pieces(asked)

    def close(self) -> None:
        """Give memory back, and keep on disk what `spill_dir` is there for."""
        self.requests.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _pieces(self, asked: TextRequest) -> Generator[Piece, None, None]:
        arrived, num_open = deque[Piece](), asked.num_samples
        try:
            self._add(asked, arrived.append)
            while num_open:
                while not arrived:
                    self._step()
                piece = arrived.popleft()
                num_open -= piece.finish is not None
                yield piece
        finally:
            self._forget(asked)

    def _run(self, asked: Sequence[TextRequest]) -> list[Output]:
        todo = deque(asked)
        gathered = [Gathered(each.num_samples) for each in asked]
        try:
            while not all(each.is_finished for each in gathered):
                while todo and self._is_added(todo[0], gathered[len(asked) - len(todo)]):
                    todo.popleft()
                self._step()
        finally:
            for each in asked:
                self._forget(each)
        return [
            Output(prompt_ids=each.request.prompt_ids, samples=tuple(whole.take()))
            for each, whole in zip(asked, gathered, strict=True)
        ]

    def _is_added(self, asked: TextRequest, gathered: Gathered) -> bool:
        """Whether the engine's queue had a place for it."""
        try:
            self._add(asked, gathered.add)
        except QueueFull:
            if not self.requests.has_work:  # waiting would not help
                raise
            return False
        return True

    def _add(self, asked: TextRequest, sink: Callable[[Piece], None]) -> None:
        self.requests.add(asked)
        self._sinks[asked.key] = sink

    def _step(self) -> None:
        for key, piece in self.requests.step():
            self._sinks[key](piece)

    def _forget(self, asked: TextRequest) -> None:
        self.requests.abort(asked.key)  # does nothing where it has ended
        self._sinks.pop(asked.key, None)


def _as_list(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    num_ids = sum(isinstance(each, int) for each in prompts)
    if num_ids not in (0, len(prompts)):
        raise ConfigError("prompts mixes token ids with texts; give a list of texts or of lists of ids.")
    return [prompts] if num_ids else prompts  # type: ignore[list-item,return-value]  # which one, we know now
