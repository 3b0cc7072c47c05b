"""Vocabularies that we write load elsewhere with equal ids; foreign ones are read as their libraries do."""

import json
from pathlib import Path

import pytest

from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the optional ../shared/data is not here")
TEXTS = [
    "What is 3+45?\nThe answer is 48, 你好",
    "  leading, trailing  ",
    " ",
    "\n",
    "",
    "ﬁ é ｆｕｌｌ 🦙 कि́",
    "aaaaaaa aaaa\t\tb",
    "<think>a</think> <s> </s> <｜User｜>",
]


def load_with_transformers(tokenizer: Tokenizer, directory: Path, model_type: str):
    directory.mkdir()
    tokenizer.save(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return transformers.AutoTokenizer.from_pretrained(directory)


def assert_equal(tokenizer: Tokenizer, theirs) -> None:
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        shown = theirs.decode([each for each in ids if each not in (*tokenizer.eos_ids, tokenizer.bos_id)])
        assert tokenizer.decode(ids) == shown
    ends = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert ends == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert len(theirs) == tokenizer.vocab_size


@pytest.mark.parametrize("model_type", ["deepseek_v3", "qwen3", "llama"])
def test_transformers_reads_our_own_vocabulary_alike(tmp_path, model_type):
    tokenizer = train_bpe(["What is 3+45?\nthe answer is 48, 你好"] * 3, vocab_size=400)
    assert_equal(tokenizer, load_with_transformers(tokenizer, tmp_path / "saved", model_type))


@needs_data
@pytest.mark.parametrize(
    ("path", "model_type"),
    [
        ("tokenizers/qwen/qwen.tiktoken", "qwen2"),
        ("tokenizers/tinystories_spm/tok4096.model", "llama"),
        ("checkpoints/stories260K/tok512.bin", "llama"),
    ],
)
def test_transformers_reads_what_we_made_of_foreign_files_alike(tmp_path, path, model_type):
    tokenizer = Tokenizer.load(DATA / path)
    assert_equal(tokenizer, load_with_transformers(tokenizer, tmp_path / "saved", model_type))


def story_texts() -> list[str]:
    plays = (DATA / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    return [*plays[:200_000].split("\n\n"), *TEXTS[:-1]]


@needs_data
def test_a_real_model_file_is_read_as_sentencepiece_reads_it():
    sentencepiece = pytest.importorskip("sentencepiece")
    path = DATA / "tokenizers" / "tinystories_spm" / "tok4096.model"
    theirs, ours = sentencepiece.SentencePieceProcessor(model_file=str(path)), Tokenizer.load(path)
    for text in story_texts():
        ids = theirs.encode(text)
        assert ours.encode_plain(text) == ids
        assert ours.decode(ids) == theirs.decode(ids)


@needs_data
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "user_defined_symbols": ["<think>", "ab"],
        },
        {"byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": False, "pad_id": 3},
    ],
    ids=["usual", "bytes and whole pieces", "nothing cleaned"],
)
def test_models_trained_by_sentencepiece_are_read_as_it_reads_them(tmp_path, model_type, settings):
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = story_texts()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts[:200]),
        model_prefix=str(tmp_path / "small"),
        model_type=model_type,
        vocab_size=700,
        minloglevel=2,
        **settings,
    )
    path = tmp_path / "small.model"
    theirs, ours = sentencepiece.SentencePieceProcessor(model_file=str(path)), Tokenizer.load(path)
    if "user_defined_symbols" in settings:  # then blanks around a whole text are kept, which it drops
        texts = [text.strip(" ") for text in texts]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text), text
    assert ours.pad_id == (3 if "pad_id" in settings else ours.eos_id)
