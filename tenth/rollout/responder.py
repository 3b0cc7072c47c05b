"""Who answers conversations in text: a model in this process, or one behind an API, by the same protocol.

Why: judging, rewriting, distilling and measuring ask questions and read text; who answers is the user's
choice, so none of them knows.
In:  conversations and `AskParams`.
Out: `Reply` records; one that failed says so in `error`.
Not here: the one behind an API (endpoint/responder.py), pools for training, which hand out ids (pool.py).
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from tenth.base.records import AskParams, Finish, Message, Reply, Usage
from tenth.engine.request import SamplingParams
from tenth.llm.llm import LLM
from tenth.llm.outputs import Output, Piece
from tenth.tokenizer.chat import Answer, ChatTemplate, join_thinking, split_thinking
from tenth.tokenizer.special import THINK

_UNIT_TOKENS = 64  # without a limit, prompts of about one length share a batch


class Responder(Protocol):
    """Somebody who answers."""

    name: str

    def respond(self, conversations: Sequence[Sequence[Message]], params: AskParams) -> list[list[Reply]]:
        """`params.n` replies to each conversation, in order."""
        ...


class LocalResponder:
    """A loaded model. Conversations are written as its directory says, unless `template` is given."""

    def __init__(self, llm: LLM, *, name: str | None = None, template: ChatTemplate | None = None) -> None:
        self._llm, self._template = llm, template
        self.name = name or llm.config.name

    def respond(self, conversations: Sequence[Sequence[Message]], params: AskParams) -> list[list[Reply]]:
        """Batched: all of them share the engine. Each reply's `seconds` are those of its whole batch."""
        prompts = [self._llm.render(each, template=self._template) for each in conversations]
        replies = [[_too_long(len(each), self._llm.context_tokens)] * params.n for each in prompts]
        batches = defaultdict[int, list[int]](list)  # most new tokens -> which conversations
        for number, prompt in enumerate(prompts):
            batches[_limit(self._llm.context_tokens - len(prompt), params.max_tokens)].append(number)
        for limit, numbers in batches.items():
            if limit < 1:
                continue
            begin = time.perf_counter()
            outputs = self._llm.generate(
                [prompts[number] for number in numbers], _drawn(params, limit=limit), stop=params.stop
            )
            seconds = time.perf_counter() - begin
            for number, output in zip(numbers, outputs, strict=True):
                replies[number] = [self._reply(output, each, seconds) for each in output.samples]
        return replies

    def _reply(self, output: Output, sample: Piece, seconds: float) -> Reply:
        tokenizer = self._llm.tokenizer
        # Many templates open the thought themselves; cut off before its end, it must not pass for an answer.
        is_open = tokenizer.decode(output.prompt_ids[-8:]).rstrip().endswith(THINK)
        parts = split_thinking((THINK if is_open and not sample.text.startswith(THINK) else "") + sample.text)
        thinking_tokens = 0 if parts.thinking is None else len(tokenizer.encode_plain(parts.thinking))
        return Reply(
            text=parts.answer,
            reasoning=parts.thinking,
            finish=sample.finish or Finish.ERROR,
            usage=Usage(
                prompt_tokens=output.prompt_tokens,
                cached_tokens=min(output.cached_tokens, output.prompt_tokens),
                completion_tokens=len(sample.ids),
                reasoning_tokens=min(thinking_tokens, len(sample.ids)),
            ),
            seconds=seconds,
            error=sample.error,
        )


def as_one_text(reply: Reply) -> str:
    """Thinking and answer as the assistant's one text; `split_thinking` takes it apart."""
    return join_thinking(Answer(reply.reasoning, reply.text))


def _limit(room_tokens: int, max_tokens: int | None) -> int:
    if max_tokens is not None:
        return min(max_tokens, room_tokens)
    return room_tokens - room_tokens % _UNIT_TOKENS or room_tokens


def _drawn(params: AskParams, *, limit: int) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=limit,
        n=params.n,
        temperature=params.temperature,
        top_p=params.top_p,
        seed=params.seed,
    )


def _too_long(prompt_tokens: int, context_tokens: int) -> Reply:
    return Reply(
        text="",
        reasoning=None,
        finish=Finish.ERROR,
        usage=Usage(prompt_tokens=prompt_tokens),
        error=f"the conversation has {prompt_tokens} tokens, and the model reads {context_tokens} at most.",
    )
