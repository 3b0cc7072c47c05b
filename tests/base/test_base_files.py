import errno
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base import files
from tenth.base.errors import DataError, RunError
from tenth.base.files import sample_hash


def test_what_was_written_is_read_back(tmp_path):
    files.write_json(tmp_path / "new" / "a.json", {"b": [1, "中", None]})
    assert files.read_json(tmp_path / "new" / "a.json") == {"b": [1, "中", None]}


def test_json_is_written_with_sorted_keys_so_that_two_runs_can_be_compared(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        RunError, match=r"could not write .*a\.json: No space left on device; free some space"
    ):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not write"):
        files.write_whole(tmp_path / "file" / "a.json", b"")


def test_tidying_up_that_fails_does_not_hide_the_sentence(tmp_path, monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.os, "fsync", broken)
    monkeypatch.setattr(Path, "unlink", broken)
    with pytest.raises(RunError, match="Input/output error"):
        files.write_whole(tmp_path / "a", b"")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json does not exist"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"could not read .*b\.jsonl: No such file"):
        list(files.read_lines(tmp_path / "b.jsonl"))


def test_a_directory_where_a_file_should_be_is_named(tmp_path):
    with pytest.raises(DataError, match="Is a directory"):
        files.read_json(tmp_path)
    with pytest.raises(DataError, match="Is a directory"):
        list(files.read_lines(tmp_path))


def test_a_file_that_is_not_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("line", [b'{"a": ', b"\xff\xfe"])
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: not valid JSON"):
        list(files.read_lines(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(rows=st.lists(JSON, max_size=5))
def test_json_lines_round_trip(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    encodable = [row for row in rows if _is_encodable(row)]
    files.write_lines(path, encodable)
    assert [row for _, row in files.read_lines(path)] == encodable


def _is_encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def test_hashes_are_blake2b_of_the_bytes(tmp_path):
    # printf abc | b2sum --length=64
    (tmp_path / "a").write_bytes(b"abc")
    assert files.file_hash(tmp_path / "a") == "d8bb14d833d59559"
    assert files.text_hash("abc") == "d8bb14d833d59559"


def test_a_sample_of_a_large_file_tells_other_numbers_and_other_sizes_apart(tmp_path):
    numbers = random.Random(0).randbytes(1 << 20)
    kept, trained, longer = (tmp_path / name for name in "abc")
    kept.write_bytes(numbers)
    trained.write_bytes(numbers[: 1 << 19] + random.Random(1).randbytes(1 << 19))
    longer.write_bytes(numbers + b"x")
    assert len({sample_hash(path) for path in (kept, trained, longer)}) == 3
    trained.write_bytes(numbers)
    assert sample_hash(trained) == sample_hash(kept)


def test_a_text_hash_separates_its_parts():
    assert files.text_hash("ab", "c") != files.text_hash("a", "bc")


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(OSError, match="it is a pipe or a device, no file"):
            files.open_ordinary(tmp_path / name)
    (tmp_path / "file").write_bytes(b"x")
    with files.open_ordinary(tmp_path / "file") as file:
        assert file.read() == b"x"


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\\ud800"}', b'"\xed\xa0\x80"', b"\xff"]
)
def test_json_that_no_program_can_hold_or_write_is_refused_with_its_place(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n" + text + b"\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: not valid JSON"):
        list(files.read_lines(path))
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"rows\.jsonl is not valid JSON"):
        files.read_json(path)


def test_an_escaped_pair_of_halves_is_one_character(tmp_path):
    (tmp_path / "a.json").write_bytes(b'"\\ud83d\\ude00"')
    assert files.read_json(tmp_path / "a.json") == "\U0001f600"


def test_a_pipe_is_no_file_to_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="could not read"):
        files.read_json(tmp_path / "pipe")
    with pytest.raises(DataError, match="could not read"):
        list(files.read_lines(tmp_path / "pipe"))
