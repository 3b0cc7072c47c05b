"""A GGUF file as a checkpoint: a config.json's keys, and a `TensorSource` under Hugging Face names.

Why: models are handed around as GGUF files; read back, they can be inspected, converted, trained and sampled
like any other.
In:  a path. Out: a `Checkpoint`, its tokenizer, its chat template.
Plain numbers come as views of the mapped file, blocks of Q8_0 and Q4_0 as the float32 that they stand for.
Other types are refused with a sentence. Stacked experts are read one by one; the two parts of latent
attention's kv_b_proj are put together again.
Not here: the checks of the header (gguf_header.py), names (gguf_names.py), keys (gguf_config.py).
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_blocks import block_of, decode, require_readable, type_name
from tenth.checkpoint.gguf_config import config_values
from tenth.checkpoint.gguf_header import GgufHeader, GgufTensor, read_header
from tenth.checkpoint.gguf_names import Entry, Kind, entries
from tenth.checkpoint.gguf_rope import ROPE_DIVISORS
from tenth.checkpoint.gguf_vocabulary import read_vocabulary
from tenth.checkpoint.opened import Checkpoint
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.config import ModelConfig
from tenth.model.hf_config import from_hf
from tenth.tokenizer.tokenizer import Tokenizer

_TEMPLATE = "tokenizer.chat_template"
_MAX_EXPERTS = 1 << 12


def open_gguf(path: Path) -> Checkpoint:
    """Read the header and join it to Hugging Face names; no number is read, but for Llama 3's divisors."""
    header = read_header(path)
    if not header.tensors:
        raise CheckpointError(f"{path} holds a vocabulary and no weights; name a file that has both.")
    if "split.count" in header.values and header.values["split.count"] != 1:
        raise CheckpointError(f"{path} is one of several parts; merge them with llama-gguf-split --merge.")
    try:
        require_readable(tensor.type_id for tensor in header.tensors.values())
        values = config_values(
            header.values, has_tensor=header.tensors.__contains__, divisors=lambda: _divisors(header)
        )
        source = GgufSource(header, from_hf(values))
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    stored = {name: _stored(tensor) for name, tensor in header.tensors.items()}
    return Checkpoint(
        path=path, format="gguf", config_values=values, source=source, stored=stored, has_mtp=False
    )


def gguf_tokenizer(path: Path) -> Tokenizer:
    """The vocabulary that a file carries."""
    return Tokenizer.from_vocabulary(read_vocabulary(read_header(path).values, source=path), source=path)


def gguf_chat_template(path: Path) -> str | None:
    """The chat template that a file carries: Jinja's text, not run here."""
    text = read_header(path).values.get(_TEMPLATE)
    return text if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a Hugging Face tensor comes from."""

    entry: Entry
    expert_id: int = 0
    value: Entry | None = None  # of latent attention: the other part


class GgufSource:
    """A `TensorSource` over one file."""

    def __init__(self, header: GgufHeader, config: ModelConfig) -> None:
        self._path, self._tensors = header.path, header.tensors
        self._origins: dict[str, _Origin] = {}
        self._infos: dict[str, TensorInfo] = {}
        experts = config.moe.n_routed_experts if config.moe else 0
        if config.num_hidden_layers > len(self._tensors) or experts > _MAX_EXPERTS:
            # or the table below would never end
            raise CheckpointError(
                f"it announces {config.num_hidden_layers:,} layers and {experts:,} experts in each and holds "
                f"{len(self._tensors):,} tensors; fetch or convert it again."
            )
        keys: dict[str, Entry] = {}
        for entry in entries(config, is_interleaved=True):
            self._require(entry)
            if entry.kind is Kind.LATENT_KEY:
                keys[entry.hf] = entry
            elif entry.kind is Kind.LATENT_VALUE:
                self._add(entry.hf, _Origin(keys[entry.hf], value=entry))
            elif entry.kind is Kind.EXPERTS:
                for expert_id in range(entry.shape[0]):
                    self._add(entry.hf.format(expert_id), _Origin(entry, expert_id))
            else:
                self._add(entry.hf, _Origin(entry))

    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in the order of the network."""
        return self._infos

    def read(self, name: str) -> Tensor:
        """One tensor: plain numbers as they are stored, blocks as float32."""
        origin = self._origins[name]
        entry = origin.entry
        if origin.value is not None:
            key, value = self._whole(entry).float(), self._whole(origin.value).float()
            return torch.cat((key.transpose(1, 2), value), dim=1).flatten(0, 1).to(self._infos[name].dtype)
        if entry.kind is Kind.EXPERTS:
            stored = self._tensors[entry.gguf]
            size = stored.num_bytes // entry.shape[0]
            start = stored.offset + origin.expert_id * size
            return read_numbers(self._path, stored.type_id, entry.hf_shape, start, size)
        tensor = self._whole(entry)
        return tensor if entry.rotated is None else entry.rotated.from_gguf(tensor)

    def _add(self, name: str, origin: _Origin) -> None:
        parts = [origin.entry] if origin.value is None else [origin.entry, origin.value]
        dtypes = {block_of(self._tensors[part.gguf].type_id).dtype or torch.float32 for part in parts}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        self._infos[name] = TensorInfo(dtype=dtype, shape=origin.entry.hf_shape)
        self._origins[name] = origin

    def _require(self, entry: Entry) -> None:
        found = self._tensors.get(entry.gguf)
        if found is None or found.shape != entry.shape:
            what = "is missing" if found is None else f"has shape {found.shape}"
            raise CheckpointError(
                f"the tensor '{entry.gguf}' {what}, and its keys ask for {entry.shape}; "
                "fetch or convert it again."
            )

    def _whole(self, entry: Entry) -> Tensor:
        stored = self._tensors[entry.gguf]
        return read_numbers(self._path, stored.type_id, stored.shape, stored.offset, stored.num_bytes)


def read_numbers(path: Path, type_id: int, shape: tuple[int, ...], offset: int, num_bytes: int) -> Tensor:
    """The numbers in a stretch of a file, which is mapped for as long as somebody holds them."""
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        with path.open("rb") as file:
            # Copy on write: a tensor may be written to without a warning, and the file never is.
            mapping = mmap.mmap(
                file.fileno(), offset + num_bytes - start, access=mmap.ACCESS_COPY, offset=start
            )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"could not read {path} ({error}); it was changed or cut off while it was open."
        ) from error
    data = torch.frombuffer(mapping, dtype=torch.uint8, count=num_bytes, offset=offset - start)
    return decode(data, type_id, shape)


def _divisors(header: GgufHeader) -> Tensor | None:
    tensor = header.tensors.get(ROPE_DIVISORS)
    if tensor is None:
        return None
    if len(tensor.shape) != 1 or block_of(tensor.type_id).dtype is None:
        raise CheckpointError(
            f"'{ROPE_DIVISORS}' is {type_name(tensor.type_id)} of shape {tensor.shape}, not a vector; "
            "fetch or convert it again."
        )
    return read_numbers(header.path, tensor.type_id, tensor.shape, tensor.offset, tensor.num_bytes).float()


def _stored(tensor: GgufTensor) -> TensorInfo:
    """Blocks are shown as the bytes that they take."""
    block = block_of(tensor.type_id)
    if block.dtype is not None:
        return TensorInfo(dtype=block.dtype, shape=tensor.shape)
    row = tensor.shape[-1] // block.length * block.num_bytes
    return TensorInfo(dtype=torch.uint8, shape=(*tensor.shape[:-1], row))
