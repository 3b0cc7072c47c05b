import gzip

import pytest

from tenth.base.errors import DataError
from tenth.data.rows import read_rows


def test_lines_know_their_file_and_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n\n{"x": 2}\n')
    rows = list(read_rows(path))
    assert [row.values["x"] for row in rows] == [1, 2]
    assert rows[1].place == f"{path}, line 3"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_gzipped_files_read_like_plain_ones(tmp_path, name):
    text = '{"x": 1}' if "jsonl" in name else '[{"x": 1}]'
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert [dict(row.values) for row in read_rows(tmp_path / name)] == [{"x": 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"x": 1}\n{"x": \n', r"a\.jsonl, line 2: not valid JSON"),
        (b'{"x": 1}\n[1]\n', r"line 2: holds a list, not an object"),
        (b'{"x": 1}\n\xff\n', r"line 1: not UTF-8|line 2: not UTF-8"),
        (b"[" * 100_000, r"line 1: not valid JSON"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(path))


def test_a_bad_item_of_an_array_is_named_by_its_number(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"x": 1}, 2]')
    with pytest.raises(DataError, match=r"item 2: holds a int"):
        list(read_rows(path))


def test_a_json_file_must_be_an_array(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"for one object a line use \.jsonl"):
        list(read_rows(path))


@pytest.mark.parametrize("damage", [lambda data: data[:-10], lambda data: data[:20] + b"\0" * 9 + data[29:]])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(b'{"x": "some words that do not compress away"}\n')))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz.*(unreadable|not)"):
        list(read_rows(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl is not a file"):
        list(read_rows(tmp_path / "gone.jsonl"))
