"""The spill store: a block comes back exactly as it was put or not at all, whatever happens to its files."""

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.engine import spill
from tenth.engine.spill import SpillStore

SIZE = 40  # bytes of a block; a file has 16 more
A, B, C, D, E = (bytes([letter]) * 16 for letter in b"abcde")


def open_store(directory, *, salt=b"one", blocks=100):
    return SpillStore(directory, salt=salt, block_bytes=SIZE, limit_bytes=blocks * (SIZE + 16))


def data(name):
    return name[:1] * SIZE


def fill(store, *names):
    for name in names:
        store.put(name, data(name))
    store.flush()


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def held(store, names=(A, B, C, D, E)):
    """Who can be had; asking counts as use."""
    return {name for name in names if store.get(name) == data(name)}


# what is kept


def test_a_block_comes_back_as_it_was_put_also_after_a_restart(tmp_path):
    store = open_store(tmp_path)
    fill(store, A, B)
    assert (store.has(A), store.has(C)) == (True, False)
    assert (store.get(A), store.get(C)) == (data(A), None)
    store.close()
    again = open_store(tmp_path)
    assert (again.has(A), again.get(B), again.get(C)) == (True, data(B), None)
    assert (store.num_stored, again.num_stored, again.num_loaded) == (2, 0, 1)


def test_a_block_is_found_while_it_still_waits_to_be_written(tmp_path, monkeypatch):
    go_on = threading.Event()
    write = SpillStore._write
    monkeypatch.setattr(SpillStore, "_write", lambda *job: go_on.wait() and write(*job))
    store = open_store(tmp_path)
    store.put(A, data(A))
    assert store.has(A)
    assert store.get(A) == data(A)
    assert not files(tmp_path)
    go_on.set()
    store.flush()
    assert len(files(tmp_path)) == 1
    assert store.get(A) == data(A)


def test_more_than_the_queue_holds_is_dropped_and_counted_and_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "_QUEUE_BYTES", 2 * SIZE)
    go_on = threading.Event()
    write = SpillStore._write
    monkeypatch.setattr(SpillStore, "_write", lambda *job: go_on.wait() and write(*job))
    store = open_store(tmp_path)
    for name in (A, B, C, D):
        store.put(name, data(name))
    go_on.set()
    store.flush()
    assert held(store) == {A, B}
    assert (store.num_stored, store.num_dropped) == (2, 2)


def test_a_block_that_is_there_is_not_written_again(tmp_path):
    store = open_store(tmp_path)
    fill(store, A)
    fill(store, A)
    assert store.num_stored == 1


def test_after_a_restart_a_block_that_had_to_be_computed_anew_is_written_anew(tmp_path):
    fill(open_store(tmp_path), A, B)
    for path in files(tmp_path):
        path.write_bytes(b"damaged")
    store = open_store(tmp_path)
    fill(store, A)  # nobody asked for it: a block before it was damaged too
    assert held(store) == {A}


def test_other_weights_see_nothing_of_it_and_neither_harms_the_other(tmp_path):
    one, two = open_store(tmp_path), open_store(tmp_path, salt=b"two")
    fill(one, A)
    assert not two.has(A)
    two.put(A, b"!" * SIZE)
    two.flush()
    two.put(B, data(B))
    two.clear()
    assert (two.has(A), two.has(B)) == (False, False)
    assert held(open_store(tmp_path)) == held(one) == {A}


def test_weights_may_change_and_change_back(tmp_path):
    store = open_store(tmp_path)
    fill(store, A)
    store.use(b"two")
    assert not store.has(A)
    assert store.get(A) is None
    fill(store, B)
    store.use(b"one")
    assert held(store) == {A}


def test_nothing_is_kept_after_close(tmp_path):
    store = open_store(tmp_path)
    store.close()
    fill(store, A)
    assert not files(tmp_path)


def test_a_program_that_never_closes_the_store_still_ends_and_writes_what_waits(tmp_path):
    code = f"""if True:
        from pathlib import Path
        from tenth.engine.spill import SpillStore
        store = SpillStore(Path({str(tmp_path)!r}), salt=b"one", block_bytes={SIZE}, limit_bytes=9999)
        store.put({A!r}, {data(A)!r})"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    assert held(open_store(tmp_path)) == {A}


# the limit


def test_the_blocks_used_longest_ago_make_room(tmp_path):
    store = open_store(tmp_path, blocks=3)
    fill(store, A, B, C)
    store.get(A)
    fill(store, D)
    assert not store.has(B)
    store.put(C, data(C))  # it is there: that counts as use
    fill(store, E)
    assert len(files(tmp_path)) == 3
    assert held(store) == {C, D, E}


def test_the_order_of_use_survives_a_restart(tmp_path):
    store = open_store(tmp_path, blocks=3)
    fill(store, A, B, C)
    store.get(A)
    store.get(B)
    store.close()
    again = open_store(tmp_path, blocks=3)
    fill(again, D, E)
    assert held(again) == {B, D, E}


@given(names=st.lists(st.integers(0, 15), max_size=40), blocks=st.integers(1, 6))
def test_the_limit_holds_and_what_remains_is_what_came_or_was_asked_for_last(names, blocks, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spill")
    store = open_store(directory, blocks=blocks)
    expected: list[bytes] = []  # a list of the last few, the latest at its end
    for number in names:
        name = bytes([65 + number]) * 16
        if number % 3 == 0 and name in expected:
            assert store.get(name) == data(name)
        fill(store, name)
        expected = [*(each for each in expected if each != name), name][-blocks:]
        assert {path.stem for path in files(directory)} == {each.hex() for each in expected}


def test_the_limit_is_that_of_all_models_together(tmp_path):
    one, two = open_store(tmp_path, blocks=2), open_store(tmp_path, salt=b"two", blocks=2)
    fill(one, A, B)
    fill(two, C, D, E)
    assert len(files(tmp_path)) == 2
    assert held(one) == set()
    assert held(two) == {D, E}


def test_the_halves_of_files_that_a_crash_left_are_removed_when_their_turn_comes(tmp_path):
    store = open_store(tmp_path, blocks=2)
    fill(store, A)
    (path,) = files(tmp_path)
    path.rename(path.with_name(f"{path.name}.{'0' * 16}.partial"))
    again = open_store(tmp_path, blocks=2)
    assert not again.has(A)
    fill(again, B, C)
    assert [each.suffix for each in files(tmp_path)] == [".block", ".block"]


def test_files_that_are_none_of_ours_are_left_alone(tmp_path):
    store = open_store(tmp_path, blocks=1)
    fill(store, A)
    (folder,) = tmp_path.iterdir()
    others = [tmp_path / "letter.txt", folder / "letter.txt", tmp_path / "photos" / f"{'a' * 32}.block"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x" * 999)
    fill(store, B, C)
    store.clear()
    open_store(tmp_path)
    assert files(tmp_path) == sorted(others)


def test_a_limit_below_one_block_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="spill_bytes = 55, but one spilled block needs 56; raise it"):
        SpillStore(tmp_path, salt=b"", block_bytes=40, limit_bytes=55)


# trouble


def test_a_directory_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/sub cannot be made"):
        open_store(tmp_path / "file" / "sub")


@given(
    damage=st.one_of(
        st.tuples(st.just("overwrite"), st.integers(0, SIZE + 15), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("cut"), st.integers(0, SIZE + 15), st.just(b"")),
        st.tuples(st.just("append"), st.just(0), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("replace"), st.just(0), st.binary(max_size=100)),
    )
)
def test_whatever_is_done_to_a_file_its_data_comes_back_exact_or_not_at_all(damage, tmp_path_factory):
    directory = tmp_path_factory.mktemp("spill")
    fill(open_store(directory), A)
    (path,) = files(directory)
    before = path.read_bytes()
    kind, place, new = damage
    after = {
        "overwrite": before[:place] + new + before[place + len(new) :],
        "cut": before[:place],
        "append": before + new,
        "replace": new,
    }[kind]
    path.write_bytes(after)
    store = open_store(directory)
    assert store.has(A)
    assert store.get(A) == (data(A) if after == before else None)
    if after != before:
        assert not store.has(A)
        assert not path.exists()
        fill(store, A)
        assert store.get(A) == data(A)


def test_a_file_under_another_name_or_of_another_model_is_not_believed(tmp_path):
    one, two = open_store(tmp_path), open_store(tmp_path, salt=b"two")
    fill(one, A)
    fill(two, B)
    of_one, of_two = sorted(files(tmp_path), key=lambda path: path.stem)
    (of_one.parent / f"{C.hex()}.block").write_bytes(of_one.read_bytes())
    (of_one.parent / of_two.name).write_bytes(of_two.read_bytes())
    again = open_store(tmp_path)
    assert held(again) == {A}
    assert not any(again.has(name) for name in (B, C))


def test_a_file_that_vanished_is_a_miss(tmp_path):
    store = open_store(tmp_path)
    fill(store, A, B)
    other = open_store(tmp_path)
    other.clear()
    assert store.has(A)
    assert store.get(A) is None
    assert not store.has(A)
    fill(store, A)
    assert store.get(A) == data(A)


def test_the_whole_directory_may_vanish(tmp_path):
    store = open_store(tmp_path / "spill", blocks=2)
    fill(store, A, B)
    for path in files(tmp_path):
        path.unlink()
        path.parent.rmdir() if not any(path.parent.iterdir()) else None
    (tmp_path / "spill").rmdir()
    fill(store, C)
    assert held(store) == {C}
    assert store.problem is None


def test_a_full_disk_stops_the_writing_with_a_reason_and_nothing_else(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    fill(store, A)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spill.os, "utime", full)
        fill(store, B, C)
    assert "No space left on device" in store.problem
    assert held(store) == {A}
    assert len(files(tmp_path)) == 1
    fill(store, D)  # once is enough
    assert not store.has(D)
    assert store.num_dropped >= 2


def test_a_directory_in_a_blocks_place_is_no_block(tmp_path):
    store = open_store(tmp_path)
    fill(store, A)
    (path,) = files(tmp_path)
    (path.parent / f"{B.hex()}.block").mkdir()
    again = open_store(tmp_path)
    assert not again.has(B)
    assert held(again) == {A}


def test_two_processes_writing_and_trimming_in_one_directory_do_each_other_no_harm(tmp_path):
    code = f"""if True:
        import random
        from pathlib import Path
        from tenth.engine.spill import SpillStore
        size, limit = {SIZE}, {8 * (SIZE + 16)}
        store = SpillStore(Path({str(tmp_path)!r}), salt=b"one", block_bytes=size, limit_bytes=limit)
        for _ in range(400):
            put, got = (bytes([random.randrange(24)]) for _ in range(2))
            store.put(put * 16, put * size)
            if random.random() < 0.1:
                store.flush()
            assert store.get(got * 16) in (None, got * size)
        store.flush()
        assert store.problem is None, store.problem"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert not [path for path in files(tmp_path) if path.suffix == ".partial"]
    store = open_store(tmp_path, blocks=8)
    names = [bytes([number]) * 16 for number in range(24)]
    assert held(store, names) == {bytes.fromhex(path.stem) for path in files(tmp_path)}


def test_a_block_of_another_size_is_a_fault_of_ours(tmp_path):
    with pytest.raises(ValueError, match="a block has 40 bytes, not 3"):
        open_store(tmp_path).put(A, b"abc")
