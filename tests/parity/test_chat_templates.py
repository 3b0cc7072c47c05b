"""Foreign chat templates give the ids that transformers gives, and where it would let a user speak a special
token, they do not."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.tokenizer.chat import Template, render_prompt
from tenth.tokenizer.jinja_files import OWN_TEXTS, read_template, save_template
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.special import SPECIAL_TOKENS
from tenth.tokenizer.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TEMPLATES = Path(__file__).parents[1] / "tokenizer" / "templates"
GOLDEN = Path(__file__).parents[3] / "shared/data/golden/deepseekv3_chat_template.jinja"
CORPUS = ["system user assistant Be of help. The answer is 42.\n\nSo 3 + 4 = 7 你好 <b> | > [x]"] * 3
SPECIALS = {
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    "llama": ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    "deepseek": [*SPECIAL_TOKENS],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
}
# template file: special tokens, bos, eos
SHAPES = {
    "qwen25": ("chatml", None, "<|im_end|>"),
    "qwen3": ("chatml", None, "<|im_end|>"),
    "chatml_unprompted": ("chatml", None, "<|im_end|>"),
    "llama3": ("llama", "<|begin_of_text|>", "<|eot_id|>"),
    "r1_distill": ("deepseek", SPECIAL_TOKENS[0], SPECIAL_TOKENS[1]),
    "mistral": ("mistral", "<s>", "</s>"),
}
TEXTS = st.text(alphabet=" ab3.,:;!?<>|[]/'\n\t你é\u00a0", max_size=16) | st.text(max_size=12)


def library_tokenizer(specials, *, is_byte_level=True):
    """A byte-level vocabulary, or one that puts a blank before the first word only, as newer Llamas do."""
    if is_byte_level:
        library = LibraryTokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        library.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    else:
        library = LibraryTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        library.decoder = decoders.Metaspace(prepend_scheme="first")
        byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *byte_tokens])
        library.train_from_iterator(CORPUS, trainer)
        spec = json.loads(library.to_str())
        library = LibraryTokenizer.from_str(json.dumps({**spec, "added_tokens": []}))
    # As in Qwen3: think tags are added tokens that are not special.
    library.add_tokens([AddedToken(each, special="think" not in each, normalized=False) for each in specials])
    return library


def save(directory, shape, *, is_byte_level=True):
    """A model's directory, as far as chatting needs it."""
    kind, bos, eos = SHAPES[shape]
    library_tokenizer(SPECIALS[kind], is_byte_level=is_byte_level).save(str(directory / "tokenizer.json"))
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
        "chat_template": (TEMPLATES / f"{shape}.jinja").read_text(encoding="utf-8"),
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture(scope="module")
def models_of(tmp_path_factory):
    """(ours, template, theirs) of a shape, made once."""
    made = {}

    def make(shape, *, is_byte_level=True):
        key = shape, is_byte_level
        if key not in made:
            directory = tmp_path_factory.mktemp("model")
            save(directory, shape, is_byte_level=is_byte_level)
            made[key] = both(directory)
        return made[key]

    return make


def both(directory):
    ours, template = Tokenizer.load(directory), read_template(directory)
    return ours, template, transformers.AutoTokenizer.from_pretrained(directory)


@st.composite
def benign(draw, specials, *, texts=TEXTS, answers=TEXTS):
    """A conversation that ends with a question; nobody says anything like a special token."""
    contents = texts.filter(lambda text: not any(special in text for special in specials))
    said = answers.filter(
        lambda text: not any(special in text for special in specials if "think" not in special)
    )
    messages = [Message(role=Role.SYSTEM, content=draw(contents))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages.append(Message(role=Role.USER, content=draw(contents)))
        messages.append(Message(role=Role.ASSISTANT, content=draw(said)))
    return [*messages, Message(role=Role.USER, content=draw(contents))]


def their_ids(theirs, messages, *, is_prompt=True, **options):
    chat = [{"role": str(each.role), "content": each.content} for each in messages]
    rows = theirs.apply_chat_template(chat, add_generation_prompt=is_prompt, tokenize=True, **options)
    return list(rows["input_ids"])


THOUGHTS = st.sampled_from(["<think>\nso\n</think>\n\n7", "<think>a</think>b", "</think>c", "<think>", "7"])


@pytest.mark.parametrize("shape", [each for each in SHAPES if each != "chatml_unprompted"])
@given(st.data())
def test_ids_are_those_of_transformers(models_of, shape, data):
    ours, template, theirs = models_of(shape)
    messages = data.draw(benign(SPECIALS[SHAPES[shape][0]], answers=TEXTS | THOUGHTS))
    assert render_prompt(ours, messages, template=template) == their_ids(theirs, messages)


@given(st.data())
def test_ids_are_those_of_transformers_where_only_the_first_word_has_a_blank(models_of, data):
    ours, template, theirs = models_of("mistral", is_byte_level=False)
    messages = data.draw(benign(SPECIALS["mistral"], texts=st.text(alphabet=" ab3.<>[]/", max_size=12)))
    assert render_prompt(ours, messages, template=template) == their_ids(theirs, messages)


@given(st.data())
def test_options_of_a_template_are_those_of_transformers(models_of, data):
    ours, template, theirs = models_of("qwen3")
    quiet = JinjaTemplate(text=template.text, specials=template.specials, options={"enable_thinking": False})
    messages = data.draw(benign(SPECIALS["chatml"], answers=THOUGHTS))
    ids = render_prompt(ours, messages, template=quiet)
    assert ids == their_ids(theirs, messages, enable_thinking=False)
    assert ids != render_prompt(ours, messages, template=template)


def test_without_a_generation_prompt_the_assistant_is_announced_as_in_its_turns(models_of):
    ours, template, theirs = models_of("chatml_unprompted")
    messages = [Message(role=Role.USER, content="Hello")]
    ids = render_prompt(ours, messages, template=template)
    assert ids == [*their_ids(theirs, messages), *theirs.encode("<|im_start|>assistant\n")]


def test_a_refusal_of_the_template_is_one_sentence(models_of):
    ours, template, _ = models_of("mistral")
    messages = [Message(role=Role.USER, content=each) for each in "ab"]
    with pytest.raises(
        DataError, match=r"refuses this conversation \(After the optional system message, roles"
    ):
        render_prompt(ours, messages, template=template)


def test_a_user_who_quotes_a_special_token_gets_it_as_characters_where_transformers_obeys(models_of):
    ours, template, theirs = models_of("qwen25")
    messages = [Message(role=Role.USER, content="what is <|im_end|>?")]
    ids = render_prompt(ours, messages, template=template)
    assert theirs.decode(ids) == theirs.decode(their_ids(theirs, messages))
    end = theirs.convert_tokens_to_ids("<|im_end|>")
    assert (ids.count(end), their_ids(theirs, messages).count(end)) == (2, 3)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the optional ../shared/data is not here")
@given(st.data())
def test_the_published_deepseek_template_equals_transformers_and_our_own(models_of, data):
    ours, _, theirs = models_of("r1_distill")
    text = GOLDEN.read_text(encoding="utf-8")
    messages = data.draw(benign(SPECIALS["deepseek"], answers=TEXTS | THOUGHTS))
    ids = render_prompt(ours, messages, template=JinjaTemplate(text=text))
    assert ids == their_ids(theirs, messages, chat_template=text)
    assert ids == render_prompt(ours, messages, template=Template.DEEPSEEK, prefill="<think>\n")


@pytest.mark.parametrize("template", OWN_TEXTS)
def test_a_saved_template_of_ours_is_what_transformers_renders(models_of, tmp_path, template):
    ours, _, _ = models_of("r1_distill")
    ours.save(tmp_path)
    save_template(tmp_path, template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [Message(role=Role.SYSTEM, content="Be brief."), Message(role=Role.USER, content="3 + 4 = ?")]
    if template is not Template.PLAIN:
        answer = Message(role=Role.ASSISTANT, content="<think>seven</think> 7")
        messages = [*messages, answer, Message(role=Role.USER, content="Sure?")]
    assert read_template(tmp_path) is template
    assert their_ids(theirs, messages) == render_prompt(ours, messages, template=template)
