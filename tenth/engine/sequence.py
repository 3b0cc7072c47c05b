"""One sample of a request on its way: its tokens, its stream of random numbers, what it was given so far.

Why a stream of its own: its i-th token is drawn with its i-th number, so it gets the same tokens whatever
else is in the batch, however its prompt was cut, and however often it was computed again.
Not here: blocks and order, which the scheduler keeps in the same object (track.py).
"""

import random
from collections.abc import Sequence

from tenth.base.records import Finish
from tenth.base.seeds import stream_seed
from tenth.engine.prompt_lookup import PromptLookup
from tenth.engine.request import Generation, Request, SamplingParams, TopLogprobs, Update
from tenth.engine.track import Track

_DRAW = 2.0**-24  # numbers that float32 holds exactly, so that none rounds up to 1


class Sample(Track):
    """A track and everything the engine knows about it."""

    __slots__ = (
        "adapter",
        "draft_from",
        "draft_next",
        "error",
        "filled",
        "finish",
        "index",
        "is_adjusted",
        "is_quiet",
        "limit",
        "logprobs",
        "lookup",
        "params",
        "random",
        "request_id",
        "siblings",
        "slot",
        "stop_ids",
        "top_logprobs",
        "uniforms",
        "version",
    )

    def __init__(self, request: Request, index: int, stream: int, *, tokens: Sequence[int]) -> None:
        super().__init__(
            (request.request_id, index),
            tokens,
            prompt_len=len(request.prompt_ids),
            priority=request.priority,
        )
        self.request_id, self.index, self.params = request.request_id, index, request.params
        self.adapter = request.adapter
        self.limit = self.prompt_len + self.params.max_new_tokens
        self.stop_ids = frozenset(self.params.stop_ids)
        self.is_adjusted = not self.params.is_plain
        self.is_quiet = False  # nobody waits for news; the end is enough
        self.siblings: list[Sample] = []  # samples that start when this one has read the prompt they share
        self.random = random.Random(stream)
        self.uniforms: list[float] = []  # in [0, 1), one per token
        self.logprobs: list[float] = []
        self.top_logprobs: list[TopLogprobs] = []
        self.finish: Finish | None = None
        self.error: str | None = None
        self.version = 0  # of the weights that drew the last token
        self.slot = -1  # row of the block tables
        self.filled = 0  # blocks that the row holds
        self.draft_from = self.draft_next = 0  # positions that the MTP module has seen without a gap
        self.lookup: PromptLookup | None = None

    def uniform(self, index: int) -> float:
        """The number that the token of this index is drawn with."""
        uniforms = self.uniforms
        while index >= len(uniforms):
            uniforms.append(self.random.getrandbits(24) * _DRAW)
        return uniforms[index]

    def generated(self) -> list[int]:
        """The ids so far, without the prompt."""
        return self.tokens[self.prompt_len :]

    def news(self, count: int) -> Update:
        """The last `count` tokens, and the end if it has come."""
        first = len(self.logprobs) - count
        return Update(
            request_id=self.request_id,
            sample=self.index,
            ids=tuple(self.tokens[len(self.tokens) - count :]),
            logprobs=tuple(self.logprobs[first:]),
            top_logprobs=tuple(self.top_logprobs[first:]) if self.top_logprobs else (),
            finish=self.finish,
            cached_tokens=self.cached,
            error=self.error,
        )

    def generation(self) -> Generation:
        """The whole of it."""
        return Generation(
            ids=tuple(self.generated()),
            logprobs=tuple(self.logprobs),
            finish=self.finish or Finish.ABORTED,
            top_logprobs=tuple(self.top_logprobs),
            cached_tokens=self.cached,
            error=self.error,
            weights_version=self.version,
        )


def sample_streams(prompt_ids: Sequence[int], params: SamplingParams, *, time: int = 0) -> tuple[int, ...]:
    """A seed for each sample's numbers.

    Named by the prompt itself, so that a request's answer does not depend on its companions; `time` counts
    how often the same prompt came before in the same call, as that is another request.
    """
    prompt = stream_seed(params.seed, "sample", *prompt_ids)
    return tuple(stream_seed(prompt, "time", time, index) for index in range(params.n))
