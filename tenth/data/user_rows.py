"""Anybody's data file as a stream of items: what is asked, what is learned, or what is wrong with it.

Why: `tenth data` must go on behind a bad line and name it later; training stops at it (rows.py,
conversations.py). Both read a row's columns by the same names.
In:  .txt, .jsonl, .json (also .gz), .parquet; documents (`text`), conversations (`messages`), questions with
an answer (`prompt` + `completion` and their other names), preferences (`chosen`, `rejected`).
Out: `Item`s and `Fault`s in the order of the file. A file that cannot be read at all is a DataError.
Not here: rows beside each other (survey.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.data.conversations import (
    COMPLETION_FIELDS,
    CONVERSATION_FIELDS,
    PROMPT_FIELDS,
    first_field,
    last_text,
    prompt_messages,
    row_messages,
)
from tenth.data.corpus import read_documents
from tenth.data.rows import Row, read_byte_lines, read_rows, require_file, row_of

KINDS = (".txt", ".jsonl", ".json", ".parquet")
_OTHER_PROMPTS = ("problem", "query", "input", "text")  # the last two only beside an answer
_OTHER_COMPLETIONS = ("code", "canonical_solution", "ground_truth", "target", "label")
_TURN = "Assistant:"  # hh-rlhf writes a whole dialogue into `chosen` and `rejected`
_BINARY_BYTES = 4096  # looked at for a zero byte


class Kind(StrEnum):
    """What a row is."""

    DOCUMENT = "document"
    ANSWERED = "prompt and answer"
    PROMPT = "prompt alone"
    PREFERENCE = "preference"


class Rule(StrEnum):
    """Why a row is dropped, in the order in which the rules are asked."""

    UNREADABLE = "unreadable"
    COLUMNS = "missing columns"
    EMPTY = "empty"
    EQUAL_PAIR = "chosen equals rejected"
    UNCLOSED = "unclosed thinking"
    LENGTH = "length"
    HELD_OUT = "held-out question of a family"
    EXACT = "exact duplicate"
    CONTAMINATED = "contaminated"
    CONTRADICTION = "contradicting answers"
    NEAR = "near-duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row that can be understood. A document has no prompt; its text is what shall be learned."""

    place: str
    kind: Kind
    values: Mapping[str, Any]  # the row as it is written
    prompt: str
    answer: str
    rejected: str = ""

    @property
    def subject(self) -> str:
        """What a test question could be in, and what decides the split: the prompt, else the document."""
        return self.prompt or self.answer

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(part for part in (self.prompt, self.answer, self.rejected) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A row that is left out, and why."""

    place: str
    rule: Rule
    detail: str


def scan(path: Path) -> Iterator[Item | Fault]:
    """Every row of a file."""
    kind = Path(path.name.removesuffix(".gz")).suffix
    if require_file(path) and kind not in KINDS:
        raise DataError(f"{path} is none of {', '.join(KINDS)} (.gz allowed); rename or convert it.")
    if kind != ".parquet":
        _require_text(path)
    if kind == ".txt":
        for number, text in enumerate(read_documents([path]), start=1):
            place = f"{path}, document {number}"
            yield Item(place=place, kind=Kind.DOCUMENT, values={"text": text}, prompt="", answer=text)
        return
    for row in _tolerant_lines(path) if kind == ".jsonl" else read_rows(path):
        yield row if isinstance(row, Fault) else _understood(row)


def _require_text(path: Path) -> None:
    for _, line in read_byte_lines(path):
        if b"\0" in line[:_BINARY_BYTES]:
            raise DataError(f"{path} is binary: it holds zero bytes; name a UTF-8 text file.")
        return


def _tolerant_lines(path: Path) -> Iterator[Row | Fault]:
    for number, line in read_byte_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            yield row_of(line.decode("utf-8"), place=place)
        except UnicodeDecodeError as error:
            yield Fault(place=place, rule=Rule.UNREADABLE, detail=f"not UTF-8 ({error.reason})")
        except DataError as error:
            yield _fault(place, Rule.UNREADABLE, error)


def _understood(row: Row) -> Item | Fault:
    try:
        item = _item(row)
    except DataError as error:
        return _fault(row.place, Rule.COLUMNS, error)
    return _wrong_with(item) or item


def _fault(place: str, rule: Rule, error: DataError) -> Fault:
    """Its sentence without the place and the remedy."""
    detail = str(error).removeprefix(f"{place}: ").rpartition(";")[0] or str(error)
    return Fault(place=place, rule=rule, detail=detail)


def _item(row: Row) -> Item:
    values = row.values
    if "chosen" in values and "rejected" in values:
        return _preference(row)
    named = _named(row)
    if first_field(named, CONVERSATION_FIELDS):
        *asked, last = row_messages(named)
        if last.role is not Role.ASSISTANT:
            asked, last = [*asked, last], Message(role=Role.ASSISTANT, content="")
        return _made(row, Kind.ANSWERED, _joined(asked), last.content)
    if first_field(named, PROMPT_FIELDS):
        prompt = _joined(prompt_messages(named))
        completion = first_field(named, COMPLETION_FIELDS)
        if completion is None:
            return _made(row, Kind.PROMPT, prompt, "")
        return _made(row, Kind.ANSWERED, prompt, last_text(named, field=completion))
    return _made(row, Kind.DOCUMENT, "", last_text(named, field="text"))


def _named(row: Row) -> Row:
    """The row with its columns under the names that conversations.py reads; numbers become texts."""
    values = dict(row.values)
    nested = values.get("reward_model")  # verl's
    if isinstance(nested, Mapping):
        values.setdefault("ground_truth", nested.get("ground_truth"))
    completion = first_field(row, COMPLETION_FIELDS) or first_field(
        Row(place=row.place, values=values), _OTHER_COMPLETIONS
    )
    if completion:
        value = values[completion]
        values["completion"] = str(value) if isinstance(value, int | float) else value
    others = _OTHER_PROMPTS if completion else _OTHER_PROMPTS[:2]
    prompt = first_field(row, (*PROMPT_FIELDS, *CONVERSATION_FIELDS)) or first_field(row, others)
    if prompt in _OTHER_PROMPTS:
        values["prompt"] = values[prompt]
    return Row(place=row.place, values=values)


def _preference(row: Row) -> Item:
    chosen, rejected = (last_text(row, field=field) for field in ("chosen", "rejected"))
    first = row.values["chosen"]
    if first_field(row, (*PROMPT_FIELDS, *CONVERSATION_FIELDS)):
        prompt = _joined(prompt_messages(row))
    elif isinstance(first, list):  # two whole conversations
        talk = Row(place=row.place, values={"messages": first})
        prompt = _joined(row_messages(talk)[:-1])
    else:
        end = _end_of_dialogue(chosen, rejected)
        prompt, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
    return Item(
        place=row.place,
        kind=Kind.PREFERENCE,
        values=row.values,
        prompt=prompt,
        answer=chosen,
        rejected=rejected,
    )


def _end_of_dialogue(chosen: str, rejected: str) -> int:
    """Where the last turn of hh-rlhf begins: behind the last name of the speaker that both share."""
    length = next((n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    shared = chosen[:length] if length is not None else min(chosen, rejected, key=len)
    return shared.rfind(_TURN) + len(_TURN) if _TURN in shared else 0


def _made(row: Row, kind: Kind, prompt: str, answer: str) -> Item:
    return Item(place=row.place, kind=kind, values=row.values, prompt=prompt, answer=answer)


def _joined(messages: list[Message]) -> str:
    return "\n".join(message.content for message in messages)


def _wrong_with(item: Item) -> Fault | None:
    """What is wrong with a row by itself."""
    if not item.text.isascii():
        try:
            item.text.encode()
        except UnicodeEncodeError as error:
            return Fault(place=item.place, rule=Rule.UNREADABLE, detail=f"not Unicode ({error.reason})")
    asked_and_learned = {
        Kind.DOCUMENT: (item.answer,),
        Kind.ANSWERED: (item.prompt, item.answer),
        Kind.PROMPT: (item.prompt,),
        Kind.PREFERENCE: (item.answer, item.rejected),
    }[item.kind]
    if not all(part.strip() for part in asked_and_learned):
        return Fault(place=item.place, rule=Rule.EMPTY, detail=f"a {item.kind} with nothing in one part")
    if item.kind is Kind.PREFERENCE and item.answer.strip() == item.rejected.strip():
        return Fault(place=item.place, rule=Rule.EQUAL_PAIR, detail=item.answer.strip()[:80])
    if item.kind is not Kind.DOCUMENT and not _is_closed(item.answer):
        return Fault(place=item.place, rule=Rule.UNCLOSED, detail=item.answer[-80:])
    return None


def _is_closed(answer: str) -> bool:
    """Whether every thought that begins ends; the template may have opened one that only ends here."""
    return answer.rfind("<think>") <= answer.rfind("</think>") and answer.count("<think>") <= answer.count(
        "</think>"
    )
