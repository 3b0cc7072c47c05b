"""A vocabulary from a directory: what begins and ends a text, what a foreign tokenizer.json may do."""

import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError, DataError
from tenth.tokenizer import pretrained
from tenth.tokenizer.special import Trust
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.vocabulary import added_token, bpe_model, build_library, byte_level_spec, spec_of

BYTES = [chr(byte) for byte in range(0x21, 0x7F)] + ["Ġ", "Ċ"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "  "]
FIRST = len(BYTES)
ADDED = [added_token(FIRST + n, text, is_special=text.startswith("<|")) for n, text in enumerate(SPECIALS)]
SPEC = byte_level_spec({token: n for n, token in enumerate(BYTES)}, [], patterns=[r"\s?\S+"], added=ADDED)
END_OF_TEXT, IM_START, IM_END, THINK, BLANKS = range(FIRST, FIRST + 5)


def directory(path: Path, *, spec=SPEC, **files) -> Path:
    (path / "tokenizer.json").write_text(json.dumps(spec))
    for name, values in files.items():
        (path / f"{name}.json").write_text(json.dumps(values))
    return path


def ends_of(tokenizer: Tokenizer):
    return tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id


# what begins and ends a text


def test_the_tokenizers_end_comes_first_and_the_generation_config_adds_to_it(tmp_path):
    loaded = Tokenizer.load(
        directory(
            tmp_path,
            tokenizer_config={"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
            generation_config={"bos_token_id": END_OF_TEXT, "eos_token_id": [END_OF_TEXT, IM_END]},
            config={"eos_token_id": IM_START},  # the generation config has said it all
        )
    )
    assert ends_of(loaded) == (None, (IM_END, END_OF_TEXT), END_OF_TEXT)
    assert loaded.eos_id == IM_END


def test_a_text_is_split_the_same_way_every_time_whatever_the_file_says_of_dropout(tmp_path):
    merges = [["a", "b"], ["ab", "c"]]
    tokens = [*BYTES, "ab", "abc"]
    spec = byte_level_spec({token: n for n, token in enumerate(tokens)}, merges, patterns=[r"\S+"], added=[])
    spec["added_tokens"] = [added_token(len(tokens), "<|endoftext|>", is_special=True)]
    spec["model"] = {**spec["model"], "dropout": 0.9}
    ends = {"eos_token": "<|endoftext|>"}
    loaded = Tokenizer.load(directory(tmp_path, spec=spec, tokenizer_config=ends))
    assert loaded.encode("abc" * 50) == loaded.encode("abc" * 50)
    assert loaded.encode("abc") == [tokens.index("abc")]


def test_tokens_may_be_objects_and_may_stand_in_the_old_file(tmp_path):
    map_only = directory(
        tmp_path,
        special_tokens_map={"bos_token": {"content": "<|im_start|>"}, "eos_token": {"content": "<|im_end|>"}},
    )
    assert ends_of(Tokenizer.load(map_only)) == (IM_START, (IM_END,), IM_END)


def test_config_json_says_it_where_nobody_else_does(tmp_path):
    only = directory(
        tmp_path, config={"bos_token_id": IM_START, "eos_token_id": IM_END, "pad_token_id": None}
    )
    assert ends_of(Tokenizer.load(only)) == (IM_START, (IM_END,), IM_END)


def test_a_lone_file_ends_with_what_vocabularies_usually_call_their_end(tmp_path):
    lone = directory(tmp_path) / "tokenizer.json"
    assert ends_of(Tokenizer.load(lone)) == (None, (IM_END,), IM_END)


def test_ends_that_the_vocabulary_does_not_have_are_left_out_and_one_must_remain(tmp_path):
    mixed = directory(tmp_path, generation_config={"eos_token_id": [IM_END, 99999], "pad_token_id": -1})
    assert ends_of(Tokenizer.load(mixed)) == (None, (IM_END,), IM_END)
    wrong = directory(tmp_path, generation_config={"eos_token_id": 99999})
    with pytest.raises(CheckpointError, match=r"names no token that ends a text \(\[99999\]"):
        Tokenizer.load(wrong)


def test_all_ends_are_hidden_and_other_special_tokens_are_shown(tmp_path):
    tokenizer = Tokenizer.load(directory(tmp_path, generation_config={"eos_token_id": [IM_END, END_OF_TEXT]}))
    assert tokenizer.decode([IM_START, THINK, 0, IM_END, END_OF_TEXT]) == "<|im_start|><think>!"
    assert [tokenizer.token_of(each) for each in (IM_END, END_OF_TEXT, THINK)] == [None, None, "<think>"]


# trust


def test_trust_is_about_the_vocabularys_own_added_tokens(tmp_path):
    tokenizer = Tokenizer.load(directory(tmp_path))
    text = "<think><|im_start|>"
    assert tokenizer.encode(text) == [THINK, IM_START]
    assert IM_START not in tokenizer.encode(text, trust=Trust.TAGS)
    assert tokenizer.encode(text, trust=Trust.TAGS)[0] == THINK
    assert max(tokenizer.encode_plain(text)) < FIRST
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text


def test_added_runs_of_blanks_are_no_commands_and_stay(tmp_path):
    assert Tokenizer.load(directory(tmp_path)).encode_plain("a  b") == [64, BLANKS, 65]


@pytest.mark.parametrize("kind", ["WordLevel", "BPE", "Unigram"])
def test_a_special_token_inside_the_model_never_comes_out_of_plain_text(tmp_path, kind):
    words = ["<unk>", "</s>", "<", "/", "s", ">", "</", "s>"]
    vocab = {word: n for n, word in enumerate(words)}
    model = {
        "WordLevel": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        "BPE": bpe_model(vocab, [("<", "/"), ("s", ">"), ("</", "s>")], unk_token="<unk>"),
        "Unigram": {"type": "Unigram", "unk_id": 0, "vocab": [[word, -1.0] for word in words]},
    }[kind]
    added = [added_token(0, "<unk>"), added_token(1, "</s>")]
    tokenizer = Tokenizer.load(directory(tmp_path, spec=spec_of(model, added_tokens=added)))
    assert tokenizer.encode("</s>") == [1] == list(tokenizer.eos_ids)
    assert 1 not in tokenizer.encode_plain("</s>")


# saving


def test_a_saved_vocabulary_has_the_same_ids_and_ends(tmp_path):
    values = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = Tokenizer.load(directory(tmp_path, tokenizer_config=values))
    (tmp_path / "copy").mkdir()
    tokenizer.save(tmp_path / "copy")
    again = Tokenizer.load(tmp_path / "copy")
    assert ends_of(again) == ends_of(tokenizer) == (IM_START, (IM_END,), END_OF_TEXT)
    assert again.spec() == tokenizer.spec()
    assert (
        again.special_tokens
        == tokenizer.special_tokens
        == {text: FIRST + n for n, text in enumerate(SPECIALS)}
    )
    written = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    assert written.items() >= {**values, "tokenizer_class": "PreTrainedTokenizerFast"}.items()


# files that are something else


def test_a_path_without_a_vocabulary_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist, nor any other"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere\.json does not exist"):
        Tokenizer.load(tmp_path / "nowhere.json")
    (tmp_path / "words.txt").write_text("a")
    with pytest.raises(CheckpointError, match=r"words\.txt is no vocabulary; name a directory"):
        Tokenizer.load(tmp_path / "words.txt")


def test_a_file_larger_than_any_vocabulary_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "MAX_FILE_BYTES", 100)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is larger than"):
        Tokenizer.load(directory(tmp_path))


@pytest.mark.parametrize("name", ["tokenizer_config", "generation_config", "config"])
def test_a_damaged_file_beside_it_is_named(tmp_path, name):
    directory(tmp_path)
    (tmp_path / f"{name}.json").write_text("{")
    with pytest.raises(CheckpointError, match=rf"{name}\.json is not valid JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / f"{name}.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds no JSON object"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "spec",
    [[], {}, {"model": 3}, {"model": {}}, {"model": {"vocab": [1]}}, {"added_tokens": [3], "model": {}}],
)
def test_json_that_is_no_tokenizer_is_refused(tmp_path, spec):
    with pytest.raises(CheckpointError, match="is not a tokenizer file"):
        Tokenizer.load(directory(tmp_path, spec=spec))


def test_json_too_deep_to_parse_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is not a tokenizer file"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_with_a_number_that_no_embedding_has_is_refused():
    model = bpe_model({"a": 1 << 30}, [])
    with pytest.raises(CheckpointError, match="numbers its 1 tokens up to 1,073,741,824"):
        build_library(spec_of(model), source="x")


def test_an_added_token_that_would_get_another_number_is_refused():
    spec = spec_of(bpe_model({"a": 0}, []), added_tokens=[added_token(7, "<end>")])
    with pytest.raises(CheckpointError, match="numbers its token '<end>' 7, which leaves a gap"):
        build_library(spec, source="x")


def test_two_tokens_of_one_number_are_refused():
    with pytest.raises(CheckpointError, match="gives two tokens one number"):
        build_library(spec_of(bpe_model({"a": 0, "b": 0}, [])), source="x")


def test_rules_that_multiply_a_text_are_refused():
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    many = {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [doubling] * 10}] * 2}
    with pytest.raises(CheckpointError, match="replacement rules that could make a text"):
        build_library(spec_of(bpe_model({"a": 0}, []), normalizer=many), source="x")
    build_library(spec_of(bpe_model({"a": 0}, []), normalizer=doubling), source="x")


@pytest.mark.parametrize("size", [2**32 - 1, 1028])
def test_a_character_map_that_claims_more_bytes_than_it_has_is_refused(size):
    """The library would set aside gigabytes for it, and end the process where there are none."""
    table = base64.b64encode(size.to_bytes(4, "little") + bytes(1025)).decode()
    steps = [{"type": "Precompiled", "precompiled_charsmap": table}]
    spec = spec_of(bpe_model({"a": 0}, []), normalizer={"type": "Sequence", "normalizers": steps})
    with pytest.raises(CheckpointError, match="its character map is cut off"):
        build_library(spec, source="x")


def test_padding_and_truncation_of_a_file_never_change_ids():
    spec = spec_of(bpe_model({"a": 0}, []))
    spec["truncation"] = {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    padding = {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    spec["padding"] = padding | {"pad_type_id": 0, "pad_token": "a"}
    assert build_library(spec, source="x").encode("aaa").ids == [0, 0, 0]


def test_a_regex_that_never_ends_is_given_up_with_a_sentence(tmp_path):
    spec = byte_level_spec({token: n for n, token in enumerate(BYTES)}, [], patterns=["(a+)+$"], added=ADDED)
    with pytest.raises(DataError, match="gave up on this text"):
        Tokenizer.load(directory(tmp_path, spec=spec)).encode("a" * 40 + "b")


@given(st.data())
def test_any_bytes_in_a_tokenizer_json_give_a_vocabulary_or_one_sentence(tmp_path_factory, data):
    whole = json.dumps(SPEC).encode()
    place = data.draw(st.integers(0, len(whole) - 1))
    mutated = (
        whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + data.draw(st.integers(0, 40)) :]
    )
    path = tmp_path_factory.mktemp("fuzz") / "tokenizer.json"
    path.write_bytes(mutated)
    with contextlib.suppress(CheckpointError):
        Tokenizer.load(path).encode_plain("a <think> b")


def test_a_character_without_a_token_in_a_vocabulary_without_unknown_is_a_sentence(tmp_path):
    model = {"type": "WordLevel", "vocab": {"a": 0, "</s>": 1}, "unk_token": "<nothing>"}
    tokenizer = Tokenizer.load(
        directory(tmp_path, spec=spec_of(model, added_tokens=[added_token(1, "</s>")]))
    )
    with pytest.raises(DataError, match="gave up on this text"):
        tokenizer.encode("b")
