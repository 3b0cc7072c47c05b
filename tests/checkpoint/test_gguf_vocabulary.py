"""Vocabularies in GGUF files: real ones against their golden ids, our own under the nearest cut."""

import json
from pathlib import Path

import pytest

from benchmarks.llama_models import GOLDEN, own_tokenizer
from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_pretokenizers import cut_of
from tenth.checkpoint.gguf_reader import gguf_tokenizer, open_gguf
from tenth.checkpoint.gguf_vocabulary import own_cut_warning, read_vocabulary, vocabulary_keys
from tenth.tokenizer.special import TAGS
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.vocabulary import Vocabulary, added_token, byte_alphabet, byte_level_spec

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the optional ../shared/data is not here")
DEEPSEEK = DATA / "tokenizers/deepseek_llm/ggml-vocab-deepseek-llm.gguf"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # ggml's kinds of tokens
OWN = json.loads(GOLDEN.read_text(encoding="utf-8"))["own_vocabulary"]


@pytest.fixture(scope="module")
def own():
    return own_tokenizer()


def golden(stem):
    """Texts and ids as llama.cpp's own tests have them."""
    texts = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{stem}.out").read_text().splitlines()
    return [(text, [int(each) for each in line.split()]) for text, line in zip(texts, lines, strict=False)]


def round_trip(tokenizer, *, vocab_size=None):
    keys = vocabulary_keys(tokenizer, vocab_size=vocab_size or tokenizer.vocab_size)
    return Tokenizer.from_vocabulary(read_vocabulary(keys, source="x"), source="x")


def byte_level(patterns, *, specials=("<s>", "</s>"), **model):
    """Bytes, one merge, and ends; `patterns` cut."""
    alphabet = byte_alphabet()
    vocab = {char: number for number, char in enumerate(alphabet)} | {"ab": 256}
    added = [added_token(257 + number, text) for number, text in enumerate(specials)]
    spec = byte_level_spec(vocab, [("a", "b")], patterns=patterns, added=added)
    spec["model"] |= model
    vocabulary = Vocabulary(spec=spec, bos_id=257, eos_ids=(258,))
    return Tokenizer.from_vocabulary(vocabulary, source="here")


# real ones


@needs_data
def test_deepseeks_vocabulary_gives_its_golden_ids():
    tokenizer = gguf_tokenizer(DEEPSEEK)
    cases = golden(DEEPSEEK)
    assert len(cases) >= 46
    for text, ids in cases:
        assert tokenizer.encode_plain(text) == ids, text
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (100_000, (100_001,))


@needs_data
def test_a_file_with_a_vocabulary_alone_is_no_model():
    with pytest.raises(CheckpointError, match="a vocabulary and no weights"):
        open_gguf(DEEPSEEK)


@needs_data
def test_qwens_ranks_come_back_as_the_same_tokens_merges_and_cut():
    tokenizer = Tokenizer.load(DATA / "tokenizers/qwen/qwen.tiktoken")
    keys = vocabulary_keys(tokenizer, vocab_size=151_936)
    assert keys["tokenizer.ggml.pre"] == "qwen2"
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert len(keys["tokenizer.ggml.tokens"]) == 151_936
    back, spec = read_vocabulary(keys, source="x"), tokenizer.spec()
    assert back.spec["model"]["merges"] == spec["model"]["merges"]
    assert back.spec["pre_tokenizer"] == spec["pre_tokenizer"]
    assert back.spec["normalizer"] == spec["normalizer"]
    added = [(token["id"], token["content"]) for token in spec["added_tokens"]]
    assert [(token["id"], token["content"]) for token in back.spec["added_tokens"]] == added
    plain = {text: number for text, number in spec["model"]["vocab"].items() if number < 151_643}
    assert back.spec["model"]["vocab"] == plain
    assert back.eos_ids == tokenizer.eos_ids


@needs_data
@pytest.mark.parametrize(
    "path", ["checkpoints/stories260K/tok512.bin", "tokenizers/tinystories_spm/tok4096.model"]
)
def test_a_vocabulary_of_scores_cuts_texts_alike_after_its_way_through_a_file(path):
    tokenizer = Tokenizer.load(DATA / path)
    back = round_trip(tokenizer)
    corpus = (DATA / "corpora/tinyshakespeare.txt").read_text()[:60_000].split("\n\n")
    for text in (*(text for text in corpus if text and "  " not in text), "naïve ½ 中文 é"):
        assert back.encode_plain(text) == tokenizer.encode_plain(text), text
    assert (back.bos_id, back.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)


# our own


def test_llama_cpp_gives_our_documents_the_ids_that_we_give_them():
    assert OWN["same_ids"] == OWN["documents"] == 500


def test_llama_cpp_gives_mixed_texts_the_ids_that_we_give_them(own):
    for text, ids in OWN["texts"].items():
        assert own.encode(text) == ids, text


def test_our_own_vocabulary_comes_back_whole_and_is_exported_with_a_warning(own):
    assert "tenth cuts texts" in (own_cut_warning(own) or "")
    assert round_trip(own).spec() == own.spec()


def test_think_and_answer_tags_are_tokens_that_an_answer_shows(own):
    keys = vocabulary_keys(own, vocab_size=own.vocab_size)
    types = dict(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True))
    assert {types[tag] for tag in TAGS} == {USER_DEFINED}
    assert types["<｜User｜>"] == CONTROL
    assert keys["tokenizer.ggml.add_bos_token"] is True


def test_rows_of_the_embedding_that_no_token_has_are_unused(own):
    keys = vocabulary_keys(own, vocab_size=own.vocab_size + 2)
    assert keys["tokenizer.ggml.token_type"][-3:] == [NORMAL, UNUSED, UNUSED]
    assert len(set(keys["tokenizer.ggml.tokens"])) == own.vocab_size + 2


def test_a_vocabulary_larger_than_the_embedding_is_refused(own):
    with pytest.raises(ConfigError, match="do not belong together"):
        vocabulary_keys(own, vocab_size=own.vocab_size - 1)


# cuts

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")


@pytest.mark.parametrize(
    ("patterns", "model", "name"),
    [
        ([QWEN2], {}, "qwen2"),
        ([LLAMA3], {"ignore_merges": True}, "llama-bpe"),
        ([LLAMA3], {}, "smaug-bpe"),  # the same expression, and merges count
        ([r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"], {}, "gpt-2"),
    ],
)
def test_a_cut_is_known_by_its_expressions_and_not_by_anybodys_name(patterns, model, name):
    tokenizer = byte_level(patterns, **model)
    assert vocabulary_keys(tokenizer, vocab_size=300)["tokenizer.ggml.pre"] == name
    assert round_trip(tokenizer).encode_plain("abba 12 ab\n") == tokenizer.encode_plain("abba 12 ab\n")


@needs_data
@pytest.mark.parametrize("name", ["deepseek_llm", "deepseek_coder", "deepseek_v3"])
def test_deepseeks_cuts_are_known(name):
    patterns = json.loads((DATA / "golden/deepseek_pretokenizer_regex.json").read_text())[name]
    cut = cut_of(byte_level(patterns).spec())
    assert cut is not None
    assert cut.name == name.replace("_", "-")


def test_a_cut_that_llama_cpp_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="does not know"):
        vocabulary_keys(byte_level([r"\S+"]), vocab_size=300)


def test_a_unigram_vocabulary_is_refused():
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", 0.0], ["a", -1.0]]}
    vocabulary = Vocabulary(spec={"version": "1.0", "model": model}, bos_id=None, eos_ids=(1,))
    with pytest.raises(ConfigError, match="Unigram"):
        vocabulary_keys(Tokenizer.from_vocabulary(vocabulary, source="x"), vocab_size=3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "bert"}, "'bert'"),
        ({"pre": "chatglm"}, "'chatglm'"),
        ({"merges": ["a b c"]}, "no pairs"),
        ({"tokens": "a"}, "do not fit"),
        ({"token_type": [1, 2]}, "do not fit"),
        ({"token_type": [9] * 259}, "do not fit"),
        ({"eos_token_id": 1 << 20}, "no token that ends a text"),
    ],
)
def test_keys_that_make_no_vocabulary_are_refused_with_a_sentence(changes, reason):
    keys = vocabulary_keys(byte_level([QWEN2]), vocab_size=259)
    keys |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(CheckpointError, match=reason):
        Tokenizer.from_vocabulary(read_vocabulary(keys, source="x.gguf"), source="x.gguf")
