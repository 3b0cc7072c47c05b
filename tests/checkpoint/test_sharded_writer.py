import json
import subprocess
import sys

import safetensors
import safetensors.torch
import torch

from tenth.checkpoint import sharded_writer
from tenth.checkpoint.safetensors_dir import SafetensorsDir
from tenth.checkpoint.sharded_writer import HfWriter

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor([True, False, True]),
    "c": torch.arange(12, dtype=torch.int16).view(3, 4).t(),  # not contiguous
    "d": torch.tensor(1.5, dtype=torch.bfloat16),
    "e": torch.ones(3).to(torch.float8_e4m3fn),
    "ü\n": torch.empty(0),
}


def write(directory, tensors, **options):
    writer = HfWriter(directory, **options)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.finish()
    return sorted(path.name for path in directory.iterdir())


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].double(), tensor.double())


def test_one_file_is_what_the_library_reads(tmp_path):
    assert write(tmp_path, TENSORS) == ["model.safetensors"]
    assert_equal(safetensors.torch.load_file(tmp_path / "model.safetensors"), TENSORS)
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"  # which transformers asks for


def test_a_file_written_before_its_header_is_known_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_writer, "_HELD_BYTES", 20)
    write(tmp_path, TENSORS)
    assert_equal(safetensors.torch.load_file(tmp_path / "model.safetensors"), TENSORS)


def test_a_shard_ends_before_it_would_grow_too_large(tmp_path):
    tensors = {name: torch.full((25,), float(i)) for i, name in enumerate("abcde")}  # 100 bytes each
    names = write(tmp_path, tensors, max_shard_bytes=250)
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert names == [*shards, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 500
    assert index["weight_map"] == dict(
        zip("abcde", [shards[0]] * 2 + [shards[1]] * 2 + [shards[2]], strict=True)
    )
    for name, file_name in index["weight_map"].items():
        assert torch.equal(safetensors.torch.load_file(tmp_path / file_name)[name], tensors[name])


def test_a_tensor_larger_than_a_shard_gets_its_own(tmp_path):
    tensors = {"a": torch.ones(1), "b": torch.ones(100), "c": torch.ones(1)}
    assert len(write(tmp_path, tensors, max_shard_bytes=10)) == 4


def test_a_shard_ends_before_its_header_outgrows_its_room(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_writer, "_HEADER_ROOM", 2000)
    monkeypatch.setattr(sharded_writer, "_HELD_BYTES", 0)
    tensors = {f"{'é' * 20}{i}": torch.full((2,), i) for i in range(30)}
    names = write(tmp_path, tensors)
    assert len(names) > 3
    source = SafetensorsDir(tmp_path, is_checked=True)
    assert_equal({name: source.read(name) for name in source.infos()}, tensors)


def test_what_was_handed_over_may_change_afterwards(tmp_path):
    tensor = torch.ones(4)
    writer = HfWriter(tmp_path)
    writer.add("a", tensor)
    tensor.zero_()
    writer.finish()
    assert torch.equal(SafetensorsDir(tmp_path).read("a"), torch.ones(4))


def test_a_tensor_is_cast_piece_by_piece_and_counts_as_it_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_writer, "_SLAB", 5)
    narrow = torch.randn(6, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    writer = HfWriter(tmp_path, max_shard_bytes=42 * 4 + 42 * 2)  # as float32 not both in one
    for name in "ab":
        writer.add(name, narrow.t(), dtype=torch.float32)
    writer.finish()
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    source = SafetensorsDir(tmp_path, is_checked=True)
    assert torch.equal(source.read("b"), narrow.float().t())


def test_a_full_disk_in_the_middle_leaves_nothing(tmp_path):
    """A limit on the size of files, in a process of its own: the system refuses as a full disk would."""
    code = f"""
import resource, signal, torch
from pathlib import Path
from tenth.base.errors import CheckpointError
from tenth.checkpoint.sharded_writer import HfWriter
from tenth.checkpoint.whole_dir import whole_directory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with whole_directory(Path({str(tmp_path / "m")!r})) as partial:
        writer = HfWriter(partial)
        writer.add("a", torch.ones(100_000))
        writer.finish()
except CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not write" in done.stdout
    assert list(tmp_path.iterdir()) == []
