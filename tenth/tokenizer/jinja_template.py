"""`JinjaTemplate`: a chat template that came with somebody's model, and how it is rendered without trust.

Why: every model that others train is sampled with its own template, a Jinja program. It is run in a child
process with little memory and a deadline (jinja_child.py); a child that is late is killed, and the next call
starts another.
In:  the template's text, the special tokens it may name; conversations.
Out: texts, or a DataError that says what is wrong with the template or with the conversation.
Not here: ids (jinja_ids.py), prompts and training examples (jinja_chat.py), files (jinja_files.py).
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenth.base.deadline import Worker
from tenth.base.errors import DataError, VerifierError

MAX_TEMPLATE_CHARS = 1 << 20
DEADLINE_SECONDS = 10.0  # per call; a conversation takes less than a millisecond
_MEMORY_BYTES = 512 << 20
_MAX_REPLY_BYTES = 256 << 20
_CALL_CHARS = 1 << 20  # texts of one call, more or less: the deadline is per call
_CACHED_TEXTS, _CACHED_CHARS = 512, 1 << 15
_REMEDY = "mend the template, or pass another one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What one rendering is made of: (role, content) pairs, and whether the assistant speaks next."""

    turns: tuple[tuple[str, str], ...]
    is_prompt: bool

    @property
    def num_chars(self) -> int:
        """Of all contents."""
        return sum(len(content) for _, content in self.turns)


def _worker() -> Worker:
    return Worker(
        "tenth.tokenizer.jinja_child:render",
        prepare="tenth.tokenizer.jinja_child:prepare",
        deadline_seconds=DEADLINE_SECONDS,
        memory_bytes=_MEMORY_BYTES,
        max_reply_bytes=_MAX_REPLY_BYTES,
    )


@dataclass(frozen=True, kw_only=True)
class JinjaTemplate:
    """A foreign template. Equal texts, tokens and options are equal templates."""

    text: str
    specials: Mapping[str, str] = field(default_factory=dict, hash=False)  # such as bos_token
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)  # such as enable_thinking=False
    _worker: Worker = field(default_factory=_worker, init=False, repr=False, compare=False)
    _cache: dict[Any, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DataError(f"a chat template is a text, not a {type(self.text).__name__}; {_REMEDY}")
        if len(self.text) > MAX_TEMPLATE_CHARS:
            raise DataError(
                f"the chat template has {len(self.text):,} characters and {MAX_TEMPLATE_CHARS:,} are the "
                f"most; {_REMEDY}"
            )
        weakref.finalize(self, self._worker.close)

    def __str__(self) -> str:
        return f"a Jinja template of {len(self.text)} characters"

    def render(
        self, conversations: Sequence[Conversation], *, specials: Mapping[str, str]
    ) -> list[str | DataError]:
        """The text of each conversation, or why it has none. `specials` stand in for what the template lacks.

        A template that cannot be run at all raises.
        """
        variables = {**specials, **self.specials, **self.options, "tools": None, "documents": None}
        names = tuple(sorted(specials.items()))
        is_lasting = "strftime_now" not in self.text  # a date changes
        results: list[str | DataError | None] = [self._cache.get((names, each)) for each in conversations]
        missing = [number for number, text in enumerate(results) if text is None]
        for batch in _batches(missing, conversations):
            replies = self._call(variables, [conversations[number] for number in batch])
            for number, reply in zip(batch, replies, strict=True):
                results[number] = result = _result(reply)
                if isinstance(result, str) and is_lasting and len(result) <= _CACHED_CHARS:
                    if len(self._cache) >= _CACHED_TEXTS:
                        self._cache.clear()
                    self._cache[names, conversations[number]] = result
        return [result for result in results if result is not None]

    def _call(
        self, variables: Mapping[str, Any], conversations: Sequence[Conversation]
    ) -> list[dict[str, str]]:
        sent = [
            {
                "messages": [{"role": role, "content": content} for role, content in each.turns],
                "add_generation_prompt": each.is_prompt,
            }
            for each in conversations
        ]
        try:
            replies = self._worker.call(self.text, variables, sent)
        except VerifierError as error:
            reason = _tidy(str(error).replace(self._worker.function, "it"))
            raise DataError(
                f"the chat template could not be rendered within {DEADLINE_SECONDS:g} s and "
                f"{_MEMORY_BYTES >> 20} MiB ({reason}); {_REMEDY}"
            ) from error
        if isinstance(replies, dict):
            raise DataError(f"the chat template is no valid Jinja ({_tidy(replies['error'])}); {_REMEDY}")
        return list(replies)


def _batches(numbers: Sequence[int], conversations: Sequence[Conversation]) -> list[list[int]]:
    batches: list[list[int]] = []
    num_chars = _CALL_CHARS
    for number in numbers:
        if num_chars >= _CALL_CHARS:
            batches.append([])
            num_chars = 0
        batches[-1].append(number)
        num_chars += 1000 + conversations[number].num_chars
    return batches


def _result(reply: Mapping[str, str]) -> str | DataError:
    if "text" in reply:
        return reply["text"]
    if "refused" in reply:
        return DataError(
            f"the chat template refuses this conversation ({_tidy(reply['refused'])}); change its messages, "
            "or pass another template."
        )
    return DataError(f"the chat template failed ({_tidy(reply['error'])}); {_REMEDY}")


def _tidy(message: str) -> str:
    """A stranger's words inside our sentence: one line, not long, nothing that moves a cursor."""
    words = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    return words.rstrip(".") if len(words) <= 200 else words[:200] + "..."
