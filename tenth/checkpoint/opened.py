"""A checkpoint of any format that is known, opened: what it says it is, and its tensors, not yet read.

Why: inspecting, converting and loading must not care whether a model lies in a Hugging Face directory, a GGUF
file or a llama2.c file; here the format is found out, and from here on all are the same.
In:  a path.
Out: a `Checkpoint`: the keys of a config.json, and a `TensorSource` under Hugging Face names.
A directory of our own int8 or int4 weights is refused: those are codes for our kernels, not numbers. Pickles
are refused: reading one runs whatever program it holds.
Not here: the formats (safetensors_dir.py, gguf_reader.py, llama2c.py), our network (names.py, model_dir.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tenth.base.errors import CheckpointError
from tenth.checkpoint.block_fp8 import Fp8Source
from tenth.checkpoint.json_file import read_object
from tenth.checkpoint.names import OwnNames, has_mtp
from tenth.checkpoint.safetensors_dir import INDEX, SINGLE, SafetensorsDir
from tenth.checkpoint.tensor_source import TensorInfo, TensorSource
from tenth.checkpoint.whole_dir import readable
from tenth.model.config import ModelConfig
from tenth.model.hf_config import from_hf

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
OWN_METHOD = "tenth"  # the model_type, and the quant_method, that config.json names for our own codes
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint."""

    path: Path
    format: Literal["safetensors", "gguf", "llama2.c"]
    config_values: Mapping[str, Any]  # the keys of a config.json
    source: TensorSource  # plain numbers: blocks of FP8 and of GGUF come dequantised
    stored: Mapping[str, TensorInfo]  # as the files hold them
    has_mtp: bool  # whether the draft layers that the configuration names are there

    @property
    def config(self) -> ModelConfig:
        """The network that the keys describe."""
        return from_hf(self.config_values)


def open_checkpoint(path: Path, *, is_checked: bool = False) -> Checkpoint:
    """Find out the format and open it; reads headers only.

    `is_checked`: tensors that carry a checksum are compared with it as they are read.
    """
    directory = readable(path)
    if directory.is_dir():
        return _open_directory(path, directory, is_checked=is_checked)
    start = _first_bytes(path)
    if start == b"GGUF":
        from tenth.checkpoint.gguf_reader import open_gguf  # it needs a library that not everyone has

        return open_gguf(path)
    if _is_pickle(start):
        raise _pickle(path)
    if path.suffix == ".bin":
        from tenth.checkpoint.llama2c import open_llama2c

        return open_llama2c(path)
    raise CheckpointError(
        f"{path} is no checkpoint that can be read; name a Hugging Face directory (not a file in it), a GGUF "
        "file or a llama2.c .bin file."
    )


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a directory's config.json."""
    if not (readable(path) / CONFIG).is_file():
        raise no_model(path)
    values = read_object(readable(path) / CONFIG)
    own = values.get("tenth")
    if values.get("model_type") == OWN_METHOD and isinstance(own, dict):
        values["model_type"] = own.get("model_type")
    return values


def adapter_base(path: Path) -> str | None:
    """What the PEFT adapter at `path` says it belongs to; None where `path` is no such directory."""
    if not (path / ADAPTER_CONFIG).is_file() or (path / CONFIG).exists():
        return None
    return str(read_object(path / ADAPTER_CONFIG).get("base_model_name_or_path") or "MODEL")[:200]


def no_model(path: Path) -> CheckpointError:
    """Why it is none, and what may have been meant."""
    base = adapter_base(path)
    if base is not None:
        return CheckpointError(
            f"{path} is a LoRA adapter and no whole model; merge the two first: "
            f"tenth convert {base} MERGED --adapter {path}"
        )
    patterns = (f"{depth}/{name}" for depth in ("*", "*/*") for name in (CONFIG, ADAPTER_CONFIG))
    inside = [str(found.parent) for pattern in patterns for found in sorted(path.glob(pattern))]
    hint = f"name one in it: {', '.join(inside[:4])}." if inside else "name another one."
    return CheckpointError(f"{path} is no model directory (no {CONFIG} in it); {hint}")


def quantisation_values(values: Mapping[str, Any]) -> Any:
    """What config.json says of our own int8 and int4 weights; None where they are plain numbers."""
    own = values.get("tenth")
    return own.get("quantisation") if isinstance(own, dict) else None


def _open_directory(path: Path, directory: Path, *, is_checked: bool) -> Checkpoint:
    values = read_config(path)
    _require_plain(values, path)
    if not (directory / SINGLE).exists() and not (directory / INDEX).exists():
        for pattern in _PICKLES:
            for pickle in directory.glob(pattern):
                raise _pickle(pickle)
    source: TensorSource = SafetensorsDir(directory, is_checked=is_checked)
    stored, config = source.infos(), from_hf(values)
    if "embed.weight" in stored:
        source = OwnNames(source, config, origin=path)
    return Checkpoint(
        path=path,
        format="safetensors",
        config_values=values,
        source=Fp8Source(source),
        stored=stored,
        has_mtp=has_mtp(source.infos(), config),
    )


def _require_plain(values: Mapping[str, Any], path: Path) -> None:
    """Refuse weights that are codes of a format which is not read."""
    described = values.get("quantization_config") or {}
    method = described.get("quant_method") if isinstance(described, dict) else described
    if quantisation_values(values) is not None or method == OWN_METHOD:
        raise CheckpointError(
            f"{path} holds int8 or int4 weights made for tenth's own kernels; name the model that it was "
            "made from."
        )
    blocks = described.get("weight_block_size", [128, 128]) if isinstance(described, dict) else None
    if described and (method != "fp8" or blocks != [128, 128]):
        raise CheckpointError(
            f"{path}: weights quantised by {str(method)[:40]!r} in blocks of {str(blocks)[:40]} are not "
            "read, only FP8 in blocks of [128, 128]; choose the unquantised model."
        )


def _first_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is no file and no directory; check the path.")
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}; check the path.") from error


def _is_pickle(start: bytes) -> bool:
    """torch.save writes a zip archive of pickles; long ago it wrote a bare one, "0x80, protocol".

    A llama2.c file may begin so too, but its first number is a width below 65,536.
    """
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[2:] != b"\0\0")


def _pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a pickle, and reading one runs whatever program it holds; take the model's safetensors "
        "files, or convert it where you trust it: transformers' AutoModelForCausalLM.from_pretrained(OLD)"
        ".save_pretrained(NEW)."
    )
