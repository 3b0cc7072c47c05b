import gzip
import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError, DataError
from tenth.data import corpus
from tenth.data.corpus import (
    Source,
    decontaminate,
    dedupe,
    held_out_part,
    is_held_out,
    mix,
    read_documents,
    training_part,
)

TEN = "one two three four five six seven eight nine ten"


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("first\n\nsecond\n")
    assert list(read_documents([tmp_path / "a.txt"])) == ["first\n\nsecond\n"]


def test_a_long_text_file_is_cut_at_a_blank_line(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "TEXT_DOCUMENT_CHARACTERS", 8)
    (tmp_path / "a.txt").write_text("abc\n\ndef\nghi\n\njkl\n")
    assert list(read_documents([tmp_path / "a.txt"])) == ["abc\n\ndef\nghi\n", "jkl\n"]


def test_a_directory_is_its_files_by_name(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "B"}\n{"text": "  "}\n{"text": "C"}\n')
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"A"))
    (tmp_path / "notes.md").write_text("not data")
    assert list(read_documents([tmp_path])) == ["A", "B", "C"]


def test_a_missing_file_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt is not a file"):
        read_documents([tmp_path / "gone.txt"])


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match=r"a\.pdf is none of \.txt"):
        read_documents([tmp_path / "a.pdf"])


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"names no \.txt or \.jsonl file"):
        read_documents([tmp_path])


def test_a_corpus_without_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DataError, match="holds no text"):
        list(read_documents([tmp_path / "a.txt"]))


def test_a_line_without_text_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{"content": "y"}\n')
    with pytest.raises(
        DataError, match=r"a\.jsonl, line 2: no string field 'text' \(fields: \['content'\]\)"
    ):
        list(read_documents([path]))


@given(st.lists(st.sampled_from("abcd")))
def test_deduping_keeps_each_text_once_in_order(texts):
    assert list(dedupe(texts)) == list(dict.fromkeys(texts))


def test_a_document_that_shares_ten_words_with_a_test_is_dropped():
    leak = f"He said: {TEN.upper().replace(' ', ', ')}!"
    nine = TEN.rsplit(" ", 1)[0] + " eleven"
    assert list(decontaminate([leak, nine, "short"], against=[f"Q: {TEN}?"])) == [nine, "short"]


def test_chinese_is_compared_by_characters():
    question = "小明有三个苹果又买了五个"
    assert list(decontaminate([f"题目：{question}。", "小明有三个梨"], against=[question])) == [
        "小明有三个梨"
    ]


def test_a_mixture_has_its_shares_of_text_at_any_moment():
    sources = [
        Source(name="a", documents=iter(lambda: "a" * 10, None), weight=3),
        Source(name="b", documents=iter(lambda: "b" * 5, None), weight=1),
    ]
    text = ""
    for document in islice(mix(sources), 400):
        text += document
        assert abs(text.count("a") - 0.75 * len(text)) <= 10


def test_a_source_that_ends_leaves_the_others_going_on():
    sources = [Source(name="a", documents=["a"], weight=1), Source(name="b", documents=["b"] * 3, weight=1)]
    assert sorted(mix(sources)) == ["a", "b", "b", "b"]


@given(st.lists(st.tuples(st.lists(st.text(max_size=5), max_size=5), st.floats(0.1, 10)), max_size=4))
def test_mixing_loses_nothing_and_keeps_each_sources_order(parts):
    tagged = [[f"{number}|{text}" for text in texts] for number, (texts, _) in enumerate(parts)]
    sources = [
        Source(name=str(number), documents=texts, weight=weight)
        for number, (texts, (_, weight)) in enumerate(zip(tagged, parts, strict=True))
    ]
    mixed = list(mix(sources))
    assert [[text for text in mixed if text.startswith(f"{n}|")] for n in range(len(parts))] == tagged
    assert len(mixed) == sum(map(len, tagged))


def test_a_source_without_weight_is_refused():
    with pytest.raises(ConfigError, match="source 'web' has weight 0"):
        list(mix([Source(name="web", documents=["x"], weight=0)]))


def test_held_out_documents_are_the_asked_share_and_never_in_training():
    texts = [json.dumps({"n": n}) for n in range(4000)]
    held, trained = (list(part(texts, held_out_share=0.1)) for part in (held_out_part, training_part))
    assert sorted(held + trained) == sorted(texts)
    assert 320 < len(held) < 480  # 400 expected, standard deviation 19
    assert not any(is_held_out(text, share=0.1) for text in trained)


def test_a_larger_share_holds_out_what_a_smaller_one_did():
    texts = [str(n) for n in range(500)]
    assert set(held_out_part(texts, held_out_share=0.05)) <= set(held_out_part(texts, held_out_share=0.2))


def test_holding_out_everything_is_refused():
    with pytest.raises(ConfigError, match="held-out share is 1"):
        is_held_out("x", share=1)
