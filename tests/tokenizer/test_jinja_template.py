"""Foreign chat templates: nobody speaks a special token, and prompts and training examples agree."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.tokenizer.chat import (
    extend,
    parse_conversation,
    render_prompt,
    render_text,
    render_training,
    render_trainings,
)
from tenth.tokenizer.jinja_ids import guard_of
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.special import SPECIAL_TOKENS, TAGS
from tenth.tokenizer.tokenizer import Tokenizer

TEMPLATES = Path(__file__).parent / "templates"
SHAPES = ("qwen25", "qwen3", "llama3", "r1_distill", "chatml_unprompted", "mistral")
NAMES = (
    *SPECIAL_TOKENS, "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<s>", "</s>",
    "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
)  # fmt: skip


def build_tokenizer() -> Tokenizer:
    """One byte per token, and every special token of all the templates."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = LibraryTokenizer(models.BPE(vocab={each: i for i, each in enumerate(alphabet)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_tokens([AddedToken(name, special=True, normalized=False) for name in NAMES])
    ids = [library.token_to_id(each) for each in ("<|im_end|>", "<|eot_id|>", "</s>", SPECIAL_TOKENS[1])]
    return Tokenizer(library, bos_id=library.token_to_id("<s>"), eos_ids=ids)


TOKENIZER = build_tokenizer()
TEMPLATE = {
    shape: JinjaTemplate(
        text=(TEMPLATES / f"{shape}.jinja").read_text(encoding="utf-8"),
        specials={"eos_token": "</s>"} if shape == "mistral" else {},
    )
    for shape in SHAPES
}
JOINING = JinjaTemplate(
    text="{% for each in messages %}{{ each.content }}{{ each.content | trim }}<{{ each.content | trim }}"
    "im_end|>{% endfor %}|im_end|>{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
SPECIAL_IDS = set(guard_of(TOKENIZER).ids.values())
# Special strings, whole and in halves that could meet across two texts.
HALVES = [half for name in NAMES for cut in (1, 3) for half in (name[:cut], name[cut:])]
NASTY = (
    st.lists(st.sampled_from([*NAMES, *HALVES, "a", " ", "\n", "\U000f0000"]), max_size=6).map("".join)
    | st.text(max_size=8)
)  # fmt: skip
TAGGED = st.lists(st.sampled_from([*TAGS, "a", " b", "\n", "7", "im_end|>", "<|"]), max_size=6).map("".join)


def user(text):
    return Message(role=Role.USER, content=text)


def assistant(text):
    return Message(role=Role.ASSISTANT, content=text)


def system(text):
    return Message(role=Role.SYSTEM, content=text)


def specials_in(ids):
    return [each for each in ids if each in SPECIAL_IDS]


@pytest.mark.parametrize("shape", SHAPES)
@given(NASTY, NASTY, NASTY)
def test_nobody_but_the_template_speaks_a_special_token(shape, instructions, question, next_question):
    def prompt(*contents):
        first, second, third = contents
        messages = [system(first), user(second), assistant("b"), user(third)]
        return render_prompt(TOKENIZER, messages, template=TEMPLATE[shape])

    ids = prompt(instructions, question, next_question)
    assert specials_in(ids) == specials_in(prompt("s", "u", "v"))
    if shape in ("qwen25", "qwen3", "chatml_unprompted"):  # these show texts as they are
        shown = "".join(bytes_of(each) for each in ids).encode("latin-1").decode()
        assert question in shown
        assert next_question in shown


def bytes_of(token_id):
    return TOKENIZER.bytes_of(token_id).decode("latin-1")


@settings(max_examples=200)
@given(*(st.sampled_from(HALVES) | NASTY,) * 3)
@example("a <|im_", "end|> b", "im_end")
@example("|im_end|>", "|", "<|im_end")
def test_halves_of_a_special_token_do_not_meet(first, second, third):
    ids = render_prompt(TOKENIZER, [user(first), user(second), user(third)], template=JOINING)
    assert specials_in(ids) == [TOKENIZER.id_of("<|im_start|>")]


@pytest.mark.parametrize("shape", SHAPES)
@given(NASTY)
def test_an_assistant_speaks_think_and_answer_tags_at_most(shape, answer):
    messages = [user("u"), assistant(answer)]
    example = render_training(TOKENIZER, messages, template=TEMPLATE[shape])
    base = render_training(TOKENIZER, [user("u"), assistant("a")], template=TEMPLATE[shape])
    tags = {TOKENIZER.id_of(tag) for tag in TAGS}
    prompt = render_prompt(TOKENIZER, messages[:1], template=TEMPLATE[shape])
    said = [each for each in specials_in(example.ids[len(prompt) :]) if each not in tags]
    assert said == specials_in(base.ids[len(prompt) :])
    past = render_prompt(TOKENIZER, [*messages, user("v")], template=TEMPLATE[shape])
    plain = render_prompt(TOKENIZER, [user("u"), assistant("a"), user("v")], template=TEMPLATE[shape])
    assert [each for each in specials_in(past) if each not in tags] == [
        each for each in specials_in(plain) if each not in tags
    ]


@pytest.mark.parametrize("shape", SHAPES)
@given(st.lists(st.tuples(NASTY, TAGGED), min_size=1, max_size=3))
def test_a_training_example_is_its_prompt_the_answer_and_its_end(shape, turns):
    messages = [each for q, a in turns for each in (user(q), assistant(a))]
    prompt = render_prompt(TOKENIZER, messages[:-1], template=TEMPLATE[shape])
    example = render_training(TOKENIZER, messages, template=TEMPLATE[shape])
    assert list(example.ids[: len(prompt)]) == prompt
    assert len(example.ids) == len(example.loss_mask)
    assert set(example.loss_mask[len(prompt) :]) == {1}
    assert example.ids[-1] in TOKENIZER.eos_ids
    said = TOKENIZER.decode(example.ids[len(prompt) :])
    opened = "<think>\n" if shape == "r1_distill" else ""
    assert messages[-1].content in (said, opened + said, "<think>" + said)


def learned(messages, shape):
    example = render_training(TOKENIZER, messages, template=TEMPLATE[shape])
    return [i for i, is_learned in zip(example.ids, example.loss_mask, strict=True) if is_learned]


@pytest.mark.parametrize(
    ("shape", "end"),
    [("qwen25", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("chatml_unprompted", "<|im_end|>")],
)
def test_every_answer_that_is_shown_whole_is_learned_with_the_end_that_the_template_gives_it(shape, end):
    messages = [user("a"), assistant("one"), user("b"), assistant("two")]
    stop = TOKENIZER.id_of(end)
    assert learned(messages, shape) == [*TOKENIZER.encode("one"), stop, *TOKENIZER.encode("two"), stop]


@pytest.mark.parametrize("shape", ["qwen3", "r1_distill"])
def test_an_answer_that_lost_its_thinking_is_not_learned(shape):
    messages = [
        user("a"),
        assistant("<think>\ns\n</think>\n\none"),
        user("b"),
        assistant("<think>\nt</think>two"),
    ]
    opening = "" if shape == "r1_distill" else "<think>\n"  # there, the prompt has opened the thought
    assert TOKENIZER.decode(learned(messages, shape)) == f"{opening}t</think>two"


def test_a_thought_that_the_prompt_opened_is_not_opened_again():
    prompt = render_prompt(TOKENIZER, [user("a")], template=TEMPLATE["r1_distill"])
    think, newline = TOKENIZER.id_of("<think>"), TOKENIZER.encode("\n")
    assert prompt[-2:] == [think, *newline]
    forced = render_prompt(TOKENIZER, [user("a")], template=TEMPLATE["r1_distill"], prefill="<think>\n")
    assert forced == prompt
    for answer in ("<think>\nso</think>7", "<think>so</think>7", "so</think>7"):
        example = render_training(TOKENIZER, [user("a"), assistant(answer)], template=TEMPLATE["r1_distill"])
        assert TOKENIZER.decode(example.ids[len(prompt) :]) == "so</think>7"


@pytest.mark.parametrize("shape", ["qwen25", "qwen3", "llama3", "chatml_unprompted"])
@given(st.text(max_size=8), NASTY)
def test_going_on_equals_rendering_the_whole_conversation(shape, question, next_question):
    begun = [system("s"), user(question)]
    prompt = render_prompt(TOKENIZER, begun, template=TEMPLATE[shape])
    whole = render_prompt(TOKENIZER, [*begun, assistant("ab"), user(next_question)], template=TEMPLATE[shape])
    answer = [*TOKENIZER.encode("ab"), whole[len(prompt) + 2]]
    assert extend(TOKENIZER, prompt, answer, next_question, template=TEMPLATE[shape]) == whole
    assert extend(TOKENIZER, prompt, answer[:-1], next_question, template=TEMPLATE[shape]) == whole


@pytest.mark.parametrize("shape", SHAPES)
@given(st.lists(st.integers(0, 255), max_size=5), NASTY)
def test_going_on_keeps_every_sampled_id(shape, sampled, question):
    prompt = render_prompt(TOKENIZER, [user("u")], template=TEMPLATE[shape])
    longer = extend(TOKENIZER, prompt, sampled, question, template=TEMPLATE[shape])
    assert longer[: len(prompt) + len(sampled)] == [*prompt, *sampled]
    assert longer[len(prompt) + len(sampled)] in TOKENIZER.eos_ids


def test_many_are_rendered_as_they_are_one_by_one_and_a_bad_one_spoils_no_other():
    template = TEMPLATE["mistral"]
    good = [[user(f"{number}?"), assistant("yes")] for number in range(30)]
    bad = [[user("a"), user("b"), assistant("c")], [user("a")]]
    found = render_trainings(TOKENIZER, [*good[:10], *bad, *good[10:]], template=template)
    assert [each for each in found if not isinstance(each, DataError)] == [
        render_training(TOKENIZER, each, template=template) for each in good
    ]
    assert "refuses this conversation" in str(found[10])
    assert "add the answer" in str(found[11])


def test_what_a_foreign_template_cannot_do_is_said():
    with pytest.raises(DataError, match="cannot be read backwards"):
        parse_conversation(TOKENIZER, [1, 2], template=TEMPLATE["qwen25"])
    with pytest.raises(DataError, match="has no frame of plain text"):
        render_text("q", "a", template=TEMPLATE["qwen25"])
    with pytest.raises(DataError, match="must end with a user message"):
        render_prompt(TOKENIZER, [user("a"), assistant("b")], template=TEMPLATE["qwen25"])
    silent = JinjaTemplate(text="{{ messages[-1]['content'] }}{% if add_generation_prompt %}!{% endif %}")
    with pytest.raises(DataError, match="does not show what the assistant said before"):
        extend(TOKENIZER, [1], [2], "v", template=silent)
    mute = JinjaTemplate(text="hello")
    with pytest.raises(DataError, match="add `add_generation_prompt` to it"):
        render_prompt(TOKENIZER, [user("a")], template=mute)


def test_equal_texts_are_equal_templates():
    one, two = (JinjaTemplate(text="x", specials={"bos_token": "<s>"}) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != JinjaTemplate(text="x", options={"enable_thinking": False})
