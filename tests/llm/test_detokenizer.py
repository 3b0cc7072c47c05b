import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from tenth.llm.detokenizer import ByteDetokenizer, WindowDetokenizer, build_detokenizer
from tenth.tokenizer.special import SPECIAL_TOKENS, USER
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

CORPUS = ["The answer is 42, naïve café. 你好，世界！ 👨‍👩‍👧 e\u0301"] * 4
BYTE_LEVEL = train_bpe(CORPUS, vocab_size=400)
REAL = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    [
        "👨‍👩‍👧‍👦 family",
        "e\u0301 o\u0308\u0323",
        "你好，世界",
        "\ufffd already",
        "कि́ \u200d\u200d",
        "a\r\n\tb  c",
        "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    ]
)


def sentencepiece_like() -> Tokenizer:
    """Words with their blank as ▁, single bytes as <0x..>, like Llama 2's vocabulary."""
    words = ["▁", "a", "b", "▁a", "▁the", "你", ".", "", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *words])}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    library.add_special_tokens(
        [tokenizers.AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    )
    part = tokenizers.decoders
    library.decoder = part.Sequence(
        [part.Replace("▁", " "), part.ByteFallback(), part.Fuse(), part.Strip(" ", 1, 0)]
    )
    return Tokenizer(library)


def other_decoder(decoder) -> Tokenizer:
    spec = json.loads(BYTE_LEVEL._json)
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    library.decoder = decoder
    return Tokenizer(library)


FALLBACK = sentencepiece_like()
WORDPIECE = other_decoder(tokenizers.decoders.WordPiece())
WRAPPED = other_decoder(tokenizers.decoders.Sequence([tokenizers.decoders.ByteLevel()]))


def pieces_of(tokenizer: Tokenizer, ids) -> list[str]:
    detokenizer = build_detokenizer(tokenizer)
    return [*map(detokenizer.feed, ids), detokenizer.flush()]


# joined pieces


@given(st.lists(st.integers(0, BYTE_LEVEL.vocab_size + 3)))
def test_joined_pieces_are_the_decoded_text_for_any_ids(ids):
    assert "".join(pieces_of(BYTE_LEVEL, ids)) == BYTE_LEVEL.decode(ids)


@given(st.binary())
def test_joined_pieces_are_the_decoded_text_for_any_bytes(data):
    id_of = {BYTE_LEVEL.bytes_of(i): i for i in range(BYTE_LEVEL.vocab_size)}
    ids = [id_of[bytes([byte])] for byte in data]
    joined = "".join(pieces_of(BYTE_LEVEL, ids))
    assert joined == BYTE_LEVEL.decode(ids) == data.decode("utf-8", "replace")


@given(REAL)
def test_joined_pieces_of_a_text_are_the_text(text):
    assert "".join(pieces_of(BYTE_LEVEL, BYTE_LEVEL.encode_plain(text))) == text


@pytest.mark.parametrize(
    "tokenizer", [FALLBACK, WORDPIECE, WRAPPED], ids=["fallback", "wordpiece", "wrapped"]
)
@given(data=st.data())
def test_joined_pieces_are_the_decoded_text_for_other_kinds_of_vocabulary(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3)))
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


@given(st.lists(st.sampled_from(["▁", "a", "▁a", "你", "", "<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>", USER])))
def test_joined_pieces_are_the_decoded_text_where_bytes_and_words_mix(tokens):
    ids = [FALLBACK.id_of(token) for token in tokens]
    assert "".join(pieces_of(FALLBACK, ids)) == FALLBACK.decode(ids)


# when pieces come


def test_half_a_character_waits_for_its_other_half():
    ids = [i for byte in "é!".encode() for i in range(400) if BYTE_LEVEL.bytes_of(i) == bytes([byte])]
    assert pieces_of(BYTE_LEVEL, ids) == ["", "é", "!", ""]


def test_half_a_character_at_the_end_is_shown_as_a_replacement():
    (half,) = (i for i in range(400) if BYTE_LEVEL.bytes_of(i) == b"\xe4")
    assert pieces_of(BYTE_LEVEL, [half]) == ["", "\ufffd"]


def test_ordinary_tokens_come_out_at_once():
    assert pieces_of(FALLBACK, [FALLBACK.id_of(t) for t in ("▁the", "▁a", "b", ".")]) == [
        "the",
        " a",
        "b",
        ".",
        "",
    ]
    ids = BYTE_LEVEL.encode("The answer is 42")
    assert pieces_of(BYTE_LEVEL, ids) == [*(BYTE_LEVEL.decode([i]) for i in ids), ""]


def test_bytes_wait_for_the_end_of_their_run_because_one_bad_byte_spoils_it():
    tokens = ["<0xE4>", "<0xBD>", "<0xA0>", "a"]
    assert pieces_of(FALLBACK, [FALLBACK.id_of(t) for t in tokens]) == ["", "", "", "你a", ""]


def test_tags_and_roles_are_shown_and_ends_are_not():
    ids = BYTE_LEVEL.encode("<think>a</think><｜User｜>")
    assert pieces_of(BYTE_LEVEL, [BYTE_LEVEL.bos_id, *ids, BYTE_LEVEL.eos_id]) == [
        "", "<think>", "a", "</think>", "<｜User｜>", "", "",
    ]  # fmt: skip


def test_the_work_per_token_does_not_grow_with_the_answer():
    class Counting:
        def __init__(self):
            self.decoded = 0

        def token_of(self, token_id):
            return FALLBACK.token_of(token_id)

        def decode(self, ids):
            self.decoded += len(ids)
            return FALLBACK.decode(ids)

    counting = Counting()
    detokenizer = WindowDetokenizer(counting)
    ids = [FALLBACK.id_of("▁a"), FALLBACK.id_of("<0xE4>"), FALLBACK.id_of("<0xE4>")] * 1000
    for each in ids:
        detokenizer.feed(each)
    assert counting.decoded <= 4 * len(ids)  # each id behind its neighbour, as a neighbour, no more


def test_each_kind_of_vocabulary_gets_its_detokenizer():
    assert isinstance(build_detokenizer(BYTE_LEVEL), ByteDetokenizer)
    assert isinstance(build_detokenizer(FALLBACK), WindowDetokenizer)
