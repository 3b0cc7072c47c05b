"""Vocabularies of other people: tiktoken ranks, SentencePiece models, llama2.c lists; real and tiny."""

import base64
import contextlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError
from tenth.tokenizer.llama2c import read_llama2c
from tenth.tokenizer.sentencepiece import read_sentencepiece
from tenth.tokenizer.special import Trust
from tenth.tokenizer.tiktoken import QWEN, parse_ranks, read_tiktoken, vocabulary_from_ranks
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.vocabulary import Vocabulary, added_token, byte_level_spec

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the optional ../shared/data is not here")


def tokenizer_of(vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer.from_vocabulary(vocabulary, source="test")


# real vocabularies and the encodings that others published for them


def golden(stem: Path) -> list[tuple[str, list[int]]]:
    """Texts and their ids; the last text is empty, and so is its line of ids."""
    texts = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    rows = Path(f"{stem}.out").read_text().split("\n")
    return [(text, [int(each) for each in row.split()]) for text, row in zip(texts, rows, strict=True)]


def deepseek_llm() -> Tokenizer:
    values = json.loads((DATA / "tokenizers/deepseek_llm/deepseek_llm_bpe.json").read_text())
    tokens, kinds = values["vocab"], values["token_type_not_1"]
    spec = byte_level_spec(
        {token: number for number, token in enumerate(tokens)},
        [tuple(merge.split(" ")) for merge in values["merges"]],
        patterns=values["pre_tokenizer_split_regexes"],
        added=[added_token(int(n), tokens[int(n)], is_special=kind == 3) for n, kind in kinds.items()],
    )
    ends = values["special"]
    return tokenizer_of(Vocabulary(spec=spec, bos_id=ends["bos"], eos_ids=(ends["eos"],)))


@needs_data
@pytest.mark.parametrize("name", ["qwen", "deepseek_llm"])
def test_the_47_golden_encodings_are_reproduced(name):
    folder = DATA / "tokenizers" / name
    tokenizer = Tokenizer.load(folder) if name == "qwen" else deepseek_llm()
    (stem,) = (path.with_suffix("") for path in folder.glob("*.inp"))
    pairs = golden(stem)
    assert len(pairs) == 47
    for text, ids in pairs:
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode_plain(text) == ids
        assert tokenizer.decode(ids) == text


@needs_data
def test_a_letter_that_a_vocabulary_adds_as_a_token_is_shown_as_itself():
    tokenizer = deepseek_llm()  # its token 100002 is the letter ø, which the byte alphabet reads as byte F8
    assert tokenizer.encode("søt") == [*tokenizer.encode("s"), 100002, *tokenizer.encode("t")]
    assert (
        tokenizer.decode(tokenizer.encode("søt")) == tokenizer.decode(tokenizer.encode_plain("søt")) == "søt"
    )
    assert tokenizer.bytes_of(100002) == "ø".encode()


@needs_data
def test_a_real_story_vocabulary_reads_its_golden_prompt_and_writes_its_golden_story():
    folder = DATA / "checkpoints" / "stories260K"
    known = json.loads((folder / "golden.json").read_text())
    tokenizer = Tokenizer.load(folder / "tok512.bin")
    assert [tokenizer.bos_id, *tokenizer.encode(known["prompt"])] == known["prompt_ids"]
    assert tokenizer.decode(known["greedy_ids_from_bos"]) == known["greedy_text_from_bos"]
    assert tokenizer.eos_ids[0] == tokenizer.bos_id == 1


# tiktoken


def small_ranks() -> dict[bytes, int]:
    words = [*(bytes([byte]) for byte in range(256)), b"he", b"ll", b"hell", b" o", b"hello", b"qz!"]
    return {word: rank for rank, word in enumerate(words)}


def test_ranks_become_merges_and_a_token_that_none_can_make_gets_none():
    spec = vocabulary_from_ranks(small_ranks(), QWEN).spec
    # "hello" is [hell][o] once all lower ranks are joined; no lower rank joins any part of "qz!"
    assert spec["model"]["merges"] == [["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "o"], ["hell", "o"]]


def test_ranks_with_rules_encode_words_and_special_tokens_behind_them():
    tokenizer = tokenizer_of(vocabulary_from_ranks(small_ranks(), QWEN))
    assert tokenizer.encode("hello o<|im_end|>") == [260, 259, 264]
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (None, (264, 262), 264)
    assert 264 not in tokenizer.encode_plain("hello o<|im_end|>")


def as_lines(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())


def test_ranks_are_read_from_lines_and_an_unknown_number_of_them_is_refused():
    assert parse_ranks(as_lines(small_ranks()), source="x") == small_ranks()
    with pytest.raises(CheckpointError, match=r"x\.tiktoken holds 262 ranks, .* only for Qwen's 151,643"):
        read_tiktoken(as_lines(small_ranks()), source="x.tiktoken")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"IQ==",
        b"IQ== 0 1",
        b"I*== 0",
        b"IQ== x",
        b"IQ== 0\nIg== 2",
        as_lines({b"a" * 70000: 0}),
        b"\xff",
    ],
)
def test_damaged_ranks_are_refused(data):
    with pytest.raises(CheckpointError, match="file of ranks"):
        parse_ranks(data, source="x")


# llama2.c


def llama2c_bytes(words: list[tuple[bytes, float]]) -> bytes:
    specials = [(b"<unk>", 0.0), (b"\n<s>\n", 0.0), (b"\n</s>\n", 0.0)]
    every = [*specials, *((b"<0x%02X>" % byte, 0.0) for byte in range(256)), *words]
    rows = (struct.pack("<fi", score, len(word)) + word for word, score in every)
    return struct.pack("<i", 7) + b"".join(rows)


# "aaa" can be cut in two ways and overlaps itself; the letters come last, as SentencePiece lists them.
WORDS = [
    b" t",
    b"he",
    b" the",
    b"aa",
    b"ab",
    b"aba",
    b"aaa",
    b" a",
    b"th",
    b"t",
    b"h",
    b"e",
    b"a",
    b"b",
    b" ",
]
SCORED = [(word, -float(place)) for place, word in enumerate(WORDS)]
STORY = tokenizer_of(read_llama2c(llama2c_bytes(SCORED), source="test"))


def greedy_twin(text: str) -> list[int]:
    """llama2.c's encoding, written as plainly as possible: join the neighbours whose union scores best."""
    ids = {word.decode(): 259 + place for place, word in enumerate(WORDS)}
    parts: list[str | int] = []
    for char in (" " + text) if text else "":
        parts += [char] if char in ids else [3 + byte for byte in char.encode()]
    while True:
        found = []
        for place in range(len(parts) - 1):
            left, right = parts[place], parts[place + 1]
            if isinstance(left, str) and isinstance(right, str) and left + right in ids:
                found.append((ids[left + right], place))  # a lower id is a better score; then the leftmost
        if not found:
            return [part if isinstance(part, int) else ids[part] for part in parts]
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


@given(st.text(st.sampled_from("theab the \n<é你")))
def test_story_vocabularies_join_the_best_neighbours_first(text):
    assert STORY.encode_plain(text) == greedy_twin(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="▁")))
def test_story_vocabularies_give_every_text_back(text):
    assert STORY.decode(STORY.encode_plain(text)) == text


def test_story_vocabularies_never_read_an_end_out_of_a_users_text():
    assert STORY.encode("<s>", trust=Trust.ALL) == [1]
    assert not {0, 1, 2} & set(STORY.encode_plain("<s></s>\n<s>\n"))


@given(st.data())
def test_a_damaged_story_vocabulary_is_refused_or_read_but_nothing_else_happens(data):
    whole = llama2c_bytes(SCORED)
    place = data.draw(st.integers(0, len(whole) - 1))
    mutated = whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + 1 :]
    with contextlib.suppress(CheckpointError):  # one sentence; nothing else may come out
        tokenizer_of(read_llama2c(mutated, source="x"))


def test_a_story_token_that_claims_more_bytes_than_there_are_is_named():
    with pytest.raises(CheckpointError, match="token 0 claims 1000000 bytes"):
        read_llama2c(struct.pack("<ifi", 7, 0.0, 1_000_000), source="x")


# SentencePiece


def field(number: int, value: int | float | bytes) -> bytes:
    """One field of a protocol buffer; all numbers here are below 128 but the lengths."""
    if isinstance(value, bytes):
        size = bytes([len(value) & 127 | 128, len(value) >> 7]) if len(value) > 127 else bytes([len(value)])
        return bytes([number << 3 | 2]) + size + value
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    return bytes([number << 3, value])


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PIECES = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    ("<think>", 0.0, USER_DEFINED),
]
SCORES = [("▁a", -1.0), ("ab", -1.5), ("▁", -2.0), ("a", -2.5), ("b", -3.0), ("c", -9.0)]


def sentencepiece_bytes(*, model_type: int, normalizer: bytes = b"", trainer: bytes = b"") -> bytes:
    every = [*PIECES, *((text, score, NORMAL) for text, score in SCORES)]
    pieces = (field(1, text.encode()) + field(2, score) + field(3, kind) for text, score, kind in every)
    return b"".join(
        [
            *(field(1, piece) for piece in pieces),
            field(2, field(3, model_type) + trainer),
            field(3, field(1, b"identity") + normalizer),
        ]
    )


UNIGRAM = tokenizer_of(read_sentencepiece(sentencepiece_bytes(model_type=1), source="test"))
BPE = tokenizer_of(read_sentencepiece(sentencepiece_bytes(model_type=2), source="test"))


def pieces_of(tokenizer: Tokenizer, text: str, trust: Trust = Trust.NONE) -> list[str | None]:
    return [tokenizer._library.id_to_token(each) for each in tokenizer.encode(text, trust=trust)]


def test_unigrams_take_the_best_sum_and_merges_the_best_pair_first():
    # ▁ab: [▁a][b] scores -1 - 3 = -4, [▁][ab] scores -2 - 1.5 = -3.5
    assert pieces_of(UNIGRAM, "ab") == ["▁", "ab"]
    assert pieces_of(BPE, "ab") == ["▁a", "b"]


def test_surplus_blanks_go_and_unknown_characters_are_one_unknown_piece():
    for tokenizer in (UNIGRAM, BPE):
        assert pieces_of(tokenizer, "a   a") == ["▁a", "▁a"]
        assert pieces_of(tokenizer, "a你好") == ["▁a", "<unk>"]


def test_blanks_and_prefix_are_kept_or_left_out_as_the_model_says():
    raw = sentencepiece_bytes(model_type=2, normalizer=field(3, 0) + field(4, 0))
    tokenizer = tokenizer_of(read_sentencepiece(raw, source="test"))
    assert pieces_of(tokenizer, "a  a") == ["a", "▁", "▁a"]
    assert tokenizer.decode(tokenizer.encode("a  a")) == "a  a"


@pytest.mark.parametrize("tokenizer", [UNIGRAM, BPE], ids=["unigram", "bpe"])
def test_control_and_user_defined_pieces_come_only_out_of_trusted_text(tokenizer):
    assert pieces_of(tokenizer, "<think>a</s>", Trust.ALL)[0] == "<think>"
    assert pieces_of(tokenizer, "<think>a</s>", Trust.TAGS)[0] == "<think>"
    assert 2 in tokenizer.encode("<think>a</s>")
    assert not {1, 2} & set(tokenizer.encode("a</s><s>", trust=Trust.TAGS))
    assert not {1, 2, 3} & set(tokenizer.encode_plain("<think>a</s><s>"))


def test_the_ends_are_the_models_own():
    assert (BPE.bos_id, BPE.eos_ids) == (1, (2,))
    minus_one = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    key = 41 << 3
    no_bos = bytes([key & 127 | 128, key >> 7]) + minus_one
    vocabulary = read_sentencepiece(sentencepiece_bytes(model_type=2, trainer=no_bos), source="x")
    assert vocabulary.bos_id is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a\xff\xff\xff\x7f", r"claims \d+ bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x80" * 12, "more than ten bytes"),
        (b"\x80", "middle of a number"),
        (field(1, field(1, b"a") + field(2, float("nan"))), "the score nan"),
        (field(1, field(1, b"\xff")), "utf-8"),
        (field(1, field(1, b"a") + field(3, 9)), "9 is not a valid Kind"),
        (field(1, field(1, b"a")) * 2, "the same"),
        (sentencepiece_bytes(model_type=3), "of kind 3"),
        (b"", "no token that ends"),
    ],
)
def test_a_damaged_model_is_refused_with_the_reason(data, reason):
    with pytest.raises(CheckpointError, match=reason):
        read_sentencepiece(data, source="x")


@given(st.data())
def test_any_bytes_in_a_model_give_a_vocabulary_or_one_sentence(data):
    whole = sentencepiece_bytes(model_type=data.draw(st.sampled_from([1, 2])))
    place = data.draw(st.integers(0, len(whole) - 1))
    mutated = whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + 1 :]
    with contextlib.suppress(CheckpointError):  # one sentence; nothing else may come out
        tokenizer_of(read_sentencepiece(mutated, source="x")).encode_plain("a b")
