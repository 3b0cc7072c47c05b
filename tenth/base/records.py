"""The nouns that cross rooms: small frozen records with a JSON-lines round trip.

Why: rooms exchange these and plain files, so a room can be read, tested and replaced alone.
Written by one room and read by others; nothing here computes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, get_type_hints

from tenth.base.errors import DataError


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORTED = "aborted"
    ERROR = "error"


class Record:
    """What every record can do: become a JSON-able mapping and come back."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; tuples become lists when written as JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`: lists become tuples, texts become the enumeration they were."""
        enums = _enum_fields(cls)  # type: ignore[arg-type]
        try:
            return cls(
                **{
                    key: enums[key](value)
                    if key in enums
                    else tuple(value)
                    if isinstance(value, list)
                    else value
                    for key, value in row.items()
                }
            )
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a row is no {cls.__name__} ({error}); was its file written by another version of tenth?"
            ) from error


@functools.cache
def _enum_fields(record: type[Record]) -> Mapping[str, type[StrEnum]]:
    hints = get_type_hints(record)
    return {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, StrEnum)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Record):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Record):
    """A question with a checkable answer. Written by tasks/, read by rollout/, pipeline/, reports/."""

    problem_id: str  # content hash of (task, prompt)
    task: str  # the family or file it belongs to
    prompt: str  # what the user asks, without any template
    answer: str  # one right answer, as text
    level: int = 0  # difficulty inside the family; 0 where it has none
    language: str = "en"
    metadata: Mapping[str, Any] = field(default_factory=dict)  # unknown columns, family details


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """What a checker says about one answer. `error` set means: the verifier failed, nobody knows."""

    is_correct: bool
    extracted: str | None = None  # the answer as the checker read it
    error: str | None = None  # verifier error: a crash or a missed deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(Record):
    """What a sampler returns for one prompt. Written by rollout pools."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]  # sampled ids, the end token included when it was sampled
    answer_logprobs: tuple[float, ...]  # natural log, under the policy and temperature-1 distribution
    finish: Finish
    text: str  # the decoded answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Record):
    """One sampled answer and its scores. Written by rollout/, read by training/ and reports/."""

    problem_id: str
    task: str
    level: int
    group_id: int  # rollouts of one prompt share it
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    answer_logprobs: tuple[float, ...]
    rewards: Mapping[str, float]  # by name: accuracy, format, ...; unweighted
    reward: float  # the weighted sum that GRPO sees
    finish: Finish
    policy_step: int  # optimizer step of the sampling weights
    prompt: str
    text: str
    error: str | None = None  # verifier error, if any


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair(Record):
    """Two answers to one prompt, of which the first was preferred. Written by users and judges."""

    prompt: str
    chosen: str
    rejected: str
    language: str = "en"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskParams(Record):
    """How somebody is asked who answers in text: a model in this process, or one behind an API."""

    n: int = 1  # answers to each conversation
    max_tokens: int | None = None  # thinking included; None: whatever the model allows
    temperature: float = 0.6
    top_p: float = 0.95
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Record):
    """Tokens of one answer, as DeepSeek's API counts them: cached <= prompt, reasoning <= completion."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer in text. `error` set: there is nothing usable in it."""

    text: str  # the final answer alone, an API's `content`
    reasoning: str | None  # what was thought before it, an API's `reasoning_content`
    finish: Finish
    usage: Usage = Usage()
    seconds: float = 0.0  # from asking to the whole answer
    usd: float = 0.0
    error: str | None = None
