import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError, ConfigError, RunError
from tenth.checkpoint import training_state, whole_dir
from tenth.checkpoint.training_state import load_latest, load_state, prune, save_state, saved_steps

TENSORS = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(2**62 + 1)}


def save(directory: Path, step: int, **facts: object) -> Path:
    return save_state(directory, step=step, tensors=TENSORS, facts=facts)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# what comes back


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
@given(bits=st.lists(st.integers(-(2**15), 2**15 - 1), max_size=64))
def test_every_bit_comes_back(dtype, bits, tmp_path_factory):
    # every pattern of 16 bits, NaNs with their payload and both zeros included
    size = torch.empty(0, dtype=dtype).element_size()
    whole = bits[: len(bits) // (size // 2) * (size // 2)]
    tensor = torch.tensor(whole, dtype=torch.int16).view(dtype)
    directory = tmp_path_factory.mktemp("state")
    save_state(directory, step=1, tensors={"a/b.c": tensor}, facts={})
    back = load_latest(directory).tensors["a/b.c"]
    assert back.dtype == dtype
    assert back.view(torch.int16).tolist() == tensor.view(torch.int16).tolist()


def test_tensors_that_share_memory_or_are_views_come_back_each_for_itself(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {
        "all": base,
        "again": base,
        "column": base[:, 1],
        "turned": base.t(),
        "scalar": torch.tensor(3),
    }
    save_state(tmp_path, step=1, tensors=tensors, facts={})
    back = load_latest(tmp_path).tensors
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    back["all"].zero_()
    assert back["again"].sum() == 66  # 0 + 1 + ... + 11


def test_facts_come_back_as_json_says_them(tmp_path):
    save(tmp_path, 3, cursor={"shard": 2, "offsets": [1, 2]}, rate=0.1 + 0.2, bad=float("inf"))
    state = load_latest(tmp_path)
    assert state.step == 3
    assert state.facts == {"cursor": {"shard": 2, "offsets": [1, 2]}, "rate": 0.1 + 0.2, "bad": float("inf")}


def test_facts_keyed_by_numbers_keep_their_hash(tmp_path):
    save(tmp_path, 1, counts={10: 1, 9: 2})
    assert load_latest(tmp_path).facts == {"counts": {"10": 1, "9": 2}}


def test_the_newest_step_is_loaded_and_any_other_by_number(tmp_path):
    for step in (5, 20, 100, 1_000_000):
        save(tmp_path, step, at=step)
    assert load_latest(tmp_path).facts == {"at": 1_000_000}
    assert load_state(tmp_path, step=20).facts == {"at": 20}
    assert names_in(tmp_path)[0] == "step-000005"


def test_without_a_save_there_is_nothing_to_load(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "never") is None


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 4, version=1)
    save(tmp_path, 4, version=2)
    assert load_latest(tmp_path).facts == {"version": 2}
    assert names_in(tmp_path) == ["step-000004"]


# damage


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@given(place=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_wherever_it_is(name, place, bit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("state")
    path = save(directory, 2, cursor=17) / name
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        facts = load_latest(directory).facts
    except CheckpointError as error:
        facts = {"cursor": 17} if str(path) in str(error) else {}
    else:
        assert name == "state.json"  # white space of the JSON may change, content may not
    assert facts == {"cursor": 17}


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("kept", [0, 1, 9, -1])
def test_a_cut_off_file_is_one_sentence_with_the_way_out(tmp_path, name, kept):
    save(tmp_path, 10)
    path = save(tmp_path, 20) / name
    path.write_bytes(path.read_bytes()[:kept])
    if (name, kept) == ("state.json", -1):
        return  # only the last newline is gone
    with pytest.raises(CheckpointError) as caught:
        load_latest(tmp_path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(f"delete {path.parent} to continue from step 10.")


def test_a_missing_tensor_file_is_one_sentence(tmp_path):
    path = save(tmp_path, 10) / "tensors.safetensors"
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"could not read .*; delete .*step-000010 to begin the stage again"
    ):
        load_latest(tmp_path)


def test_a_directory_without_its_last_file_does_not_count(tmp_path):
    save(tmp_path, 10)
    (save(tmp_path, 20) / "state.json").unlink()
    assert load_latest(tmp_path).step == 10


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training_state, "FORMAT_VERSION", 2)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format version 2, this tenth reads up to 1; update tenth"):
        load_latest(tmp_path)


# a full disk, and kills


@pytest.mark.parametrize("call", range(4))
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, call):
    save(tmp_path, 10, version=1)
    flushed = iter([*[None] * call, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])

    def full(descriptor: int) -> None:
        error = next(flushed, None)
        if error is not None:
            raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((CheckpointError, RunError), match=r"No space left on device.* ?[Ff]ree some space"):
        save(tmp_path, 10, version=2)
    assert names_in(tmp_path) == ["step-000010"]
    assert load_latest(tmp_path).facts == {"version": 1}


def test_a_really_full_disk_is_one_sentence(tmp_path):
    """The limit on the size of a file stands for the disk; the signal that comes with it is ignored."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from tenth.base.errors import TenthError\n"
        "from tenth.checkpoint.training_state import save_state\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: save_state(Path(sys.argv[1]), step=1, tensors={'a': torch.zeros(1 << 20)}, facts={})\n"
        "except TenthError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(
        f"could not write {tmp_path / 'step-000001'}: File too large; what was there"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_between_the_two_renames_brings_the_old_one_back(tmp_path, monkeypatch):
    save(tmp_path, 10, version=1)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(whole_dir.PARTIAL):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 10, version=2)
    assert names_in(tmp_path) == ["step-000010"]
    assert load_latest(tmp_path).facts == {"version": 1}


def test_leftovers_of_a_kill_are_swept_on_the_next_start(tmp_path):
    save(tmp_path, 10, version=1)
    (tmp_path / "step-000010").rename(tmp_path / "step-000010.replaced")  # killed between the two renames
    (tmp_path / "step-000020.partial").mkdir()  # killed while writing
    (tmp_path / "notes.partial").mkdir()  # somebody else's
    assert load_latest(tmp_path).facts == {"version": 1}
    assert names_in(tmp_path) == ["notes.partial", "step-000010"]


KILLED = """
import os, sys, time, torch
from pathlib import Path
from tenth.checkpoint.training_state import load_latest, prune, save_state
directory, kills = Path(sys.argv[1]), int(sys.argv[2])
for kill in range(kills):
    child = os.fork()
    if not child:
        state = load_latest(directory)
        step = state.step if state else 0
        while True:
            # every second save replaces the step before it, the others are new
            step += (state is None or state.facts["round"] % 2)
            tensors = {name: torch.full((20_000,), float(step)) for name in "abc"}
            save_state(directory, step=step, tensors=tensors, facts={"round": step})
            prune(directory, keep_last=2)
            state = load_latest(directory)
    time.sleep(0.003 + 0.0037 * (kill % 11))
    os.kill(child, 9)
    os.waitpid(child, 0)
    state = load_latest(directory)
    if state is not None:
        assert state.facts["round"] == state.step
        assert all(bool((t == state.step).all()) for t in state.tensors.values()), state.step
    left = [path.name for path in directory.iterdir()]
    assert all(name.startswith("step-") and "." not in name for name in left), left
    print(state.step if state else 0)
"""


def run_kills(directory: Path, kills: int) -> list[int]:
    command = [sys.executable, "-c", KILLED, str(directory), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_a_kill_at_any_moment_leaves_a_whole_save_and_no_step_is_lost_twice(tmp_path):
    steps = run_kills(tmp_path, 25)
    assert steps == sorted(steps)
    assert steps[-1] > 0


@pytest.mark.slow
def test_a_thousand_kills_while_saving(tmp_path):
    steps = run_kills(tmp_path, 1000)
    assert steps == sorted(steps)


# keeping


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for step in (10, 20, 30, 40, 50):
        save(tmp_path, step)
    prune(tmp_path, keep_last=2, keep=20)
    assert saved_steps(tmp_path) == [20, 40, 50]
    prune(tmp_path, keep_last=5)
    assert saved_steps(tmp_path) == [20, 40, 50]
    prune(tmp_path, keep_last=1)
    assert names_in(tmp_path) == ["step-000050"]


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="keep_last = 0 would delete every checkpoint; keep at least 1"):
        prune(tmp_path, keep_last=0)


def test_a_kill_while_pruning_never_leaves_half_a_save_under_its_name(tmp_path, monkeypatch):
    save(tmp_path, 10)
    save(tmp_path, 20)

    def killed(path: Path, **kwargs: object) -> None:
        os.unlink(path / "tensors.safetensors")
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))

    monkeypatch.setattr(whole_dir.shutil, "rmtree", killed)
    with pytest.raises(
        CheckpointError, match=r"could not delete .*step-000010: Interrupted .*; delete it by hand"
    ):
        prune(tmp_path, keep_last=1)
    monkeypatch.undo()
    assert saved_steps(tmp_path) == [20]
    assert load_latest(tmp_path).step == 20
    assert names_in(tmp_path) == ["step-000020"]
