"""Prompts, training examples and continued conversations of a foreign template, as ids.

Why: a template only says how a whole conversation is written. What the assistant said, where it ends and what
stands between two turns is found out by rendering more than once, so that here too the ids of a training
example are those of its prompt plus the answer.
In:  messages.  Out: ids, and masks of what the assistant has to produce.
Not here: our own templates (chat.py), how rendering is kept harmless (jinja_template.py, jinja_ids.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.tokenizer.jinja_ids import guard_of, ids_of, marked, unused_marker
from tenth.tokenizer.jinja_template import Conversation, JinjaTemplate
from tenth.tokenizer.special import THINK, Trust
from tenth.tokenizer.tokenizer import Tokenizer

# Words that no template writes itself, to find a place by.
_QUESTION = Message(role=Role.USER, content="tenthquestionprobe")
_ANSWER = Message(role=Role.ASSISTANT, content="tenthanswerprobe")

Asked = tuple[Sequence[Message], bool]  # messages, and whether the assistant speaks next


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """What a template wrote; special tokens are looked for while the markers stand."""

    text: str
    marker: str

    @property
    def shown(self) -> str:
        return self.text.replace(self.marker, "")

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        return ids_of(tokenizer, self.text, marker=self.marker)


def prompt_ids(
    tokenizer: Tokenizer, messages: Sequence[Message], *, template: JinjaTemplate, prefill: str
) -> list[int]:
    """Ids up to the place where the assistant speaks, and `prefill` behind them."""
    (text,) = _rendered(tokenizer, [(messages, True)], template=template)
    text = _with_header(tokenizer, text, template=template)
    return text.ids(tokenizer) + _answer_ids(tokenizer, prefill, prompt=text)


def training_ids(
    tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]], *, template: JinjaTemplate
) -> list[tuple[list[int], list[int]] | DataError]:
    """Ids and mask of each conversation, or why it has none; many are rendered in one go.

    An earlier answer is learned where the conversation shows exactly the ids that were to be produced: a turn
    that lost its thinking is context only.
    """
    asked: list[Asked] = []
    for messages in conversations:
        answers = [place for place, each in enumerate(messages) if each.role is Role.ASSISTANT]
        asked += [(messages[:place], True) for place in answers]
    try:
        texts = iter(_tried(tokenizer, asked, template=template))
        end_id = _end_id(tokenizer, template=template)
    except DataError as error:
        return [error for _ in conversations]
    return [
        _example(tokenizer, messages, texts=texts, end_id=end_id, template=template)
        for messages in conversations
    ]


def extended_ids(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    next_user: str,
    *,
    has_ended: bool,
    template: JinjaTemplate,
) -> list[int]:
    """`ids` (a prompt and its answer), the answer's end if it has not ended, and the next user's turn."""
    asked = Message(role=Role.USER, content=next_user)
    (text,) = _rendered(tokenizer, [([_QUESTION, _ANSWER, asked], True)], template=template)
    text = _with_header(tokenizer, text, template=template)
    _, found, between = text.text.partition(_ANSWER.content)
    if not found:
        raise DataError(
            "the chat template does not show what the assistant said before, so a conversation cannot go "
            "on; ask in a new one."
        )
    end, between = _leading_end(tokenizer, between)
    closed = [] if has_ended else [tokenizer.eos_id if end is None else end]
    return [*ids, *closed, *_Text(text=between, marker=text.marker).ids(tokenizer)]


def _example(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    texts: Iterator[_Text | DataError],
    end_id: int,
    template: JinjaTemplate,
) -> tuple[list[int], list[int]] | DataError:
    answers = [each.content for each in messages if each.role is Role.ASSISTANT]
    taken = [next(texts) for _ in answers]
    if not messages or messages[-1].role is not Role.ASSISTANT:
        return DataError("a training conversation must end with an assistant message; add the answer.")
    ids: list[int] = []
    spans: list[tuple[list[int], int]] = []  # an answer with all before it; where it begins
    for content, text in zip(answers, taken, strict=True):
        if isinstance(text, DataError):
            return text
        text = _with_header(tokenizer, text, template=template)
        prompt = text.ids(tokenizer)
        ids = [*prompt, *_answer_ids(tokenizer, content, prompt=text), end_id]
        spans.append((ids, len(prompt)))
    mask = [0] * len(ids)
    for shown, start in spans:
        if ids[: len(shown)] == shown:
            mask[start : len(shown)] = [1] * (len(shown) - start)
    return ids, mask


def _rendered(tokenizer: Tokenizer, asked: Sequence[Asked], *, template: JinjaTemplate) -> list[_Text]:
    texts = []
    for each in _tried(tokenizer, asked, template=template):
        if isinstance(each, DataError):
            raise each
        texts.append(each)
    return texts


def _tried(
    tokenizer: Tokenizer, asked: Sequence[Asked], *, template: JinjaTemplate
) -> list[_Text | DataError]:
    guard = guard_of(tokenizer)
    contents = (each.content for messages, _ in asked for each in messages)
    marker = unused_marker([template.text, *contents])
    conversations = [
        Conversation(
            turns=tuple((str(each.role), marked(each, guard=guard, marker=marker)) for each in messages),
            is_prompt=is_prompt,
        )
        for messages, is_prompt in asked
    ]
    spelled = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    ends = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
    specials = {key: spelled[each] for key, each in ends.items() if each in spelled}
    return [
        each if isinstance(each, DataError) else _Text(text=each, marker=marker)
        for each in template.render(conversations, specials=specials)
    ]


def _with_header(tokenizer: Tokenizer, text: _Text, *, template: JinjaTemplate) -> _Text:
    """A template that knows no generation prompt may still announce the assistant: as it does for a turn."""
    if "add_generation_prompt" in template.text:
        return text
    asked: list[Asked] = [([_QUESTION], True), ([_QUESTION, _ANSWER], False)]
    before, whole = (each.shown for each in _rendered(tokenizer, asked, template=template))
    header, found, _ = whole.removeprefix(before).partition(_ANSWER.content)
    if not found or not whole.startswith(before):
        raise DataError(
            "the chat template has no generation prompt, and what it writes does not show where an assistant "
            "speaks; add `add_generation_prompt` to it, or pass another template."
        )
    # A blank belongs to the answer's first token.
    return _Text(text=text.text + header, marker=text.marker) if header.strip() else text


def _end_id(tokenizer: Tokenizer, *, template: JinjaTemplate) -> int:
    """The token that the template writes behind an answer, where that ends one; else the usual end."""
    (text,) = _rendered(tokenizer, [([_QUESTION, _ANSWER], False)], template=template)
    end, _ = _leading_end(tokenizer, text.shown.rpartition(_ANSWER.content)[2])
    return tokenizer.eos_id if end is None else end


def _leading_end(tokenizer: Tokenizer, text: str) -> tuple[int | None, str]:
    """The token that ends an answer, if `text` begins with one, and the rest."""
    found = guard_of(tokenizer).splitter.search(text)
    if found is None or text[: found.start()].strip():
        return None, text
    end = guard_of(tokenizer).ids.get(found[0].strip())
    return (end, text[found.end() :]) if end in tokenizer.eos_ids else (None, text)


def _answer_ids(tokenizer: Tokenizer, content: str, *, prompt: _Text) -> list[int]:
    """What is left to say: a thought that the prompt has opened is not opened again."""
    _, found, blanks = prompt.text.rpartition(THINK)  # a user's own is broken by a marker
    if found and not blanks.strip() and content.startswith(THINK):
        content = content.removeprefix(THINK).removeprefix(blanks)
    return tokenizer.encode(content, trust=Trust.TAGS)
