"""An engine without a network: its updates are written down beforehand. It keeps the real one's contract."""

from collections.abc import Mapping, Sequence

from tenth.base.errors import ConfigError, QueueFull
from tenth.base.records import Finish
from tenth.engine.request import Request, SamplingParams, Update
from tenth.llm.text_requests import TextRequests
from tenth.model.config import GqaConfig, ModelConfig
from tenth.tokenizer.chat import Template
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

CONTEXT = 200
TOKENIZER: Tokenizer = train_bpe(["The answer is 42. User: Assistant: hello world"] * 4, vocab_size=300)


def config_for(tokenizer: Tokenizer) -> ModelConfig:
    return ModelConfig(
        name="scripted",
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=8),
        max_position_embeddings=CONTEXT,
    )


class ScriptedEngine:
    """Every sample of a prompt that ends with `key` says `answers[key]`, then eos; or babbles "a"s.

    `per_step` ids come per step and sample, as with speculation; `max_requests` bounds the queue.
    """

    def __init__(
        self,
        answers: Mapping[str, str | Sequence[str]],
        *,
        tokenizer: Tokenizer = TOKENIZER,
        per_step: int = 1,
        max_requests: int = 1000,
    ) -> None:
        self.tokenizer, self.per_step, self.max_requests = tokenizer, per_step, max_requests
        self.answers = answers
        self.requests: list[Request] = []  # everything that was ever added
        self.aborted: list[tuple[str, int | None]] = []
        self.num_steps = 0
        self.is_closed = False
        self._todo: dict[tuple[str, int], list[int]] = {}
        self._request_of: dict[str, Request] = {}

    max_tokens = CONTEXT

    @property
    def has_work(self) -> bool:
        return bool(self._todo)

    def close(self) -> None:
        self.is_closed = True

    def check(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, name: str, adapter: str | None = None
    ) -> None:
        if not prompt_ids:
            raise ConfigError(f"{name} is empty; give at least one token.")
        if len(prompt_ids) + params.max_new_tokens > CONTEXT:
            raise ConfigError(f"{name} is too long.")

    def add(self, request: Request) -> None:
        if len({request_id for request_id, _ in self._todo}) >= self.max_requests:
            raise QueueFull("the queue is full; try again later.")
        assert request.request_id not in self._request_of, "a request id was used twice"
        self.requests.append(request)
        self._request_of[request.request_id] = request
        for sample in range(request.params.n):
            self._todo[request.request_id, sample] = self._answer(request, sample)

    def abort(self, request_id: str, sample: int | None = None) -> None:
        self.aborted.append((request_id, sample))
        for key in list(self._todo):
            if key[0] == request_id and sample in (None, key[1]):
                del self._todo[key]

    def step(self) -> list[Update]:
        self.num_steps += 1
        return [self._advance(*key) for key in list(self._todo)]

    def _answer(self, request: Request, sample: int) -> list[int]:
        prompt = self.tokenizer.decode(request.prompt_ids)
        for key, texts in self.answers.items():
            if prompt.endswith(key):
                text = texts if isinstance(texts, str) else texts[sample]
                return [*self.tokenizer.encode(text), self.tokenizer.eos_id]
        return self.tokenizer.encode("a") * request.params.max_new_tokens

    def _advance(self, request_id: str, sample: int) -> Update:
        params = self._request_of[request_id].params
        rest = self._todo[request_id, sample]
        ids, rest[:] = rest[: self.per_step], rest[self.per_step :]
        is_stop = bool(ids) and ids[-1] in params.stop_ids
        finish = Finish.STOP if is_stop else Finish.LENGTH if not rest else None
        if finish:
            del self._todo[request_id, sample]
        return Update(
            request_id=request_id,
            sample=sample,
            ids=tuple(ids),
            logprobs=tuple(-float(token) for token in ids),
            top_logprobs=tuple(((token, -float(token)),) for token in ids) if params.top_logprobs else (),
            finish=finish,
            cached_tokens=64,
        )


def requests_over(engine: ScriptedEngine) -> TextRequests:
    config = config_for(engine.tokenizer)
    return TextRequests(engine, engine.tokenizer, config, template=Template.DEEPSEEK)
