"""A llama2.c file (`stories260K.bin`) as a checkpoint: a config.json's keys, and a lazy `TensorSource`.

Why: the smallest models that were really trained, on children's stories, come in this format.
Format, version 0: seven int32 (width, width of the feed-forward layers, layers, query heads, key heads,
vocabulary, context), then float32 tensors one after another, layers stacked: embedding, attention norms, wq,
wk, wv, wo, feed-forward norms, w1, w2, w3, last norm, two rotary tables, and the head where the vocabulary's
size is written negative; else the embedding serves as head. It is a Llama with a norm's epsilon of 1e-5.
In:  a path. Out: a `Checkpoint`. Rows that are rotated in adjacent pairs there come half-split, as Hugging
Face has them.
Not here: the vocabulary beside the file (tokenizer/llama2c.py, companions.py); later versions of the format,
which are quantised or have another header.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError
from tenth.checkpoint.opened import Checkpoint
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.rope import interleaved_to_half

_HEADER = struct.Struct("<7i")
_LATER_MAGIC = 0x616B3432  # "ak42", which begins later versions
_MAX_LAYERS = 1 << 12
_PREFIX = "model.layers.{}."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """The seven numbers, the sign of the vocabulary taken apart."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    vocab_size: int
    context: int
    is_tied: bool

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    def config_values(self) -> dict[str, Any]:
        """As the config.json of a Llama. A story ends where the next begins, with token 1."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "attention_bias": False,
            "tie_word_embeddings": self.is_tied,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "torch_dtype": "float32",
        }


def open_llama2c(path: Path) -> Checkpoint:
    """Check the header against the file's size; no number is read yet."""
    header = _read_header(path)
    source = Llama2cSource(path, header)
    return Checkpoint(
        path=path,
        format="llama2.c",
        config_values=header.config_values(),
        source=source,
        stored=source.infos(),
        has_mtp=False,
    )


class Llama2cSource:
    """A `TensorSource` over one file, which is mapped."""

    def __init__(self, path: Path, header: _Header) -> None:
        self._places = dict(_places(header))
        self._rotated = header.head_dim
        num_words = max(place.end for place in self._places.values())
        self._words = torch.from_file(str(path), shared=False, size=num_words, dtype=torch.float32)

    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in file order."""
        return {
            name: TensorInfo(dtype=torch.float32, shape=place.shape) for name, place in self._places.items()
        }

    def read(self, name: str) -> Tensor:
        """A view of the mapped file; a copy where rows change their order."""
        place = self._places[name]
        tensor = self._words[place.begin : place.end].view(place.shape)
        return interleaved_to_half(tensor, self._rotated) if place.is_rotated else tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    begin: int  # in float32 words, from the start of the file
    shape: tuple[int, ...]
    is_rotated: bool

    @property
    def end(self) -> int:
        return self.begin + prod(self.shape)


def _sections(header: _Header) -> Iterator[tuple[str | None, int, tuple[int, ...]]]:
    """(name, copies, shape) of everything in the file, in order; None: not a parameter."""
    layers, hidden, width = header.num_layers, header.hidden_size, header.intermediate_size
    key_rows = header.num_key_value_heads * header.head_dim
    yield "model.embed_tokens.weight", 1, (header.vocab_size, hidden)
    yield f"{_PREFIX}input_layernorm.weight", layers, (hidden,)
    yield f"{_PREFIX}self_attn.q_proj.weight", layers, (hidden, hidden)
    yield f"{_PREFIX}self_attn.k_proj.weight", layers, (key_rows, hidden)
    yield f"{_PREFIX}self_attn.v_proj.weight", layers, (key_rows, hidden)
    yield f"{_PREFIX}self_attn.o_proj.weight", layers, (hidden, hidden)
    yield f"{_PREFIX}post_attention_layernorm.weight", layers, (hidden,)
    yield f"{_PREFIX}mlp.gate_proj.weight", layers, (width, hidden)
    yield f"{_PREFIX}mlp.down_proj.weight", layers, (hidden, width)
    yield f"{_PREFIX}mlp.up_proj.weight", layers, (width, hidden)
    yield "model.norm.weight", 1, (hidden,)
    yield None, 2, (header.context, header.head_dim // 2)  # cosines and sines, which are computed anew
    if not header.is_tied:
        yield "lm_head.weight", 1, (header.vocab_size, hidden)


def _places(header: _Header) -> Iterator[tuple[str, _Place]]:
    begin = _HEADER.size // 4
    for name, copies, shape in _sections(header):
        for layer in range(copies):
            if name is not None:
                is_rotated = name.endswith(("q_proj.weight", "k_proj.weight"))
                yield name.format(layer), _Place(begin=begin, shape=shape, is_rotated=is_rotated)
            begin += prod(shape)


def _read_header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            data = file.read(_HEADER.size)
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}; check the path.") from error
    if len(data) < _HEADER.size:
        raise CheckpointError(f"{path} has {size} bytes, too few for a llama2.c file; restore it.")
    numbers = _HEADER.unpack(data)
    if numbers[0] == _LATER_MAGIC:
        raise CheckpointError(
            f"{path} is a llama2.c file of version {numbers[1]}, and version 0 is read; export the model "
            "with --version 0."
        )
    hidden, width, layers, heads, key_heads, vocab, context = numbers
    header = _Header(
        hidden_size=hidden,
        intermediate_size=width,
        num_layers=layers,
        num_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=abs(vocab),
        context=context,
        is_tied=vocab > 0,
    )
    is_sound = min(hidden, width, layers, heads, key_heads, abs(vocab), context) > 0 and layers <= _MAX_LAYERS
    is_sound = is_sound and hidden % heads == 0 and heads % key_heads == 0 and header.head_dim % 2 == 0
    if not is_sound:
        raise CheckpointError(
            f"{path} is no llama2.c file: its first seven numbers are {list(numbers)}, which describe no "
            "Llama; restore it, or name a Hugging Face directory or a GGUF file."
        )
    expected = _HEADER.size + 4 * sum(copies * prod(shape) for _, copies, shape in _sections(header))
    if size != expected:
        raise CheckpointError(
            f"{path} has {size:,} bytes and its header describes {expected:,}; it is damaged or cut off, "
            "restore it."
        )
    return header
