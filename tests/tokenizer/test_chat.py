from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.tokenizer.chat import (
    Answer,
    Template,
    extend,
    join_thinking,
    parse_conversation,
    render_prompt,
    render_text,
    render_training,
    split_thinking,
)
from tenth.tokenizer.special import ASSISTANT, SPECIAL_TOKENS, TAGS, THINK, USER
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(
    ["User: What is 3+45?\nAssistant:<think>45+3=48</think> 你好 the answer"] * 3, vocab_size=420
)
GOLDEN = Path(__file__).parents[3] / "shared/data/golden/deepseekv3_chat_template.jinja"

TEXTS = st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "a", " b", "\n", "User", ":", " ", "你", "7", "é", "...", "\u2028"]),
    max_size=8,
).map("".join) | st.text(max_size=12)
TAGGED = st.lists(st.sampled_from([*TAGS, "a", " b", "\n", "...", ": ", " ", "7"]), max_size=8).map("".join)


def user(text):
    return Message(role=Role.USER, content=text)


def assistant(text):
    return Message(role=Role.ASSISTANT, content=text)


def system(text):
    return Message(role=Role.SYSTEM, content=text)


@st.composite
def conversations(draw, questions=TEXTS, answers=TAGGED):
    turns = draw(st.lists(st.tuples(questions, answers), min_size=1, max_size=3))
    opening = [system(draw(questions))] if draw(st.booleans()) else []
    return opening + [message for q, a in turns for message in (user(q), assistant(a))]


def test_the_short_plain_template_is_the_question_between_two_names():
    ids = render_prompt(TOKENIZER, [user("3+4=?")], template=Template.ZERO_SHORT)
    assert ids[0] == TOKENIZER.bos_id
    assert TOKENIZER.decode(ids) == "User: 3+4=?\nAssistant:"


def test_the_zero_template_explains_the_tags_and_ends_where_the_assistant_speaks():
    ids = render_prompt(TOKENIZER, [user("3+4=?")], template=Template.ZERO)
    assert TOKENIZER.decode(ids).endswith("\nUser: 3+4=?\nAssistant:")
    assert [ids.count(TOKENIZER.id_of(tag)) for tag in TAGS] == [2, 2, 2, 2]


def test_the_deepseek_template_has_roles_as_single_tokens_and_no_role_for_the_system():
    ids = render_prompt(TOKENIZER, [system("S"), user("U")], template=Template.DEEPSEEK)
    plain = TOKENIZER.encode_plain
    assert ids == [
        TOKENIZER.bos_id, *plain("S"), TOKENIZER.id_of(USER), *plain("U"), TOKENIZER.id_of(ASSISTANT)
    ]  # fmt: skip


def test_a_prefill_starts_the_assistants_turn():
    ids = render_prompt(TOKENIZER, [user("U")], template=Template.DEEPSEEK, prefill="<think>\n")
    assert ids[-2:] == [TOKENIZER.id_of(THINK), *TOKENIZER.encode("\n")]


def test_a_past_turn_loses_its_thinking_and_its_loss_in_the_deepseek_template_only():
    messages = [user("a"), assistant("<think>t</think>b"), user("c"), assistant("<think>u</think>d")]
    deepseek = render_training(TOKENIZER, messages, template=Template.DEEPSEEK)
    zero = render_training(TOKENIZER, messages, template=Template.ZERO_SHORT)
    learned = [[i for i, m in zip(e.ids, e.loss_mask, strict=True) if m] for e in (deepseek, zero)]
    assert TOKENIZER.decode(learned[0]) == "<think>u</think>d"
    assert TOKENIZER.decode(learned[1]) == "<think>t</think>b<think>u</think>d"
    assert (
        TOKENIZER.decode(deepseek.ids)
        == "<｜User｜>a<｜Assistant｜>b<｜User｜>c<｜Assistant｜><think>u</think>d"
    )


@given(conversations(), st.sampled_from(Template))
def test_training_ids_extend_the_prompt_and_the_loss_falls_on_the_answer_and_its_end(messages, template):
    if template is Template.PLAIN:
        messages = [each for each in messages if each.role is Role.SYSTEM] + messages[-2:]
    prompt = render_prompt(TOKENIZER, messages[:-1], template=template)
    example = render_training(TOKENIZER, messages, template=template)
    assert list(example.ids[: len(prompt)]) == prompt
    assert len(example.ids) == len(example.loss_mask)
    assert set(example.loss_mask[len(prompt) :]) == {1}
    assert example.ids[-1] == TOKENIZER.eos_id
    assert TOKENIZER.decode(example.ids[len(prompt) :]) == messages[-1].content


def test_the_plain_template_is_the_text_itself():
    prompt = render_prompt(TOKENIZER, [user("Once")], template=Template.PLAIN)
    assert prompt == [TOKENIZER.bos_id, *TOKENIZER.encode("Once")]
    answer = [*TOKENIZER.encode(" upon"), TOKENIZER.eos_id]
    example = render_training(TOKENIZER, [user("Once"), assistant(" upon")], template=Template.PLAIN)
    assert list(example.ids) == prompt + answer
    assert list(example.loss_mask) == [0] * len(prompt) + [1] * len(answer)


def test_the_plain_template_has_one_turn():
    with pytest.raises(DataError, match="has one question and one answer, and these are 3 messages"):
        render_prompt(TOKENIZER, [user("a"), assistant("b"), user("c")], template=Template.PLAIN)
    with pytest.raises(DataError, match="ask in a new one"):
        extend(TOKENIZER, [0, 20], [21], "c", template=Template.PLAIN)
    with pytest.raises(DataError, match="'plain' cannot be read backwards"):
        parse_conversation(TOKENIZER, [0, 20], template=Template.PLAIN)


@given(conversations(), st.sampled_from([Template.ZERO, Template.ZERO_SHORT]))
def test_exactly_the_assistants_turns_are_learned(messages, template):
    example = render_training(TOKENIZER, messages, template=template)
    learned = [i for i, m in zip(example.ids, example.loss_mask, strict=True) if m]
    answers = [m.content for m in messages if m.role is Role.ASSISTANT]
    assert learned.count(TOKENIZER.eos_id) == len(answers)
    assert TOKENIZER.decode(learned) == "".join(answers)


@given(TEXTS, TEXTS)
def test_no_user_can_speak_a_special_token(instructions, question):
    for template in Template:
        base = render_prompt(TOKENIZER, [system("s"), user("u")], template=template)
        ids = render_prompt(TOKENIZER, [system(instructions), user(question)], template=template)
        assert [i for i in ids if i < len(SPECIAL_TOKENS)] == [i for i in base if i < len(SPECIAL_TOKENS)]


@given(TEXTS)
def test_no_assistant_text_can_change_the_speaker(answer):
    ids = render_training(TOKENIZER, [user("u"), assistant(answer)], template=Template.DEEPSEEK).ids
    assert (
        ids.count(TOKENIZER.id_of(USER))
        == ids.count(TOKENIZER.id_of(ASSISTANT))
        == ids.count(TOKENIZER.eos_id)
        == 1
    )


@given(
    st.lists(st.integers(2, TOKENIZER.vocab_size - 1), max_size=8),
    st.booleans(),
    TEXTS,
    st.sampled_from([each for each in Template if each is not Template.PLAIN]),
)
def test_a_conversation_that_goes_on_keeps_every_sampled_id(sampled, has_ended, question, template):
    prompt = render_prompt(TOKENIZER, [user("u")], template=template)
    answer = [*sampled, TOKENIZER.eos_id] if has_ended else sampled
    longer = extend(TOKENIZER, prompt, answer, question, template=template)
    assert longer[: len(prompt) + len(sampled) + 1] == [*prompt, *sampled, TOKENIZER.eos_id]


def test_extending_by_the_ids_of_a_text_equals_rendering_the_whole_conversation():
    whole = [user("u"), assistant("<think>t</think>a"), user("v")]
    prompt = render_prompt(TOKENIZER, whole[:1], template=Template.ZERO)
    answer = TOKENIZER.encode(whole[1].content)
    extended = extend(TOKENIZER, prompt, answer, "v", template=Template.ZERO)
    assert extended == render_prompt(TOKENIZER, whole, template=Template.ZERO)


@given(
    TEXTS.filter(lambda text: "<" not in text), TAGGED, st.sampled_from([Template.ZERO, Template.ZERO_SHORT])
)
def test_a_pretraining_document_has_the_ids_that_the_sampler_will_see(question, answer, template):
    example = render_training(TOKENIZER, [user(question), assistant(answer)], template=template)
    document = TOKENIZER.encode(render_text(question, answer, template=template))
    assert document == list(example.ids[1:-1])


@given(conversations(answers=TAGGED.filter(lambda text: "</think>" not in text)))
def test_parsing_undoes_rendering_with_role_tokens_whatever_the_texts_say(messages):
    messages = [m for m in messages if m.role is not Role.SYSTEM or m.content]
    ids = render_training(TOKENIZER, messages, template=Template.DEEPSEEK).ids
    assert parse_conversation(TOKENIZER, ids, template=Template.DEEPSEEK) == messages


@given(
    conversations(questions=TEXTS.filter(lambda text: "User" not in text and "Assistant" not in text)),
    st.sampled_from([Template.ZERO, Template.ZERO_SHORT]),
)
def test_parsing_undoes_rendering_in_a_plain_frame(messages, template):
    messages = [m for m in messages if m.role is not Role.SYSTEM or m.content]
    ids = render_training(TOKENIZER, messages, template=template).ids
    assert parse_conversation(TOKENIZER, ids, template=template) == messages
    prompt = render_prompt(TOKENIZER, messages[:-1], template=template)
    assert parse_conversation(TOKENIZER, prompt, template=template) == messages[:-1]


@given(st.none() | st.text().filter(lambda text: "</think>" not in text), st.text())
def test_splitting_undoes_joining_thought_and_answer(thinking, answer):
    parts = Answer(thinking, answer)
    assume(thinking is not None or ("</think>" not in answer and not answer.startswith("<think>")))
    assert split_thinking(join_thinking(parts)) == parts


def test_a_thought_that_was_cut_off_has_no_answer():
    assert split_thinking("<think>so 3+4") == Answer("so 3+4", "")


def test_a_thought_whose_opening_tag_stood_in_the_prompt_is_still_a_thought():
    assert split_thinking("so 7</think>7") == Answer("so 7", "7")


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "must end with a user message"),
        ([user("a"), assistant("b")], "must end with a user message"),
        ([assistant("b"), user("a")], "assistant message 'b' is out of turn"),
        ([user("a"), user("b")], "user message 'b' is out of turn"),
    ],
)
def test_a_conversation_out_of_turn_is_refused_by_name(messages, what):
    with pytest.raises(DataError, match=what):
        render_prompt(TOKENIZER, messages, template=Template.ZERO)


def test_ids_of_a_plain_frame_do_not_parse_as_role_tokens():
    ids = render_prompt(TOKENIZER, [user("a")], template=Template.ZERO)
    with pytest.raises(DataError, match="rendered by another template"):
        parse_conversation(TOKENIZER, ids, template=Template.DEEPSEEK)


def test_training_needs_an_answer():
    with pytest.raises(DataError, match="add the answer"):
        render_training(TOKENIZER, [user("a")], template=Template.ZERO)


@settings(max_examples=50)
@given(conversations(questions=st.text(max_size=12)))
def test_the_deepseek_template_equals_the_published_one(messages):
    jinja2 = pytest.importorskip("jinja2")
    if not GOLDEN.exists():
        pytest.skip("the published template is not here")
    published = jinja2.Environment().from_string(GOLDEN.read_text(encoding="utf-8"))

    def rendered(part, **options):
        plain = [{"role": str(m.role), "content": m.content} for m in part]
        return published.render(messages=plain, bos_token="<｜begin▁of▁sentence｜>", **options)

    def ours(part):
        ids = render_prompt(TOKENIZER, part, template=Template.DEEPSEEK, prefill="<think>\n")
        eos = "<｜end▁of▁sentence｜>"
        texts = [[eos] if i == TOKENIZER.eos_id else [i] for i in ids]
        pieces, run = ["<｜begin▁of▁sentence｜>"], []
        for text in [*texts[1:], [eos]]:
            if text == [eos]:
                pieces += [TOKENIZER.decode(run), eos]
                run = []
            else:
                run += text
        return "".join(pieces[:-1])

    assert ours(messages[:-1]) == rendered(messages[:-1], add_generation_prompt=True)
