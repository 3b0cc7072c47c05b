"""Conversations as token ids: templates, prompts, training examples, and the way back.

Why: three things must never disagree: what the sampler continues, what training scores, and what the base
model read. So the ids of a training example are the ids of its prompt plus the assistant's turn, by
construction, and a conversation that goes on after sampling keeps every sampled id (`extend`): decoding and
encoding again could split the same text elsewhere.
Our own templates are written down here; a foreign model's (`JinjaTemplate`) is taken wherever they are.
In:  `Message` records. Out: ids, with a loss mask for training.
Trust: users' and system texts never yield special ids; assistants' texts may hold think and answer tags only.
Not here: foreign templates (jinja_chat.py), their files (jinja_files.py), files of conversations
(data/conversations.py), judging answers (tasks/).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.tokenizer.jinja_chat import extended_ids, prompt_ids, training_ids
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.special import ASSISTANT, END_THINK, THINK, USER, Trust
from tenth.tokenizer.tokenizer import Tokenizer


class Template(StrEnum):
    """How a conversation is written down."""

    ZERO = "zero"  # R1-Zero's plain frame (R1, arXiv:2501.12948, table 1), in our own words
    ZERO_SHORT = "zero_short"  # the same without the explanation, for models with few tokens to spend
    DEEPSEEK = "deepseek"  # DeepSeek-V3's role tokens; earlier turns lose their thinking
    PLAIN = "plain"  # no frame at all: a base model continues the text of one turn


ChatTemplate = Template | JinjaTemplate

ZERO_FRAME = (
    "A conversation between User and Assistant. The User asks a question and the Assistant answers it. The "
    "Assistant first reasons about the question, then tells the User the answer. The reasoning goes between "
    "<think> and </think>, the answer between <answer> and </answer>: "
    "<think> the reasoning </think> <answer> the answer </answer>\n"
)
_FRAMES = {Template.ZERO: ZERO_FRAME, Template.ZERO_SHORT: ""}
_PLAIN_USER, _PLAIN_ASSISTANT = "User: ", "\nAssistant:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExample:
    """Ids of a whole conversation; `loss_mask` is 1 on the ids that the assistant has to produce."""

    ids: tuple[int, ...]
    loss_mask: tuple[int, ...]


class Answer(NamedTuple):
    """What an assistant said; `thinking` is None where it did not think."""

    thinking: str | None
    answer: str


def render_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], *, template: ChatTemplate, prefill: str = ""
) -> list[int]:
    """Ids up to the place where the assistant speaks. `prefill` starts its turn, such as "<think>\\n"."""
    if _last_speaker(messages) is not Role.USER:
        raise DataError("a prompt must end with a user message; drop the last assistant message.")
    if isinstance(template, JinjaTemplate):
        return prompt_ids(tokenizer, messages, template=template, prefill=prefill)
    system, turns = _checked(messages, template=template)
    ids = _opening(tokenizer, system, template=template)
    for message in turns:
        ids += _turn(tokenizer, message, template=template, is_last=False)
    return ids + tokenizer.encode(prefill, trust=Trust.TAGS)


def render_training(
    tokenizer: Tokenizer, messages: Sequence[Message], *, template: ChatTemplate
) -> TrainingExample:
    """A conversation to learn from; it ends with an assistant message, and its prompt is an exact prefix.

    The loss falls on every assistant turn that is shown whole, its end token included. A turn that lost its
    thinking (DEEPSEEK, all but the last) is context only: nobody should learn to answer like that.
    """
    (example,) = render_trainings(tokenizer, [messages], template=template)
    if isinstance(example, DataError):
        raise example
    return example


def render_trainings(
    tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]], *, template: ChatTemplate
) -> list[TrainingExample | DataError]:
    """`render_training` for many conversations, of which some may be none to learn from.

    For a foreign template that is a good deal cheaper than one by one.
    """
    if isinstance(template, JinjaTemplate):
        return [_as_example(each) for each in training_ids(tokenizer, conversations, template=template)]
    return [_tried_example(tokenizer, each, template=template) for each in conversations]


def _as_example(found: tuple[list[int], list[int]] | DataError) -> TrainingExample | DataError:
    if isinstance(found, DataError):
        return found
    ids, mask = found
    return TrainingExample(ids=tuple(ids), loss_mask=tuple(mask))


def _tried_example(
    tokenizer: Tokenizer, messages: Sequence[Message], *, template: Template
) -> TrainingExample | DataError:
    try:
        return _own_example(tokenizer, messages, template=template)
    except DataError as error:
        return error


def _own_example(tokenizer: Tokenizer, messages: Sequence[Message], *, template: Template) -> TrainingExample:
    system, turns = _checked(messages, template=template)
    if _last_speaker(turns) is not Role.ASSISTANT:
        raise DataError("a training conversation must end with an assistant message; add the answer.")
    ids = _opening(tokenizer, system, template=template)
    mask = [0] * len(ids)
    for position, message in enumerate(turns):
        is_last = position == len(turns) - 1
        new_ids = _turn(tokenizer, message, template=template, is_last=is_last)
        is_learned = message.role is Role.ASSISTANT and (
            is_last or not _loses_thinking(message, template=template)
        )
        ids += new_ids
        mask += [int(is_learned)] * len(new_ids)
    return TrainingExample(ids=tuple(ids), loss_mask=tuple(mask))


def render_text(question: str, answer: str, *, template: ChatTemplate) -> str:
    """One question and answer in a plain frame, as the text of a document for pre-training.

    Between the document's bos and eos its ids are exactly those of `render_training`.
    """
    frame = _FRAMES.get(template) if isinstance(template, Template) else None
    if frame is None:
        raise DataError(
            f"the template '{template}' has no frame of plain text, which a document needs; use 'zero'."
        )
    return f"{frame}{_PLAIN_USER}{question}{_PLAIN_ASSISTANT}{answer}"


def extend(
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    answer_ids: Sequence[int],
    next_user: str,
    *,
    template: ChatTemplate,
) -> list[int]:
    """The next prompt of a conversation under way: every id so far is kept, sampled ones too."""
    ids = [*prompt_ids, *answer_ids]
    has_ended = bool(answer_ids) and answer_ids[-1] in tokenizer.eos_ids
    if isinstance(template, JinjaTemplate):
        return extended_ids(tokenizer, ids, next_user, has_ended=has_ended, template=template)
    if template is Template.PLAIN:
        raise DataError("the template 'plain' has one turn, so no conversation goes on; ask in a new one.")
    if not has_ended:
        ids.append(tokenizer.eos_id)  # the answer was cut off by its length
    return ids + _turn(
        tokenizer, Message(role=Role.USER, content=next_user), template=template, is_last=False
    )


def parse_conversation(tokenizer: Tokenizer, ids: Sequence[int], *, template: ChatTemplate) -> list[Message]:
    """The messages that these ids were rendered from; the inverse of `render_training` and `render_prompt`.

    A plain frame cannot tell a user who writes a line "Assistant:" from an assistant; role tokens can.
    """
    if isinstance(template, JinjaTemplate) or template is Template.PLAIN:
        raise DataError(
            f"the template '{template}' cannot be read backwards; keep the messages that it was given."
        )
    text_ids = ids if tokenizer.bos_id is None else ids[1:]
    *whole, rest = _split_at(text_ids, tokenizer.eos_id)  # an answer that has not ended may be last
    parse_turn = _parse_deepseek if template is Template.DEEPSEEK else _parse_plain
    system, messages = "", []
    for position, segment in enumerate([*whole, rest] if rest else whole):
        before, question, answer = parse_turn(tokenizer, segment, frame=_FRAMES.get(template, ""))
        system = before if position == 0 else system
        messages.append(Message(role=Role.USER, content=question))
        if position < len(whole) or answer:
            messages.append(Message(role=Role.ASSISTANT, content=answer))
    return [Message(role=Role.SYSTEM, content=system), *messages] if system else messages


def split_thinking(text: str) -> Answer:
    """Thinking and answer of an assistant's text; a thought cut off by its length has an empty answer.

    The opening tag may be missing: a prompt that ends with `<think>` has it already.
    """
    thinking, end, answer = text.partition(END_THINK)
    if end or thinking.startswith(THINK):
        return Answer(thinking.removeprefix(THINK), answer)
    return Answer(None, text)


def join_thinking(parts: Answer) -> str:
    """The assistant's text; `split_thinking` undoes it."""
    return parts.answer if parts.thinking is None else f"{THINK}{parts.thinking}{END_THINK}{parts.answer}"


def _last_speaker(messages: Sequence[Message]) -> Role | None:
    roles = [message.role for message in messages if message.role is not Role.SYSTEM]
    return roles[-1] if roles else None


def _checked(messages: Sequence[Message], *, template: Template) -> tuple[list[str], list[Message]]:
    """The system texts, and the turns; each answer must follow a question."""
    system = [message.content for message in messages if message.role is Role.SYSTEM]
    turns = [message for message in messages if message.role is not Role.SYSTEM]
    for before, message in zip([None, *turns], turns, strict=False):
        if (message.role is Role.ASSISTANT) != (before is not None and before.role is Role.USER):
            raise DataError(
                f"the {message.role} message '{message.content[:40]}' is out of turn; "
                "user and assistant messages must alternate and a user must begin."
            )
    if template is Template.PLAIN and len(turns) > 2:
        raise DataError(
            f"the template 'plain' has one question and one answer, and these are {len(turns)} messages; "
            "name the model's own chat template."
        )
    return system, turns


def _opening(tokenizer: Tokenizer, system: Sequence[str], *, template: Template) -> list[int]:
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    text = "\n\n".join(system)
    if template is Template.DEEPSEEK:
        return [*begin, *tokenizer.encode_plain(text)]
    if template is Template.PLAIN:
        return begin + (tokenizer.encode_plain(text + "\n\n") if system else [])
    instructions = tokenizer.encode_plain(text + "\n") if system else []
    return [*begin, *instructions, *tokenizer.encode(_FRAMES[template], trust=Trust.TAGS)]


def _turn(tokenizer: Tokenizer, message: Message, *, template: Template, is_last: bool) -> list[int]:
    """One message. A user's turn ends where the assistant has to speak, an assistant's with eos."""
    if message.role is Role.ASSISTANT:
        content = message.content
        if not is_last and _loses_thinking(message, template=template):
            content = content.rpartition(END_THINK)[2]
        return [*tokenizer.encode(content, trust=Trust.TAGS), tokenizer.eos_id]
    if template is Template.DEEPSEEK:
        return [tokenizer.id_of(USER), *tokenizer.encode_plain(message.content), tokenizer.id_of(ASSISTANT)]
    if template is Template.PLAIN:
        return tokenizer.encode_plain(message.content)
    return tokenizer.encode_plain(f"{_PLAIN_USER}{message.content}{_PLAIN_ASSISTANT}")


def _loses_thinking(message: Message, *, template: Template) -> bool:
    return template is Template.DEEPSEEK and END_THINK in message.content


def _parse_deepseek(tokenizer: Tokenizer, ids: Sequence[int], *, frame: str) -> tuple[str, str, str]:
    del frame  # only the plain templates have one
    before, *turns = _split_at(ids, tokenizer.id_of(USER))
    parts = [part for turn in turns for part in _split_at(turn, tokenizer.id_of(ASSISTANT))]
    if len(turns) != 1 or len(parts) != 2:
        raise DataError(
            "these ids are no conversation with role tokens; were they rendered by another template?"
        )
    question, answer = parts
    return tokenizer.decode(before), tokenizer.decode(question), tokenizer.decode(answer)


def _parse_plain(tokenizer: Tokenizer, ids: Sequence[int], *, frame: str) -> tuple[str, str, str]:
    before, _, rest = tokenizer.decode(ids).partition(frame + _PLAIN_USER)
    if not rest:  # a later turn: the frame is said once
        before, _, rest = before.partition(_PLAIN_USER)
    question, _, answer = rest.partition(_PLAIN_ASSISTANT)
    return before.removesuffix("\n"), question, answer


def _split_at(ids: Sequence[int], token_id: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for each in ids:
        if each == token_id:
            parts.append([])
        else:
            parts[-1].append(each)
    return parts
