"""Any checkpoint as one GGUF file, tensor by tensor: what llama.cpp and what is built on it run.

Why: the file opens with a table of all tensors, so their names and shapes come first, from the configuration
and the source's `infos`; then each is read, laid out, encoded and written in slabs of a few million numbers,
and no more than one of them is in memory at a time.
In:  a configuration, a `TensorSource`, a type, and what stands beside the weights (tokenizer, chat template).
Out: the file, whole or not there.
Which numbers stay wider, as llama.cpp's converter and quantiser have it: vectors, norms, routers and biases
are float32 in every file; rows that are no multiple of 32 become float16 where blocks were asked for; the
head (or the embedding that serves as one) is Q8_0 in a Q4_0 file, where llama.cpp itself takes Q6_K.
Not here: names (gguf_names.py), keys (gguf_config.py, gguf_vocabulary.py), blocks (gguf_blocks.py).
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_blocks import GgmlType, block_of, encode
from tenth.checkpoint.gguf_config import config_keys
from tenth.checkpoint.gguf_names import Entry, Kind, architecture_of, entries
from tenth.checkpoint.gguf_rope import ROPE_DIVISORS, rope_divisors
from tenth.checkpoint.tensor_source import TensorInfo, TensorSource
from tenth.model.config import ModelConfig

AnyValue = str | int | float | bool | Sequence[str] | Sequence[int] | Sequence[float]

FILE_TYPES = {
    "f32": (GgmlType.F32, gguf.LlamaFileType.ALL_F32),
    "bf16": (GgmlType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (GgmlType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GgmlType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
_SLAB = 1 << 22  # numbers that are encoded at once
_ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


def write_gguf(
    path: Path,
    config: ModelConfig,
    source: TensorSource,
    *,
    file_type: str,
    is_interleaved: bool = True,
    beside: Mapping[str, AnyValue],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Write `path`. `beside`: further keys, such as those of a vocabulary; at least tokenizer.ggml.model.

    `is_interleaved`: whether the source holds DeepSeek's rotated rows as DeepSeek does (`rope_interleave`).
    `on_progress` hears how many of how many bytes of numbers are written.
    """
    if file_type not in FILE_TYPES:
        raise ConfigError(f"type '{file_type}' is not known; choose one of {', '.join(FILE_TYPES)}.")
    number_type, llama_type = FILE_TYPES[file_type]
    infos = source.infos()
    table = list(entries(config, is_interleaved=is_interleaved))
    _require_complete(table, infos)
    divisors = rope_divisors(config)
    types = {entry.gguf: _type_of(entry, number_type, config) for entry in table}
    keys = {
        "general.type": "model",
        "general.file_type": int(llama_type),
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **config_keys(config),
        **beside,
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_head(partial, architecture_of(config), keys, table, types, divisors)
        with partial.open("ab") as file:
            _pad(file)
            if divisors is not None:
                file.write(encode(divisors, GgmlType.F32).data)
                _pad(file)
            _write_numbers(file, table, types, source, on_progress)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"could not write {path}: {error.strerror or error}; free some space or choose another place."
        ) from error
    finally:  # Ctrl-C too: leave nothing half-written behind
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _type_of(entry: Entry, wanted: GgmlType, config: ModelConfig) -> GgmlType:
    is_matrix = len(entry.shape) > 1 and entry.gguf.endswith(".weight")
    if not is_matrix or entry.gguf.endswith("ffn_gate_inp.weight"):
        return GgmlType.F32
    if entry.shape[-1] % block_of(wanted).length:
        return GgmlType.F16
    head = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
    return GgmlType.Q8_0 if wanted is GgmlType.Q4_0 and entry.gguf == head else wanted


def _write_head(
    path: Path,
    architecture: str,
    keys: Mapping[str, AnyValue],
    table: Sequence[Entry],
    types: Mapping[str, GgmlType],
    divisors: Tensor | None,
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    try:
        for key, value in keys.items():
            _add(writer, key, value)
        if divisors is not None:
            writer.add_tensor_info(ROPE_DIVISORS, divisors.shape, np.dtype(np.float32), 4 * len(divisors))
        for entry in table:
            kind = types[entry.gguf]
            # The shape is of numbers: the library takes it for one of bytes where the dtype is uint8.
            size = _num_bytes(entry, kind)
            writer.add_tensor_info(entry.gguf, entry.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: AnyValue) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _write_numbers(
    file: BinaryIO,
    table: Sequence[Entry],
    types: Mapping[str, GgmlType],
    source: TensorSource,
    on_progress: Callable[[int, int], None],
) -> None:
    total, done = sum(_num_bytes(entry, types[entry.gguf]) for entry in table), 0
    for entry in table:
        for matrix in _parts(entry, source):
            for rows in _slabs(matrix):
                data = encode(_finite(rows, entry, types[entry.gguf]), types[entry.gguf])
                file.write(data.data)
                done += data.nbytes
                on_progress(done, total)
        _pad(file)


def _parts(entry: Entry, source: TensorSource) -> Iterator[Tensor]:
    """What the tensor consists of, one after the other."""
    if entry.kind is Kind.PLAIN:
        tensor = source.read(entry.hf)
        yield tensor if entry.rotated is None else entry.rotated.to_gguf(tensor)
    elif entry.kind is Kind.EXPERTS:
        yield from _experts(entry, source)
    else:
        heads, dims = entry.shape[0], entry.shape[2 if entry.kind is Kind.LATENT_KEY else 1]
        weight = source.read(entry.hf).unflatten(0, (heads, -1))  # (H, nope + value, rank)
        is_key = entry.kind is Kind.LATENT_KEY
        yield weight[:, :dims].transpose(1, 2) if is_key else weight[:, -dims:]


def _experts(entry: Entry, source: TensorSource) -> Iterator[Tensor]:
    fused, is_gate = _fused_name(entry), "gate_proj" in entry.hf
    if fused not in source.infos():
        for expert_id in range(entry.shape[0]):
            yield source.read(entry.hf.format(expert_id))
        return
    for matrix in source.read(fused):
        if fused.endswith("gate_up_proj"):
            yield matrix.chunk(2)[0 if is_gate else 1]
        else:
            yield matrix


def _fused_name(entry: Entry) -> str:
    """transformers' name of the tensor that holds all experts of a layer."""
    stem, _, kind = entry.hf.partition("{}.")
    return stem + ("down_proj" if kind.startswith("down") else "gate_up_proj")


def _fused_shape(entry: Entry) -> tuple[int, ...]:
    count, rows, columns = entry.shape
    return (count, rows if "down_proj" in entry.hf else 2 * rows, columns)


def _slabs(tensor: Tensor) -> Iterator[Tensor]:
    """Runs of whole rows."""
    matrix = tensor.reshape(-1, tensor.shape[-1])
    step = max(1, _SLAB // matrix.shape[-1])
    for start in range(0, len(matrix), step):
        yield matrix[start : start + step]


def _finite(rows: Tensor, entry: Entry, kind: GgmlType) -> Tensor:
    values = rows if kind is GgmlType.BF16 else rows.float()
    largest = float(values.abs().max())
    if not math.isfinite(largest):
        raise CheckpointError(
            f"'{entry.hf}' holds NaN or infinite numbers; restore the checkpoint, or use an earlier one."
        )
    bound = torch.finfo(torch.float16).max * (
        127 if kind is GgmlType.Q8_0 else 8 if kind is GgmlType.Q4_0 else 1
    )
    if kind in (GgmlType.F16, GgmlType.Q8_0, GgmlType.Q4_0) and largest > bound:
        raise CheckpointError(
            f"'{entry.hf}' holds a number of size {largest:g}, which {kind.name} cannot hold; "
            "restore the checkpoint, or export it as f32."
        )
    return values


def _require_complete(table: Sequence[Entry], infos: Mapping[str, TensorInfo]) -> None:
    for entry in table:
        if entry.kind is Kind.EXPERTS and _fused_name(entry) in infos:
            wanted = {_fused_name(entry): _fused_shape(entry)}
        elif entry.kind is Kind.EXPERTS:
            wanted = {entry.hf.format(expert_id): entry.hf_shape for expert_id in range(entry.shape[0])}
        else:
            wanted = {entry.hf: entry.hf_shape}
        for name, shape in wanted.items():
            found = infos.get(name)
            if found is None or found.shape != shape:
                what = "is missing" if found is None else f"has shape {found.shape}"
                raise CheckpointError(
                    f"'{name}' {what}, and the configuration asks for {shape}; restore the checkpoint."
                )


def _num_bytes(entry: Entry, kind: GgmlType) -> int:
    block = block_of(kind)
    return math.prod(entry.shape) // block.length * block.num_bytes


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
