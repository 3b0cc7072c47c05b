import itertools
import json
import mmap
import random
import re
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from hypothesis import given

from tenth.base.errors import CheckpointError
from tenth.checkpoint import safetensors_dir
from tenth.checkpoint.safetensors_dir import SafetensorsDir
from tenth.checkpoint.sharded_writer import HfWriter
from tenth.checkpoint.tensor_source import TensorInfo

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor([True, False, True]),  # three bytes: what follows lies at an odd address
    "c": torch.arange(4, dtype=torch.float64),
    "d": torch.empty(0, 3),
    "e": torch.tensor(1.5, dtype=torch.bfloat16),
    "f": torch.tensor([0.25, 448.0]).to(torch.float8_e4m3fn),
    **{str(dtype): torch.ones(2, dtype=dtype) for dtype in (torch.int8, torch.int16, torch.int32)},
    **{str(dtype): torch.ones(2, dtype=dtype) for dtype in (torch.int64, torch.uint8, torch.float16)},
}


def file_of(path: Path, header: object, *, num_bytes: int = 0, length: int | None = None) -> None:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + bytes(num_bytes))


def entry(begin: int, end: int, *, dtype: object = "U8", shape: object = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def sharded(directory: Path, weight_map: object) -> Path:
    """Two shards of one byte each, a and b, and an index."""
    directory.mkdir(exist_ok=True)
    for name in "ab":
        file_of(directory / f"{name}.safetensors", {name: entry(0, 1)}, num_bytes=1)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def test_tensors_of_every_type_are_what_the_library_wrote(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "model.safetensors")
    source = SafetensorsDir(tmp_path)
    assert source.infos() == {
        name: TensorInfo(dtype=tensor.dtype, shape=tuple(tensor.shape))
        for name, tensor in safetensors.torch.load_file(tmp_path / "model.safetensors").items()
    }
    for name, tensor in TENSORS.items():
        found = source.read(name)
        assert found.dtype == tensor.dtype
        assert found.data_ptr() % tensor.itemsize == 0
        assert torch.equal(found.to(torch.float64), tensor.to(torch.float64))


def test_shards_are_found_through_the_index(tmp_path):
    source = SafetensorsDir(sharded(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"}))
    assert list(source.infos()) == ["a", "b"]
    assert source.read("b").tolist() == [0]


def test_links_of_the_hugging_face_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    file_of(blobs / "abcd", {"a": entry(0, 1)}, num_bytes=1)
    (snapshot / "model.safetensors").symlink_to(Path("..") / ".." / "blobs" / "abcd")
    assert list(SafetensorsDir(snapshot).infos()) == ["a"]


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def test_a_tensor_of_a_file_larger_than_the_memory_costs_its_own_bytes(tmp_path):
    huge = 1 << 40
    header = {"first": entry(0, huge), "wanted": entry(huge, huge + 8, dtype="F64", shape=[1])}
    file_of(tmp_path / "model.safetensors", header)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + huge + 8)  # nothing of it is on the disk
    before = anonymous_bytes()
    assert SafetensorsDir(tmp_path).read("wanted").tolist() == [0.0]
    assert anonymous_bytes() - before < 8 << 20


def test_what_is_read_in_file_order_is_asked_for_ahead_and_once(tmp_path, monkeypatch):
    asked = []

    class Recording(mmap.mmap):
        def madvise(self, option, start, length):
            asked.append((start, start + length))
            super().madvise(option, start, length)

    monkeypatch.setattr(safetensors_dir.mmap, "mmap", Recording)
    size, step = 96 << 20, 1 << 20
    places = {str(i): entry(i * step, (i + 1) * step) for i in range(size // step)}
    file_of(tmp_path / "model.safetensors", places)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + size)
    source = SafetensorsDir(tmp_path)
    for i, name in enumerate(places):
        source.read(name)
        assert asked[-1][1] >= min((i + 1) * step + (16 << 20), size)  # what comes next is under way
    assert asked[0][0] < 3 * mmap.PAGESIZE  # behind the header
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(asked))
    asked.clear()
    source.read("3")  # again, out of order: the system was told already, or is told of little
    assert sum(end - start for start, end in asked) <= 34 << 20


def test_a_flipped_bit_in_what_we_wrote_is_noticed_where_it_is_asked_for(tmp_path):
    writer = HfWriter(tmp_path)
    writer.add("a", torch.ones(8))
    writer.add("b", torch.ones(8))
    writer.finish()
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert SafetensorsDir(tmp_path).read("b").shape == (8,)
    source = SafetensorsDir(tmp_path, is_checked=True)
    assert torch.equal(source.read("a"), torch.ones(8))
    with pytest.raises(CheckpointError, match=r"damaged: the 32 bytes of 'b' are not the ones"):
        source.read("b")


@pytest.mark.parametrize(
    ("header", "num_bytes", "sentence"),
    [
        ({"a": entry(0, 4)}, 3, "is cut off: its header tells of .* bytes and it has"),
        ({"a": entry(0, 4)}, 5, "is damaged: its header tells of .* bytes and it has"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, 6, "'b' begins at byte .* where the tensor before it ends at"),
        ({"a": entry(0, 4), "b": entry(5, 6)}, 6, "'b' begins at byte"),
        ({"a": entry(1, 4)}, 4, "'a' begins at byte"),
        ({"a": entry(0, 4, shape=[5])}, 4, r"'a', U8 \[5\], is given 4 bytes"),
        ({"a": entry(4, 0, shape=[4])}, 4, "'a', U8 .* is given -4 bytes"),
        ({"a": entry(0, 4, shape=[2**40, 2**40])}, 4, "is given 4 bytes"),
        ({"a": entry(0, 4, shape=[1] * 9)}, 4, "entry 'a' is malformed"),
        ({"a": entry(0, 4, shape=[-4])}, 4, "entry 'a' is malformed"),
        ({"a": entry(0, 4, shape=[True])}, 4, "entry 'a' is malformed"),
        ({"a": entry(0, 4, shape=4)}, 4, "entry 'a' is malformed"),
        ({"a": {**entry(0, 4), "data_offsets": [0]}}, 4, "entry 'a' is malformed"),
        ({"a": {**entry(0, 4), "data_offsets": [0, 2**80]}}, 4, "entry 'a' is malformed"),
        ({"a": {"dtype": "U8"}}, 4, "entry 'a' is malformed"),
        ({"a": 3}, 4, "entry 'a' is malformed"),
        ({"a": entry(0, 4, dtype="F4")}, 4, "'a' has the type 'F4'; known types are F64, F32"),
        ({"x" * 5000: 3}, 4, r"entry 'x{100}'\.\.\. is malformed"),
        (b"[]", 0, "holds no JSON object"),
        (b"{ ", 0, "not valid JSON"),
        (b'{"a": 1, "a": 2}', 0, "the name 'a' comes twice"),
        (b"\xff\xfe{}", 0, "not valid JSON"),
        ("{}".encode("utf-16"), 0, "not valid JSON"),
        (b'{"a":' * 100_000, 0, "not valid JSON"),
        (b'{"a": ' + b"9" * 100_000 + b"}", 0, "not valid JSON"),
    ],
)
def test_a_damaged_or_malicious_header_is_one_sentence(tmp_path, header, num_bytes, sentence):
    file_of(tmp_path / "model.safetensors", header, num_bytes=num_bytes)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*{sentence}") as raised:
        SafetensorsDir(tmp_path)
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [0, 1, 3, 1 << 30, 1 << 63])
def test_a_header_whose_length_cannot_be_is_one_sentence(tmp_path, length):
    file_of(tmp_path / "model.safetensors", b"{}", length=length)
    with pytest.raises(CheckpointError, match=f"no safetensors file, or a cut-off one: .* {length:,};"):
        SafetensorsDir(tmp_path)


@pytest.mark.parametrize("data", [b"", b"1234567"])
def test_a_file_too_short_for_a_header_is_one_sentence(tmp_path, data):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="no safetensors file, or a cut-off one"):
        SafetensorsDir(tmp_path)


@pytest.mark.parametrize(
    "file_name",
    ["../a.safetensors", "/etc/a.safetensors", "x/a.safetensors", "..", "", "a.bin", "\0", 3, None],
)
def test_an_index_that_names_files_elsewhere_is_one_sentence(tmp_path, file_name):
    directory = sharded(tmp_path / "m", {"a": "a.safetensors", "b": file_name})
    file_of(tmp_path / "a.safetensors", {"b": entry(0, 1)}, num_bytes=1)
    with pytest.raises(CheckpointError, match="no safetensors file of this directory"):
        SafetensorsDir(directory)


def test_a_link_out_of_the_directory_is_one_sentence(tmp_path):
    directory = sharded(tmp_path / "m", {"a": "a.safetensors", "b": "b.safetensors"})
    (directory / "b.safetensors").rename(tmp_path / "elsewhere")
    (directory / "b.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"b\.safetensors is a link to .*elsewhere, outside"):
        SafetensorsDir(directory)


def test_links_in_a_circle_are_one_sentence(tmp_path):
    directory = sharded(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    (directory / "b.safetensors").unlink()
    (directory / "b.safetensors").symlink_to(directory / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors"):
        SafetensorsDir(directory)


def test_a_missing_shard_is_one_sentence(tmp_path):
    directory = sharded(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    (directory / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors is missing, .* finish the download"):
        SafetensorsDir(directory)


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({"a": "a.safetensors", "z": "b.safetensors"}, r"1 tensors are missing from the file \(first 'z'\)"),
        ({"a": "a.safetensors", "b": "b.safetensors", "z": "b.safetensors"}, r"0 are missing from the index"),
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_one_sentence(tmp_path, weight_map, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        SafetensorsDir(sharded(tmp_path, weight_map))


def test_a_name_in_two_shards_is_one_sentence(tmp_path):
    directory = sharded(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    file_of(directory / "b.safetensors", {"b": entry(0, 1), "a": entry(1, 2)}, num_bytes=2)
    with pytest.raises(CheckpointError, match=r"missing from the index \(first 'a'\)"):
        SafetensorsDir(directory)


def test_a_directory_without_weights_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights: neither model\.safetensors nor"):
        SafetensorsDir(tmp_path)


# fuzzing: any bytes give tensors or one sentence


def read_all(directory: Path) -> None:
    with suppress(CheckpointError):
        source = SafetensorsDir(directory, is_checked=True)
        for name, info in source.infos().items():
            assert tuple(source.read(name).shape) == info.shape


def test_a_file_with_any_bytes_changed_is_read_or_refused(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    original = (tmp_path / "model.safetensors").read_bytes()
    rng = random.Random(0)
    for _ in range(400):
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(min(len(data), 800))
            change = rng.choice(("flip", "cut", "repeat", "put"))
            if change == "flip":
                data[start] ^= 1 << rng.randrange(8)
            elif change == "cut":
                del data[start : start + rng.randint(1, 20)]
            elif change == "repeat":
                data[start:start] = data[start : start + rng.randint(1, 40)]
            else:
                data[start] = rng.choice(b'0123456789[]{},:"-e')
        (tmp_path / "model.safetensors").write_bytes(data)
        read_all(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16", "BOOL", "F8_E4M3"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 16), min_size=2, max_size=2) | JSON,
    }
)


@given(header=st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=3), num_bytes=st.integers(0, 16))
def test_any_header_is_read_or_refused(tmp_path_factory, header, num_bytes):
    directory = tmp_path_factory.mktemp("fuzz")
    file_of(directory / "model.safetensors", header, num_bytes=num_bytes)
    read_all(directory)


@given(weight_map=JSON | st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON | st.just("a.safetensors")))
def test_any_index_is_read_or_refused(tmp_path_factory, weight_map):
    read_all(sharded(tmp_path_factory.mktemp("fuzz"), weight_map))
