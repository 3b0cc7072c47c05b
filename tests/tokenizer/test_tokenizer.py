import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError, ConfigError
from tenth.tokenizer.special import SPECIAL_TOKENS, TAGS, Trust
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(["What is 3+45?\nthe answer is 48, 你好"] * 3, vocab_size=400)
MIXED = st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "a", " 7", "\n", "<", "think", ">", "你"]), max_size=8
).map("".join)


def test_the_specials_have_the_first_ids_in_their_order():
    assert [TOKENIZER.id_of(token) for token in SPECIAL_TOKENS] == list(range(11))
    assert (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id) == (0, 1, 1)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_special_string_in_our_own_text_is_one_id(token):
    assert TOKENIZER.encode(token) == [TOKENIZER.id_of(token)]


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_special_string_in_a_users_text_is_characters(token):
    ids = TOKENIZER.encode_plain(token)
    assert len(ids) > 1
    assert min(ids) >= len(SPECIAL_TOKENS)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_an_assistants_text_may_hold_tags_only(token):
    assert (TOKENIZER.encode(token, trust=Trust.TAGS) == [TOKENIZER.id_of(token)]) == (token in TAGS)


@given(st.text() | MIXED)
def test_plain_text_comes_back_as_it_was(text):
    ids = TOKENIZER.encode_plain(text)
    assert TOKENIZER.decode(ids) == text
    assert all(len(SPECIAL_TOKENS) <= token_id < TOKENIZER.vocab_size for token_id in ids)


@given(MIXED)
def test_trusted_text_comes_back_without_bos_and_eos(text):
    expected = text.replace(SPECIAL_TOKENS[0], "").replace(SPECIAL_TOKENS[1], "")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == expected


@given(st.lists(MIXED, max_size=5), st.sampled_from(Trust))
def test_many_texts_encode_as_one_by_one(texts, trust):
    assert TOKENIZER.encode_many(texts, trust=trust) == [
        TOKENIZER.encode(text, trust=trust) for text in texts
    ]


def test_half_a_surrogate_pair_becomes_the_replacement_character():
    assert TOKENIZER.decode(TOKENIZER.encode_plain("a\ud800b")) == "a\ufffdb"


def test_a_saved_tokenizer_loads_the_same(tmp_path):
    TOKENIZER.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    text = "What is 48?</think> 你好"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.encode_plain(text) == TOKENIZER.encode_plain(text)
    assert loaded.fingerprint() == TOKENIZER.fingerprint()
    assert loaded.vocab_size == TOKENIZER.vocab_size


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist"):
        Tokenizer.load(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a tokenizer file"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    TOKENIZER.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    path = tmp_path / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["added_tokens"] = []
    spec["model"]["vocab"].pop(SPECIAL_TOKENS[1])
    path.write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match="names no token that ends a text"):
        Tokenizer.load(tmp_path)


def test_an_unknown_token_name_is_refused():
    with pytest.raises(ConfigError, match="no token '<nope>'"):
        TOKENIZER.id_of("<nope>")
