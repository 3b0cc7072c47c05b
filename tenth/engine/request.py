"""What is asked of the engine and what it answers: sampling parameters, a request, its news and its result.

Why: these records are all that an engine and its callers share, so what can be wrong with a request is found
here, when it is built, and not in the middle of a batch.
In:  token ids and numbers.  Out: frozen records, checked.
Not here: text, chat templates, stop strings (a layer above); what the numbers do (sampler.py, penalties.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from tenth.base.errors import ConfigError
from tenth.base.records import Finish

if TYPE_CHECKING:
    from torch import Tensor

# The ids generated so far -> (V,) bool, which ids may come next; None: all of them.
LogitMask = Callable[[Sequence[int]], "Tensor | None"]
TopLogprobs = tuple[tuple[int, float], ...]  # (id, natural log), best first

MAX_SAMPLES = 1024
MAX_STOP_IDS = 256  # every new token is compared with each of them
MAX_TOP_LOGPROBS = 20  # what OpenAI's interface allows
MAX_BIASES = 1024
MAX_SEED = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to draw. Names follow vLLM where it has one."""

    max_new_tokens: int
    n: int = 1  # samples per prompt
    temperature: float = 1.0  # 0: the most likely token
    top_p: float = 1.0  # the fewest ids whose mass reaches it
    top_k: int | None = None  # the k most likely ids
    min_p: float = 0.0  # ids at least this fraction as likely as the likeliest
    repetition_penalty: float = 1.0  # of ids in the prompt or the answer; above 1 makes them less likely
    presence_penalty: float = 0.0  # taken from the score of every id in the answer
    frequency_penalty: float = 0.0  # the same, times how often it is there
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # id -> added to its score
    min_new_tokens: int = 0  # no stop id before this many
    stop_ids: tuple[int, ...] = ()  # ids that end a sequence; the id itself is kept
    seed: int = 0
    top_logprobs: int = 0  # how many of the likeliest ids to report per token
    logit_mask: LogitMask | None = None  # a grammar, say

    def __post_init__(self) -> None:
        self._check_types()
        rules = (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("n", 1 <= self.n <= MAX_SAMPLES, f"from 1 to {MAX_SAMPLES}"),
            ("temperature", 0 <= self.temperature < inf, "0 (the most likely token) or a positive number"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (1 keeps every token)"),
            ("top_k", self.top_k is None or 1 <= self.top_k < 2**31, "at least 1, or None for all tokens"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (keeps every token) to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < inf, "positive (1 changes nothing)"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "from -2 to 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "from -2 to 2"),
            ("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens, "from 0 to max_new_tokens"),
            ("seed", -MAX_SEED <= self.seed < MAX_SEED, "an integer of 64 bits"),
            ("top_logprobs", 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS, f"from 0 to {MAX_TOP_LOGPROBS}"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ConfigError(f"{name} = {getattr(self, name)} must be {rule}.")
        self._check_ids()

    def _check_types(self) -> None:
        for name in ("max_new_tokens", "n", "min_new_tokens", "seed", "top_logprobs", "top_k"):
            value = getattr(self, name)
            if not (_is_int(value) or (name == "top_k" and value is None)):
                raise ConfigError(f"{name} = {value!r} must be an integer.")
        for name in (
            "temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
        ):  # fmt: skip
            value = getattr(self, name)
            if not _is_number(value):
                raise ConfigError(f"{name} = {value!r} must be a number.")

    def _check_ids(self) -> None:
        if len(self.stop_ids) > MAX_STOP_IDS:
            raise ConfigError(
                f"stop_ids has {len(self.stop_ids)} ids; give at most {MAX_STOP_IDS}, "
                "or cut the answer after it is written."
            )
        if len(self.logit_bias) > MAX_BIASES:
            raise ConfigError(
                f"logit_bias has {len(self.logit_bias)} ids; give at most {MAX_BIASES}, or use a logit_mask."
            )
        for name, ids in (("stop_ids", self.stop_ids), ("logit_bias", self.logit_bias)):
            for each in ids:
                if not _is_int(each) or each < 0:
                    raise ConfigError(f"{name} holds {each!r}; a token id is an integer of 0 or more.")
        for each, bias in self.logit_bias.items():
            if not (_is_number(bias) and -inf < bias < inf):
                raise ConfigError(
                    f"logit_bias of id {each} is {bias}; give a finite number (-100 all but forbids an id)."
                )

    @property
    def is_plain(self) -> bool:
        """Whether a row needs the sampler alone: no adjusted scores, no list of the likeliest ids."""
        return not self.adjusts and self.top_logprobs == 0

    @property
    def adjusts(self) -> bool:
        """Whether scores change before the draw (penalties.py)."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
            or bool(self.logit_bias)
            or self.min_new_tokens > 0
            or self.logit_mask is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt and what to do with it."""

    request_id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    priority: int = 0  # lower runs first
    adapter: str | None = None  # one of those attached to the model; None: the base alone
    streams: tuple[int, ...] | None = (
        None  # a seed per sample for its draws; None: from the seed and the prompt
    )

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ConfigError(f"request {self.request_id} has an empty prompt; give at least one token.")
        if self.streams is not None and len(self.streams) != self.params.n:
            raise ConfigError(
                f"request {self.request_id} has {len(self.streams)} streams for n = {self.params.n} samples; "
                "give one per sample, or None."
            )

    def check_vocabulary(self, vocab_size: int) -> None:
        """Every id named is one that the model knows."""
        params = self.params
        for name, ids in (
            ("prompt", self.prompt_ids), ("stop_ids", params.stop_ids), ("logit_bias", params.logit_bias),
        ):  # fmt: skip
            for each in ids:
                if not 0 <= each < vocab_size:
                    raise ConfigError(
                        f"request {self.request_id}: {name} holds id {each}, but the model's vocabulary has "
                        f"{vocab_size} ids; was it made by another tokenizer?"
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One sampled sequence."""

    ids: tuple[int, ...]  # without the prompt; the stop id is included when one was drawn
    logprobs: tuple[float, ...]  # natural log, of the model's own temperature-1 distribution
    finish: Finish
    top_logprobs: tuple[TopLogprobs, ...] = ()  # per token, where asked for
    cached_tokens: int = 0  # of the prompt, found in the prefix cache
    error: str | None = None  # what went wrong, where finish is ERROR
    weights_version: int = 0  # how often the weights had changed when it was sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one step brought to one sample."""

    request_id: str
    sample: int
    ids: tuple[int, ...]  # the new ones
    logprobs: tuple[float, ...]
    top_logprobs: tuple[TopLogprobs, ...] = ()
    finish: Finish | None = None  # None: more will come
    cached_tokens: int = 0
    error: str | None = None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)
