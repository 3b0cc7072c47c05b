import json
import resource
from itertools import count

import numpy as np
import pytest

from tenth.base.errors import DataError, RunError
from tenth.data.shards import load_tokens, write_tokens
from tenth.tokenizer.special import EOS, FIM_BEGIN
from tenth.tokenizer.train import train_bpe

DOCUMENTS = ["3+4=7", "the answer is <answer>7</answer>", "你好"]
TOKENIZER = train_bpe(DOCUMENTS, vocab_size=300)


def test_documents_lie_end_to_end_between_bos_and_eos(tmp_path):
    tokens = write_tokens(DOCUMENTS, TOKENIZER, tmp_path).open_tokens()
    assert tokens.dtype == np.uint16
    expected = [token for text in DOCUMENTS for token in (0, *TOKENIZER.encode(text), 1)]
    assert tokens.tolist() == expected


def test_the_index_counts_what_was_written(tmp_path):
    token_set = write_tokens(DOCUMENTS, TOKENIZER, tmp_path)
    assert token_set == load_tokens(tmp_path)
    assert token_set.index.num_documents == 3
    assert token_set.index.num_text_bytes == 5 + 32 + 6
    assert token_set.num_tokens == len(token_set.open_tokens())
    assert token_set.tokens_per_byte == token_set.num_tokens / 43
    assert token_set.index.tokenizer == TOKENIZER.fingerprint()


def test_equal_texts_have_equal_hashes_and_others_do_not(tmp_path):
    hashes = [
        write_tokens(texts, TOKENIZER, tmp_path / str(n)).index.content_hash
        for n, texts in enumerate([DOCUMENTS, DOCUMENTS, DOCUMENTS[:2]])
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_document_cannot_end_itself(tmp_path):
    tokens = write_tokens([f"a{EOS}b"], TOKENIZER, tmp_path).open_tokens()
    assert (tokens == TOKENIZER.eos_id).sum() == 1


def test_an_endless_stream_stops_behind_the_document_that_reaches_the_limit(tmp_path):
    token_set = write_tokens((f"{n}" for n in count(1000)), TOKENIZER, tmp_path, max_tokens=20)
    assert token_set.num_tokens == 24  # four digits and two ends each
    assert token_set.index.num_documents == 4


def test_fill_in_the_middle_keeps_every_byte_of_text(tmp_path):
    plain = write_tokens(DOCUMENTS, TOKENIZER, tmp_path / "a")
    cut = write_tokens(DOCUMENTS, TOKENIZER, tmp_path / "b", fill_in_middle_rate=1.0, seed=1)
    assert cut.index.num_text_bytes == plain.index.num_text_bytes
    assert (cut.open_tokens() == TOKENIZER.id_of(FIM_BEGIN)).sum() == 3


def test_no_document_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="no document to tokenise"):
        write_tokens([], TOKENIZER, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("had_tokens", [True, False])
def test_a_writing_that_was_cut_off_leaves_what_was_there(tmp_path, had_tokens):
    before = write_tokens(DOCUMENTS[:2], TOKENIZER, tmp_path) if had_tokens else None

    def cut_off():
        yield "x" * 100
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(cut_off(), TOKENIZER, tmp_path)
    if had_tokens:
        assert load_tokens(tmp_path) == before
    else:
        with pytest.raises(DataError, match=r"index\.json does not exist"):
            load_tokens(tmp_path)
    assert write_tokens(DOCUMENTS, TOKENIZER, tmp_path) == load_tokens(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not write tokens"):
        write_tokens(DOCUMENTS, TOKENIZER, tmp_path / "file" / "tokens")


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path):
    before = write_tokens(DOCUMENTS, TOKENIZER, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(RunError, match="free some space"):
            write_tokens(["7" * 9000], TOKENIZER, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_tokens(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "tokens.bin"]


def test_a_shortened_file_is_refused(tmp_path):
    write_tokens(DOCUMENTS, TOKENIZER, tmp_path)
    (tmp_path / "tokens.bin").write_bytes(b"1234")
    with pytest.raises(DataError, match="has 4 bytes, not"):
        load_tokens(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format_version": 9}, "token format 9 is not 1"), ({"surprise": 1}, "is damaged")],
)
def test_another_format_is_refused(tmp_path, change, message):
    write_tokens(DOCUMENTS, TOKENIZER, tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        load_tokens(tmp_path)
