import gzip
import json

import pytest

from tenth.base.errors import DataError
from tenth.data import rows
from tenth.data.final_answers import final_answer
from tenth.data.user_rows import Fault, Item, Kind, Rule, scan


def one(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (found,) = scan(path)
    return found


@pytest.mark.parametrize(
    ("row", "kind", "prompt", "answer"),
    [
        ({"text": "a document"}, Kind.DOCUMENT, "", "a document"),
        ({"text": "a task", "code": "x = 1"}, Kind.ANSWERED, "a task", "x = 1"),
        ({"problem": "1+1", "answer": 2}, Kind.ANSWERED, "1+1", "2"),
        ({"prompt": "p", "completion": "c"}, Kind.ANSWERED, "p", "c"),
        ({"instruction": "i", "input": "n", "output": "o"}, Kind.ANSWERED, "i\nn", "o"),
        ({"prompt": "p"}, Kind.PROMPT, "p", ""),
        ({"prompt": "p", "reward_model": {"ground_truth": "7"}}, Kind.ANSWERED, "p", "7"),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            Kind.ANSWERED,
            "q",
            "a",
        ),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, Kind.PREFERENCE, "p", "c"),
        (
            {"chosen": "\n\nHuman: h\n\nAssistant: c", "rejected": "\n\nHuman: h\n\nAssistant: r"},
            Kind.PREFERENCE,
            "\n\nHuman: h\n\nAssistant:",
            " c",
        ),
    ],
)
def test_rows_of_every_usual_shape_are_understood(tmp_path, row, kind, prompt, answer):
    found = one(tmp_path, row)
    assert isinstance(found, Item), found
    assert (found.kind, found.prompt, found.answer) == (kind, prompt, answer)
    assert found.values == row


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"label": 1}, Rule.COLUMNS),
        ({"text": 5}, Rule.COLUMNS),
        ({"prompt": "p", "chosen": None, "rejected": "r"}, Rule.COLUMNS),
        ({"text": " \n"}, Rule.EMPTY),
        ({"prompt": "p", "answer": " "}, Rule.EMPTY),
        ({"messages": [{"role": "user", "content": "q"}]}, Rule.EMPTY),
        ({"prompt": "p", "chosen": "same ", "rejected": "same"}, Rule.EQUAL_PAIR),
        ({"prompt": "p", "completion": "<think>and so on"}, Rule.UNCLOSED),
        ({"prompt": "p", "completion": "</think><think>"}, Rule.UNCLOSED),
        ({"text": "\ud800"}, Rule.UNREADABLE),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named_with_its_rule(tmp_path, row, rule):
    found = one(tmp_path, row)
    assert isinstance(found, Fault), found
    assert found.rule is rule


def test_a_thought_that_the_template_opened_may_end_in_the_answer(tmp_path):
    assert isinstance(one(tmp_path, {"prompt": "p", "completion": "so.</think>7"}), Item)


def test_what_stands_behind_a_bad_line_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": \n\xff\n[1]\n{"text": "b"}\n')
    found = list(scan(path))
    assert [isinstance(row, Item) for row in found] == [True, False, False, False, True]
    assert [row.place.rpartition(" ")[2] for row in found] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.json"])
def test_a_binary_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04\x00\x00\x00")
    with pytest.raises(DataError, match="is binary"):
        list(scan(tmp_path / name))


def test_a_line_without_end_is_refused_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # a gibibyte that takes no disk
        file.write(b'{"text": "')
    with pytest.raises(DataError, match=r"line 1: longer than 1 MiB"):
        list(scan(path))


def test_a_small_file_that_unfolds_to_a_huge_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((b'{"text": "' + b"a" * 1000 + b'"}\n') * 9000))
    with pytest.raises(DataError, match="unfolds to more than 100 times its size"):
        list(scan(path))


def test_an_array_larger_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_ARRAY_BYTES", 1000)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "x" * 2000}]))
    with pytest.raises(DataError, match=r"write one object a line as \.jsonl"):
        list(scan(tmp_path / "a.json"))


def test_a_number_of_too_many_digits_is_a_bad_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ' + "9" * 5000 + "}\n")
    (found,) = scan(tmp_path / "a.jsonl")
    assert found.rule is Rule.UNREADABLE


def test_parquet_is_read_like_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"prompt": ["p"], "answer": ["7"]}), tmp_path / "a.parquet")
    (found,) = scan(tmp_path / "a.parquet")
    assert (found.prompt, found.answer, found.place) == ("p", "7", f"{tmp_path / 'a.parquet'}, row 1")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(scan(tmp_path / "b.parquet"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q", "answer": "so\n#### 1,072"}, "1072"),
        ({"problem": "q", "solution": r"thus \boxed{\frac{1}{2}}."}, "1/2"),
        ({"problem": "q", "answer": "0.50"}, "1/2"),
        ({"problem": "q", "answer": "$x^2$"}, "x^2"),
        ({"prompt": "q", "completion": "<answer> B </answer>"}, "b"),
        ({"prompt": "hi", "completion": "hello"}, None),
        ({"problem": "q", "answer": "1e999999"}, "1e999999"),
    ],
)
def test_the_short_answer_of_a_solution(tmp_path, row, expected):
    assert final_answer(one(tmp_path, row)) == expected
