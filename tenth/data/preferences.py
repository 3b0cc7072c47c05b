"""Preference files -> pairs of answers, and answers that somebody called safe or unsafe.

Why: what a reward model learns is only as good as its pairs; a pair that prefers nothing is left out and
counted with its line, and a file of another shape is refused with its line.
In:  .jsonl or .json (also .gz): `prompt`, `chosen`, `rejected` in any of the shapes that people use, also
     whole conversations in `chosen` and `rejected` as Anthropic's are; `prompt`, `response`, `label`.
Out: `PreferenceSet`: pairs, labelled answers, and what was left out.
Not here: how they become ids (pipeline/reward_scorer.py).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.records import Message, PreferencePair, Record, Role
from tenth.data.conversations import PROMPT_FIELDS, last_text, message_list, prompt_messages
from tenth.data.rows import Row, read_rows

RESPONSE_FIELDS = ("response", "completion", "output")
SHOWN = 3  # places of each rule that are named
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS = {"Human": Role.USER, "Assistant": Role.ASSISTANT}
_LABELS = {
    "safe": True, "1": True, "1.0": True, "true": True,
    "unsafe": False, "0": False, "0.0": False, "false": False,
}  # fmt: skip
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer(Record):
    """One answer, safe or not."""

    prompt: str
    response: str
    is_safe: bool
    language: str = "en"
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceSet:
    """What the files hold. `dropped`: the rule, and the places of the rows that it left out."""

    pairs: tuple[PreferencePair, ...]
    labelled: tuple[LabelledAnswer, ...] = ()
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """One per rule that left something out."""
        return [
            f"{len(places):,} row{'s' if len(places) > 1 else ''} left out, {rule}: "
            f"{', '.join(places[:SHOWN])}{', ...' if len(places) > SHOWN else ''}."
            for rule, places in self.dropped.items()
        ]


def read_preferences(paths: Sequence[Path]) -> PreferenceSet:
    """Every pair and every labelled answer of the files."""
    pairs: list[PreferencePair] = []
    labelled: list[LabelledAnswer] = []
    dropped: dict[str, list[str]] = {}
    for row in _rows(paths):
        found = _labelled(row) if "label" in row.values else pair_of(row)
        reason = unusable(found)
        if reason:
            dropped.setdefault(reason, []).append(row.place)
        elif isinstance(found, PreferencePair):
            pairs.append(found)
        else:
            labelled.append(found)
    known = PreferenceSet(
        pairs=tuple(pairs),
        labelled=tuple(labelled),
        dropped={rule: tuple(places) for rule, places in dropped.items()},
    )
    if not pairs and not labelled:
        named = ", ".join(map(str, paths))
        why = " ".join(known.sentences()) or "No file has a row."
        raise DataError(f"{named}: no preference is left; {why} Mend the rows or name other files.")
    return known


def messages_of(item: PreferencePair | LabelledAnswer) -> list[Message]:
    """The conversation up to the answer."""
    turns = item.metadata.get("messages")
    if turns is None:
        return [Message(role=Role.USER, content=item.prompt)]
    return [Message(role=Role(turn["role"]), content=turn["content"]) for turn in turns]


def as_labels(pairs: Sequence[PreferencePair]) -> list[LabelledAnswer]:
    """Pairs as pointwise data: what was chosen counts as safe, what was rejected as unsafe."""
    return [
        LabelledAnswer(
            prompt=pair.prompt,
            response=text,
            is_safe=is_safe,
            language=pair.language,
            metadata=pair.metadata,
        )
        for pair in pairs
        for text, is_safe in ((pair.chosen, True), (pair.rejected, False))
    ]


def language_of(text: str) -> str:
    """zh where at least a tenth of the characters are Chinese: names and code are Latin there, too."""
    return "zh" if len(_HAN.findall(text)) * 10 >= max(1, len(text)) else "en"


def _rows(paths: Sequence[Path]) -> Iterator[Row]:
    return (row for path in paths for row in read_rows(Path(path)))


def pair_of(row: Row) -> PreferencePair:
    """A row of `chosen` and `rejected` in any of the shapes."""
    chosen, rejected = (last_text(row, field=field) for field in ("chosen", "rejected"))
    if any(row.values.get(name) is not None for name in (*PROMPT_FIELDS, "conversations", "messages")):
        turns = prompt_messages(row)
    else:
        (turns, chosen), (other, rejected) = (_dialogue(row, field=name) for name in ("chosen", "rejected"))
        if turns != other or (turns and turns[-1].role is Role.ASSISTANT):
            return PreferencePair(prompt="", chosen=chosen, rejected=rejected)  # nothing that both answer
    if not turns:
        raise row.error(
            f"no prompt: none of {', '.join(PROMPT_FIELDS)} (fields: {sorted(row.values)}), and 'chosen' is "
            "no dialogue of Human: and Assistant:; rename the columns."
        )
    return PreferencePair(
        prompt=_shown(turns),
        chosen=chosen,
        rejected=rejected,
        language=language_of(_shown(turns[-1:]) + chosen),
        metadata=_metadata(row, turns),
    )


def _labelled(row: Row) -> LabelledAnswer:
    field = next((name for name in RESPONSE_FIELDS if row.values.get(name) is not None), RESPONSE_FIELDS[0])
    response, label = last_text(row, field=field), str(row.values["label"]).lower()
    if label not in _LABELS:
        raise row.error(f'\'label\' is {row.values["label"]!r}; write 1 or "safe", 0 or "unsafe".')
    turns = prompt_messages(row)
    return LabelledAnswer(
        prompt=_shown(turns),
        response=response,
        is_safe=_LABELS[label],
        language=language_of(_shown(turns[-1:]) + response),
        metadata=_metadata(row, turns),
    )


def unusable(found: PreferencePair | LabelledAnswer) -> str | None:
    """Why a row teaches nothing; None where it does."""
    if not found.prompt.strip():
        return "there is no question, or not the same for both answers"
    answers = [found.response] if isinstance(found, LabelledAnswer) else [found.chosen, found.rejected]
    if not all(text.strip() for text in answers):
        return "an answer is empty"
    if len(answers) == 2 and answers[0].strip() == answers[1].strip():
        return "both answers are the same text"
    return None


def _dialogue(row: Row, *, field: str) -> tuple[list[Message], str]:
    """A column that holds a whole conversation, as its turns and the last answer: a list of messages, or
    `\\n\\nHuman: … \\n\\nAssistant: …`."""
    value, text = row.values[field], last_text(row, field=field)
    if isinstance(value, list):
        return message_list(row, value, field=field)[:-1], text
    before, *parts = _TURN.split(text)
    turns = [
        Message(role=_SPEAKERS[speaker], content=said.strip())
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if before.strip() or not turns or turns[-1].role is not Role.ASSISTANT:
        return [], text
    merged: list[Message] = []
    for turn in turns[:-1]:
        if merged and merged[-1].role is turn.role:
            turn = Message(role=turn.role, content=f"{merged.pop().content}\n{turn.content}")
        merged.append(turn)
    begins_with_answer = bool(merged) and merged[0].role is Role.ASSISTANT
    return merged[begins_with_answer:], turns[-1].content


def _metadata(row: Row, turns: Sequence[Message]) -> dict[str, Any]:
    source = {"place": row.place}
    if len(turns) == 1 and turns[0].role is Role.USER:
        return source
    return source | {"messages": [turn.to_dict() for turn in turns]}


def _shown(turns: Sequence[Message]) -> str:
    """One text of a conversation: a single question is itself."""
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def count_languages(items: Sequence[PreferencePair | LabelledAnswer]) -> Counter[str]:
    """How many are in which language."""
    return Counter(item.language for item in items)
