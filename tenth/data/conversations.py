"""SFT files -> examples with a loss mask.

Why: people's files differ in their column names, and a wrong line must be found by its number, not by a crash
in the middle of training. One table holds the names that we know.
In:  .jsonl or .json (also .gz) with `messages`, or `prompt` + `completion`, or an alias.
Out: `TrainingExample`s (ids, loss mask).
Not here: how a conversation becomes ids (tokenizer/chat.py), problem files for RL (tasks/), preferences
(preferences.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.errors import ConfigError, DataError
from tenth.base.records import Message, Role
from tenth.data.rows import Row, read_rows
from tenth.tokenizer.chat import ChatTemplate, TrainingExample, render_trainings
from tenth.tokenizer.tokenizer import Tokenizer

CONVERSATION_FIELDS = ("messages", "conversations")
PROMPT_FIELDS = ("prompt", "instruction", "question")
COMPLETION_FIELDS = ("completion", "response", "output", "answer", "solution")
_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """Examples to learn from, and how many were left out because they were too long."""

    examples: tuple[TrainingExample, ...]
    num_too_long: int


def read_examples(
    paths: Sequence[Path], tokenizer: Tokenizer, *, template: ChatTemplate, max_tokens: int
) -> ExampleSet:
    """Every conversation of the files as ids and loss mask; those over `max_tokens` are only counted."""
    kept: list[TrainingExample] = []
    num_too_long = 0
    rows = list(_rows(paths))
    rendered = render_trainings(tokenizer, [row_messages(row) for row in rows], template=template)
    for row, example in zip(rows, rendered, strict=True):
        if isinstance(example, DataError):
            raise row.error(str(example)) from example
        if len(example.ids) > max_tokens:
            num_too_long += 1
        else:
            kept.append(example)
    if not kept and num_too_long:
        raise ConfigError(
            f"all {num_too_long} examples of {_named(paths)} are longer than {max_tokens} tokens; "
            "shorten them, or raise that limit as far as the model's context goes."
        )
    if not kept:
        raise DataError(f"{_named(paths)} holds no example; name a file that does.")
    return ExampleSet(examples=tuple(kept), num_too_long=num_too_long)


def read_conversations(paths: Sequence[Path]) -> Iterator[list[Message]]:
    """Every conversation of the files, as messages."""
    return (row_messages(row) for row in _rows(paths))


def _rows(paths: Sequence[Path]) -> Iterator[Row]:
    return (row for path in paths for row in read_rows(Path(path)))


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def row_messages(row: Row) -> list[Message]:
    """A whole conversation; `messages` wins when a row has both shapes, as elsewhere."""
    field = first_field(row, CONVERSATION_FIELDS)
    if field is not None:
        return [*_system(row), *message_list(row, row.values[field], field=field)]
    completion = first_field(row, COMPLETION_FIELDS)
    if completion is None:
        raise row.error(
            f"no field 'messages' and none of {', '.join(COMPLETION_FIELDS)} (fields: {sorted(row.values)}); "
            "rename the columns."
        )
    return [*prompt_messages(row), Message(role=Role.ASSISTANT, content=last_text(row, field=completion))]


def prompt_messages(row: Row) -> list[Message]:
    """What a row asks: its conversation, or its prompt as one message."""
    field = first_field(row, (*PROMPT_FIELDS, *CONVERSATION_FIELDS))
    if field is None:
        raise row.error(
            f"none of {', '.join(PROMPT_FIELDS)} (fields: {sorted(row.values)}); rename the columns."
        )
    value = row.values[field]
    if isinstance(value, list):
        return [*_system(row), *message_list(row, value, field=field)]
    text = _text(row, value, field=field)
    if field == "instruction" and row.values.get("input"):
        text += "\n" + _text(row, row.values["input"], field="input")
    return [*_system(row), Message(role=Role.USER, content=text)]


def _system(row: Row) -> list[Message]:
    value = row.values.get("system")
    return [Message(role=Role.SYSTEM, content=_text(row, value, field="system"))] if value else []


def message_list(row: Row, value: Any, *, field: str) -> list[Message]:
    """The messages of a column."""
    if not isinstance(value, list) or not value:
        raise row.error(f"'{field}' must be a list of messages; mend it.")
    return [_message(row, item, field=field) for item in value]


def _message(row: Row, item: Any, *, field: str) -> Message:
    """One message: `role` and `content`, or sharegpt's `from` and `value`."""
    if not isinstance(item, Mapping):
        raise row.error(
            f"'{field}' holds a {type(item).__name__}, not a message with role and content; mend it."
        )
    role = item.get("role", item.get("from"))
    if not isinstance(role, str) or role not in _ROLES:
        raise row.error(f"the role {role!r} in '{field}' is none of {', '.join(_ROLES)}; mend it.")
    return Message(
        role=_ROLES[role],
        content=_text(row, item.get("content", item.get("value")), field=f"{field}: content"),
    )


def last_text(row: Row, *, field: str) -> str:
    """An answer: a text, a message, or a list that ends with a message."""
    value = row.values.get(field)
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        return _message(row, value, field=field).content
    return _text(row, value, field=field)


def _text(row: Row, value: Any, *, field: str) -> str:
    if not isinstance(value, str):
        found = "is missing" if value is None else f"is {_json_name(value)}, where a text belongs"
        raise row.error(f"'{field}' {found}; mend or remove it.")
    return value


def _json_name(value: Any) -> str:
    """What JSON calls a value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def first_field(row: Row, names: Sequence[str]) -> str | None:
    """The first of these columns that has a value."""
    return next((name for name in names if row.values.get(name) is not None), None)
