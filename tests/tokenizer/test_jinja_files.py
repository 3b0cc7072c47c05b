"""Chat templates in directories: found wherever they are kept, and ours as Jinja say what ours say."""

import json
from functools import cache

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError
from tenth.base.records import Message, Role
from tenth.tokenizer.chat import Template, render_prompt, render_training
from tenth.tokenizer.jinja_files import OWN_TEXTS, read_template, save_template, template_from
from tenth.tokenizer.jinja_template import MAX_TEMPLATE_CHARS, JinjaTemplate
from tenth.tokenizer.special import BOS, EOS
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(
    ["User: What is 3+45?\nAssistant:<think>45+3=48</think> 你好 the answer"] * 3, vocab_size=420
)
WORDS = st.text(alphabet=" ab3.,:?\n你é'\\{}%", min_size=1, max_size=10)
# Ours encode an answer by itself; what begins a word or a tag is cut there in one text, too.
ANSWERS = st.sampled_from([" 7", "<think>3+4</think>7", "so\n", "a {{ 7 }}", "你好", "<answer>7</answer>"])


def messages_of(instructions, turns):
    opening = [] if instructions is None else [Message(role=Role.SYSTEM, content=instructions)]
    pairs = [
        (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
        for question, answer in turns
    ]
    return [*opening, *(each for pair in pairs for each in pair)]


@cache
def compiled(template):
    """As transformers compiles a template."""
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(OWN_TEXTS[template])


def rendered_ids(template, messages, *, is_prompt):
    text = compiled(template).render(
        messages=[{"role": str(each.role), "content": each.content} for each in messages],
        add_generation_prompt=is_prompt,
        bos_token=BOS,
        eos_token=EOS,
    )
    return TOKENIZER.encode(text)


@pytest.mark.parametrize("template", OWN_TEXTS)
@given(st.none() | WORDS, st.lists(st.tuples(WORDS, ANSWERS), min_size=1, max_size=3))
def test_our_templates_as_jinja_give_the_ids_of_our_own_rendering(template, instructions, turns):
    if template is Template.PLAIN:
        turns = [(turns[0][0].rstrip() or "a", turns[0][1])]
    messages = messages_of(instructions, turns)
    asked = messages[:-1]
    assert rendered_ids(template, asked, is_prompt=True) == render_prompt(TOKENIZER, asked, template=template)
    example = render_training(TOKENIZER, messages, template=template)
    assert rendered_ids(template, messages, is_prompt=False) == list(example.ids)


@pytest.mark.parametrize("template", Template)
def test_our_templates_are_known_again(tmp_path, template):
    save_template(tmp_path, template)
    assert read_template(tmp_path) is template
    assert template_from(OWN_TEXTS[template] + "\n") is template


def test_a_foreign_template_is_stored_as_it_was_read(tmp_path):
    text = "{{ bos_token }}{{ messages[0]['content'] }} é\n"
    save_template(tmp_path, JinjaTemplate(text=text))
    values = {"bos_token": {"content": "<s>", "special": True}, "eos_token": "</s>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values | {"chat_template": "another"}))
    (tmp_path / "additional_chat_templates").mkdir()
    template = read_template(tmp_path)
    assert template == JinjaTemplate(text=text, specials={"bos_token": "<s>", "eos_token": "</s>"})


def test_half_a_character_spoils_no_directory(tmp_path):
    save_template(tmp_path, JinjaTemplate(text="a\ud800b"))
    assert read_template(tmp_path) == JinjaTemplate(text="a?b")


def in_config(tmp_path, value):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    return read_template(tmp_path)


def test_a_template_may_stand_in_the_tokenizers_configuration(tmp_path):
    assert in_config(tmp_path, "a{{ 1 }}") == JinjaTemplate(text="a{{ 1 }}")
    named = [{"name": "tool_use", "template": "b"}, {"name": "default", "template": "a"}, 3]
    assert in_config(tmp_path, named) == JinjaTemplate(text="a")


def test_a_directory_without_a_template_continues_text(tmp_path):
    assert read_template(tmp_path) is Template.PLAIN
    assert in_config(tmp_path, None) is Template.PLAIN


def test_what_is_no_template_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template is a int, not a text"):
        in_config(tmp_path, 3)
    with pytest.raises(CheckpointError, match=r"none of its chat templates \(rag\) is called 'default'"):
        in_config(tmp_path, [{"name": "rag", "template": "x"}])
    with pytest.raises(CheckpointError, match="chat_template is a dict, not a text"):
        in_config(tmp_path, [{"name": "default", "template": {}}])
    with pytest.raises(CheckpointError, match="1,048,577 characters and 1,048,576 are the most"):
        in_config(tmp_path, "x" * (MAX_TEMPLATE_CHARS + 1))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        read_template(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is not UTF-8"):
        read_template(tmp_path)
