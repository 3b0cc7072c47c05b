"""GGUF files from anybody: a lie in the header is a sentence, whatever it is about, and never a crash."""

import dataclasses
import random
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import gguf
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from benchmarks.llama_models import CONFIGS, build_model, source_of
from tenth.base.errors import CheckpointError, TenthError
from tenth.checkpoint.gguf_config import config_keys, config_values
from tenth.checkpoint.gguf_header import read_header
from tenth.checkpoint.gguf_names import architecture_of
from tenth.checkpoint.gguf_reader import gguf_chat_template, gguf_tokenizer, open_gguf
from tenth.checkpoint.gguf_rope import rope_divisors
from tenth.checkpoint.gguf_vocabulary import read_vocabulary, vocabulary_keys
from tenth.checkpoint.gguf_writer import write_gguf
from tenth.model.config import GqaConfig, Llama3RopeConfig
from tenth.model.hf_config import from_hf
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

BYTES, FLOAT, STRING, ARRAY = 0, 6, 8, 9  # ggml's numbers of value types
F32, Q4_0, Q4_K = 0, 2, 12  # and of tensor types


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def row(name="t", *, shape=(4,), kind=F32, offset=0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def file_of(path: Path, *, keys=(), rows=(), counts=None, version=3, data=64) -> Path:
    num_rows, num_keys = counts or (len(rows), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, num_rows, num_keys) + b"".join((*keys, *rows))
    path.write_bytes(head + bytes(-len(head) % 32 + data))
    return path


ALIGNMENT_16 = key("general.alignment", 4, struct.pack("<I", 16))


def test_a_header_is_read_as_the_format_says(tmp_path):
    keys = (key("a.b", FLOAT, struct.pack("<f", 0.5)), key("s", STRING, text("né")), ALIGNMENT_16)
    array = key("l", ARRAY, struct.pack("<IQ", STRING, 2) + text("x") + text(""))
    header = read_header(
        file_of(tmp_path / "a.gguf", keys=(*keys, array), rows=(row(shape=(3, 2), offset=16),))
    )
    assert header.values == {"a.b": 0.5, "s": "né", "general.alignment": 16, "l": ["x", ""]}
    assert header.tensors["t"].shape == (2, 3)  # the innermost dimension is written first
    assert header.tensors["t"].num_bytes == 24


def test_headers_of_the_library_are_read_as_the_library_reads_them(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_array("numbers", [1, 2, 3])
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs = gguf.GGUFReader(tmp_path / "a.gguf")
    ours = read_header(tmp_path / "a.gguf")
    assert {name: (t.offset, t.num_bytes) for name, t in ours.tensors.items()} == {
        t.name: (t.data_offset, t.n_bytes) for t in theirs.tensors
    }
    assert ours.values == {"general.architecture": "llama", "numbers": [1, 2, 3]}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"version": 1}, "version 1"),
        ({"version": 3 << 24}, "big-endian"),
        ({"counts": (1 << 60, 0)}, "announces"),
        ({"counts": (0, 1 << 60)}, "announces"),
        ({"keys": (text("k") * 2,), "counts": (0, 2)}, "."),
        ({"keys": (ALIGNMENT_16, ALIGNMENT_16)}, "twice"),
        ({"keys": (struct.pack("<Q", 1 << 62) + b"key",)}, "a key is"),
        ({"keys": (key("k", STRING, struct.pack("<Q", 1 << 40)),)}, "the value of 'k' is"),
        ({"keys": (key("k", STRING, struct.pack("<Q", 1 << 10)),)}, "cut off"),
        ({"keys": (key("k", STRING, struct.pack("<Q", 2) + b"\xff\xff"),)}, "UTF-8"),
        ({"keys": (key("k", 77, b""),)}, "type 77"),
        ({"keys": (key("k", ARRAY, struct.pack("<IQ", BYTES, 1 << 50)),)}, "announces"),
        ({"keys": (key("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(12)),)}, "array of type 9"),
        ({"keys": (key("general.alignment", 4, struct.pack("<I", 0)),)}, "alignment is 0"),
        ({"keys": (key("general.alignment", 4, struct.pack("<I", 24)),)}, "alignment is 24"),
        ({"keys": (key("general.alignment", STRING, text("32")),)}, "alignment is '32'"),
        ({"rows": (row(), row())}, "same name"),
        ({"rows": (row("n" * 300),)}, "300 bytes long"),
        ({"rows": (row(shape=(2,) * 5),)}, "5 dimensions"),
        ({"rows": (row(shape=()),)}, "0 dimensions"),
        ({"rows": (row(shape=(0, 4)),)}, "holds nothing"),
        ({"rows": (row(shape=(1 << 62, 1 << 62)),)}, "ends at byte"),
        ({"rows": (row(shape=(17,)),)}, "ends at byte"),
        ({"rows": (row(offset=32, shape=(9,)),)}, "ends at byte"),
        ({"rows": (row(offset=1 << 63),)}, "ends at byte"),
        ({"rows": (row(offset=4),)}, "no multiple of 32"),
        ({"rows": (row(shape=(31,), kind=Q4_0),)}, "multiple of 32"),
        ({"rows": (row(kind=999),)}, "type number 999"),
    ],
)
def test_a_lie_in_the_header_is_named(parts, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        read_header(file_of(tmp_path / "a.gguf", **parts))


@pytest.mark.parametrize("content", [b"", b"GG", b"GGUF", b"GGUF\x03\0\0\0", b"PK\x03\x04"])
def test_a_file_that_is_none_is_refused(content, tmp_path):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(CheckpointError):
        open_gguf(tmp_path / "a.gguf")


def test_types_that_are_not_read_are_listed(tmp_path):
    path = file_of(tmp_path / "a.gguf", rows=(row(shape=(256,), kind=Q4_K),), data=256)
    with pytest.raises(CheckpointError, match="stored as Q4_K; F32, F16, BF16, Q8_0, Q4_0 are read"):
        open_gguf(path)


def test_an_architecture_that_is_not_known_is_named_beside_those_that_are(tmp_path):
    path = file_of(
        tmp_path / "a.gguf", keys=(key("general.architecture", STRING, text("gemma")),), rows=(row(),)
    )
    with pytest.raises(CheckpointError, match=r"'gemma' is not known \(deepseek2, qwen2, qwen3"):
        open_gguf(path)


def test_a_count_that_fits_the_file_allocates_no_more_than_the_file(tmp_path):
    """Five million empty strings in 40 MB."""
    many = key("k", ARRAY, struct.pack("<IQ", STRING, 5 << 20) + bytes(8 * (5 << 20)))
    path = file_of(tmp_path / "a.gguf", keys=(many,))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="arrays hold more"):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """One file per family, with a vocabulary."""
    folder = tmp_path_factory.mktemp("files")
    tokenizer = train_bpe(["one two"], vocab_size=270)
    files = []
    for name in ("deepseek v3, yarn, no query latent", "qwen3 moe", "llama 3"):
        path = folder / f"{len(files)}.gguf"
        config = dataclasses.replace(CONFIGS[name], vocab_size=270)
        keys = vocabulary_keys(tokenizer, vocab_size=270) | {"tokenizer.chat_template": "{{ messages }}"}
        write_gguf(path, config, source_of(build_model(config)), file_type="q8_0", beside=keys)
        files.append(path.read_bytes())
    return files


def read_all(path: Path) -> None:
    """Everything that can be read of a file."""
    for read in (gguf_tokenizer, gguf_chat_template):
        with suppress(TenthError):
            read(path)
    source = open_gguf(path).source
    for name, info in source.infos().items():
        assert source.read(name).shape == info.shape


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A few bytes at the ends of their range, in the header for the most part; now and then a cut."""
    data = bytearray(content)
    reach = len(data) if rng.random() < 0.2 else 8000
    for _ in range(rng.choice((1, 1, 2, 8))):
        place, size = rng.randrange(4, reach), rng.choice((1, 1, 4, 8))
        data[place : place + size] = rng.choices((0, 1, 127, 255, rng.randrange(256)), k=size)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


@given(seed=st.integers(0, 2**32))
def test_damaged_files_end_with_a_sentence_or_are_read(seed, small_files, tmp_path_factory):
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("damaged") / "a.gguf"
    path.write_bytes(damaged(rng.choice(small_files), rng))
    with suppress(TenthError):
        read_all(path)


def test_a_key_that_would_make_another_network_is_named():
    keys = {**config_keys(CONFIGS["llama"]), "general.architecture": "llama", "llama.attention.scale": 0.5}
    with pytest.raises(CheckpointError, match=r"'llama\.attention\.scale' is 0\.5"):
        config_values(keys, has_tensor=lambda _name: True, divisors=lambda: None)


def test_llama_3_divisors_without_our_key_are_known_by_metas_numbers():
    published = Llama3RopeConfig(
        factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    )
    config = dataclasses.replace(
        CONFIGS["llama"], gqa=GqaConfig(num_key_value_heads=4, head_dim=64), rope_scaling=published
    )
    keys = {**config_keys(config), "general.architecture": "llama"}
    del keys["tenth.rope_scaling"]
    found = config_values(keys, has_tensor=lambda _name: False, divisors=lambda: rope_divisors(config))
    assert from_hf(found).rope_scaling == published
    with pytest.raises(CheckpointError, match="published Llama 3"):
        config_values(keys, has_tensor=lambda _name: False, divisors=lambda: torch.tensor([1.0, 3.0]))


ODD = st.one_of(
    st.sampled_from(["", "yarn", "linear", "{}", "[]", '{"factor": "a"}', True, -1, 0, 3, 1 << 63]),
    st.floats(width=32),
    st.lists(st.one_of(st.integers(-2, 9), st.floats(width=32), st.text(max_size=2)), max_size=3),
)


@given(name=st.sampled_from(sorted(CONFIGS)), odd=ODD, data=st.data())
def test_a_key_of_any_other_type_or_value_ends_with_a_sentence_or_is_read(name, odd, data):
    config = CONFIGS[name]
    keys = {**config_keys(config), "general.architecture": architecture_of(config)}
    keys["tenth.rope_scaling"], keys["tokenizer.ggml.tokens"] = "{}", ["a"]
    divisors = data.draw(st.sampled_from([None, torch.ones(1), torch.full((8,), torch.nan)]))
    keys[data.draw(st.sampled_from(sorted(keys)))] = odd
    with suppress(TenthError):
        from_hf(config_values(keys, has_tensor=lambda _name: False, divisors=lambda: divisors))


@given(kind=st.sampled_from(["gpt2", "llama"]), odd=ODD, data=st.data())
def test_a_vocabulary_key_of_any_other_type_or_value_ends_with_a_sentence_or_is_read(kind, odd, data):
    keys = {
        "model": kind,
        "pre": "gpt-2",
        "tokens": ["a", "b", "ab", "</s>"],
        "token_type": [1, 1, 1, 3],
        "scores": [0.0, 0.0, 0.0, 0.0],
        "merges": ["a b"],
        "bos_token_id": 3,
        "eos_token_id": 3,
        "add_space_prefix": False,
    }
    keys[data.draw(st.sampled_from(sorted(keys)))] = odd
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    with suppress(TenthError):
        Tokenizer.from_vocabulary(read_vocabulary(named, source="a"), source="a").encode("abba </s>")


@given(noise=st.binary(max_size=400))
def test_noise_behind_the_magic_ends_with_a_sentence(noise, tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + noise)
    with pytest.raises(CheckpointError):
        open_gguf(path)
