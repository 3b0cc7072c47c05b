"""Where completions come from: a sampler that can be told that the weights have changed.

Why: collecting, evaluating and the pipeline must not know whether the engine sits in this process or on other
machines. Two verbs are enough.
"""

from collections.abc import Sequence
from typing import Protocol

from tenth.base.records import Completion
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.tokenizer.tokenizer import Tokenizer


class SamplerPool(Protocol):
    """Samples completions for prompts."""

    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[Completion]]:
        """`params.n` completions for every prompt, in order."""
        ...

    def refresh_weights(self) -> None:
        """Sample from the weights as they are now."""


class LocalPool:
    """An engine in this process over the trainer's own model, or over an adapter of it that learns."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, *, adapter: str | None = None) -> None:
        self.engine, self.tokenizer, self.adapter = engine, tokenizer, adapter

    def refresh_weights(self) -> None:
        """See `SamplerPool`. Where only an adapter learns, the base is not packed again."""
        if self.adapter is None:
            self.engine.refresh_weights()
        else:
            self.engine.refresh_adapters()

    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[Completion]]:
        """See `SamplerPool`."""
        groups = self.engine.generate(prompts, params, adapter=self.adapter)
        return [
            [
                Completion(
                    prompt_ids=tuple(prompt),
                    answer_ids=each.ids,
                    answer_logprobs=each.logprobs,
                    finish=each.finish,
                    text=self.tokenizer.decode(each.ids),
                )
                for each in group
            ]
            for prompt, group in zip(prompts, groups, strict=True)
        ]
