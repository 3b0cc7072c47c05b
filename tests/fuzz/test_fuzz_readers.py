"""Readers of untrusted files under damage: they read, or refuse in a sentence, in little memory and time."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from fuzz_child import READERS
from fuzz_edits import Edit, Kind, edited
from fuzz_readers import write_gguf_as, write_model, write_story
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError, TenthError
from tenth.checkpoint.opened import open_checkpoint

CHILD = Path(__file__).with_name("fuzz_child.py")
EDITS = st.lists(
    st.builds(Edit, st.sampled_from(Kind), st.floats(0, 1, exclude_max=True), st.integers(0, 1 << 20)),
    min_size=1,
    max_size=4,
)


def faults(*, first: int, count: int, readers: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """Of so many cases of each reader. A child that dies or hangs is a fault, too."""
    command = [sys.executable, str(CHILD), str(first), str(count), *readers]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=600 + count
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    counts = {line["reader"]: line["counts"] for line in lines if "counts" in line}
    assert set(counts) == set(readers or READERS)
    return [line for line in lines if "fault" in line]


def test_damaged_files_are_read_or_refused_with_a_sentence():
    assert faults(first=0, count=6) == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_thousands_of_damaged_files_are_read_or_refused_with_a_sentence(reader):
    assert faults(first=10_000, count=1500, readers=(reader,)) == []


@pytest.mark.parametrize("reader", ["merges", "unigrams", "tiktoken", "llama2c"])
def test_any_edits_of_a_vocabulary_are_read_or_refused(reader, tmp_path_factory):
    """As above, with edits that hypothesis makes small where it finds a fault."""
    path = READERS[reader].build(tmp_path_factory.mktemp("fuzz"))
    original = path.read_bytes()

    @given(edits=EDITS)
    def holds(edits):
        path.write_bytes(edited(original, edits))
        for use in READERS[reader].uses:
            with suppress(TenthError):
                use(path)

    holds()


BUILDS = {
    "safetensors": (write_model, "model/model.safetensors"),
    "gguf": (write_gguf_as("q8_0"), "m.gguf"),
    "llama2.c": (write_story, "m.bin"),
}


def refuses_every_cut(directory: Path, name: str, *, step: int) -> None:
    build, file = BUILDS[name]
    path, data = build(directory), (directory / file).read_bytes()
    whole = len(data.rstrip(b"\0"))  # zeros behind the last number fill up a block
    for length in range(whole - 1, -1, -step):
        os.truncate(directory / file, length)
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


@pytest.mark.parametrize("name", BUILDS)
def test_weights_that_end_early_are_refused_wherever_they_end(name, tmp_path):
    refuses_every_cut(tmp_path, name, step=977)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_weights_that_end_early_are_refused_at_every_single_byte(name, tmp_path):
    refuses_every_cut(tmp_path, name, step=1)
