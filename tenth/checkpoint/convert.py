"""A checkpoint of any format as another one: a Hugging Face directory or a GGUF file, tensor by tensor.

Why: people have a model in one format and a tool that reads another; a conversion must not need the memory of
the model, nor leave half of one behind.
In:  the path of a checkpoint, a target, the type of its matrices; an adapter to merge, if there is one.
Out: the target, whole or not there: weights, config.json, and what lay beside them (tokenizer, template,
generation config, licence, model card). Files of programs are not copied.
FP8 that stays FP8 is copied as it is; everything else passes through plain numbers, one tensor at a time.
Experts that lie in one tensor (transformers 5) are written one by one, which every tool reads.
Not here: formats (opened.py, sharded_writer.py, gguf_export.py), the command (cli/convert.py).
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.base.files import write_json
from tenth.checkpoint.block_fp8 import SCALE, in_fp8
from tenth.checkpoint.companions import (
    GENERATION,
    generation_ids,
    has_tokenizer,
    load_template,
    load_tokenizer,
    require_vocabulary,
)
from tenth.checkpoint.names import Piece, expected_hf, plan, require_fit
from tenth.checkpoint.opened import CONFIG, Checkpoint, adapter_base, open_checkpoint
from tenth.checkpoint.peft import merge_adapter_source
from tenth.checkpoint.safetensors_dir import SafetensorsDir, require_inside
from tenth.checkpoint.sharded_writer import MAX_SHARD_BYTES, HfWriter
from tenth.checkpoint.tensor_file import is_finite
from tenth.checkpoint.tensor_source import TensorSource
from tenth.checkpoint.whole_dir import readable, whole_directory
from tenth.model.config import ModelConfig
from tenth.model.hf_config import to_hf
from tenth.tokenizer.jinja_files import save_template
from tenth.tokenizer.pretrained import FILE_NAME, MAX_FILE_BYTES

Progress = Callable[[int, int], None]

HF_TYPES: Mapping[str, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}
GGUF_TYPES = ("f32", "bf16", "q8_0", "q4_0")
# Of the source's own blocks, of code that is not copied, and of the version that wrote the file.
_UNSAID = ("quantization_config", "auto_map", "transformers_version")
_COMPANIONS = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("*.tiktoken", "*.model", "chat_template*", GENERATION),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "README*"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What was written."""

    num_bytes: int
    warnings: tuple[str, ...]


def convert(
    path: Path,
    target: Path,
    *,
    dtype: str | None = None,
    keep_mtp: bool = True,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    adapter: Path | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> Converted:
    """Write `target`: a GGUF file where its name says so, else a directory. `dtype` None: float32 where all
    of the checkpoint is, else bfloat16. `on_progress` hears how many of how many bytes were converted."""
    _require_target(path, target, dtype=dtype)
    checkpoint = open_checkpoint(path, is_checked=True)
    require_fit(checkpoint.source.infos(), checkpoint.config, mtp=checkpoint.has_mtp, origin=path)
    said: tuple[str, ...] = ()
    if adapter is not None:
        merged = merge_adapter_source(checkpoint.source, adapter)
        checkpoint = dataclasses.replace(checkpoint, source=merged)
        said += _other_base(path, adapter)
    is_wide = all(info.dtype == torch.float32 for info in checkpoint.stored.values())
    chosen = dtype or ("f32" if is_wide else "bf16")
    if target.suffix == ".gguf":
        from tenth.checkpoint.gguf_export import export_checkpoint

        warnings = export_checkpoint(checkpoint, target, file_type=chosen, on_progress=on_progress)
        return Converted(num_bytes=target.stat().st_size, warnings=said + warnings)
    mtp = keep_mtp and checkpoint.has_mtp
    with whole_directory(target) as directory:
        writer = HfWriter(directory, max_shard_bytes=max_shard_bytes)
        tensors = _stored_tensors(
            checkpoint, chosen, mtp=mtp, is_merged=adapter is not None, on_progress=on_progress
        )
        for name, tensor in tensors:
            writer.add(name, tensor, dtype=_dtype_of(name, tensor, chosen))
        writer.finish()
        write_json(directory / CONFIG, _config_values(checkpoint, chosen, mtp=mtp))
        warnings = _bring_companions(checkpoint, directory)
    num_bytes = sum(file.stat().st_size for file in target.iterdir())
    return Converted(num_bytes=num_bytes, warnings=said + warnings)


def _other_base(path: Path, adapter: Path) -> tuple[str, ...]:
    """A warning where the adapter names another base; that its shapes fit does not make it belong."""
    base = adapter_base(adapter)
    if base is None or Path(base).name == readable(path).resolve().name:
        return ()
    return (f"{adapter} says that it was trained on {base}; it was merged into {path}, whose shapes fit.",)


def _require_target(path: Path, target: Path, *, dtype: str | None) -> None:
    """Refuse early what cannot be written."""
    if target.exists() or target.is_symlink():
        raise CheckpointError(f"{target} exists; name another place, or remove it first.")
    if readable(path).resolve() in target.resolve().parents:
        raise CheckpointError(f"{target} would lie inside {path}, which is read; name a place elsewhere.")
    is_gguf = target.suffix == ".gguf"
    if not is_gguf and target.suffix in (".bin", ".safetensors", ".pt", ".pth"):
        raise ConfigError(
            f"'{target.name}' is the name of a file, and only GGUF files are written as one; name a "
            "directory, or a file that ends in .gguf."
        )
    known = GGUF_TYPES if is_gguf else tuple(HF_TYPES)
    if dtype is not None and dtype not in known:
        kind = "a GGUF file" if is_gguf else "a Hugging Face directory"
        raise ConfigError(f"--dtype {dtype} is not written to {kind}; choose one of {', '.join(known)}.")


def _stored_tensors(
    checkpoint: Checkpoint, dtype: str, *, mtp: bool, is_merged: bool, on_progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the target; FP8 is codes and scales. Codes that stay codes are not touched."""
    config, stored = checkpoint.config, checkpoint.stored
    kept: frozenset[str] = frozenset()
    if dtype == "fp8" and not is_merged:
        kept = frozenset(name for name, info in stored.items() if info.dtype == torch.float8_e4m3fn)
    codes = SafetensorsDir(readable(checkpoint.path), is_checked=True) if kept else None
    sizes = {name: math.prod(shape) for name, shape in expected_hf(config, mtp=mtp).items()}
    done, total = 0, sum(sizes.values())
    for name, read in _readers(checkpoint.source, config, mtp=mtp):
        if codes is not None and name in kept:
            matrix, scales = codes.read(name), codes.read(name + SCALE)
            if bool((matrix.view(torch.uint8) & 0x7F).eq(0x7F).any()):  # E4M3's NaN, of either sign
                raise _unsound(name, matrix, origin=checkpoint.path)
            yield from ((name, matrix), (name + SCALE, _finite(name + SCALE, scales, origin=checkpoint.path)))
        else:
            tensor = _finite(name, read(), origin=checkpoint.path)
            yield from in_fp8([(name, tensor)]) if dtype == "fp8" else [(name, tensor)]
        done += sizes[name]
        on_progress(done, total)


def _readers(
    source: TensorSource, config: ModelConfig, *, mtp: bool
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The tensors that a complete checkpoint has, and how each is read."""
    infos, others = source.infos(), dict.fromkeys(expected_hf(config, mtp=mtp))
    for entry in plan(config, mtp=mtp):
        for piece in entry.pieces:
            del others[piece.name]
            is_fused = entry.fused is not None and entry.fused in infos
            yield piece.name, partial(_part, source, entry.fused if is_fused else None, piece)
    for name in others:  # the tables that MTP layers share, which some files leave out there
        own = name if name in infos else _shared(name, config)
        yield name, partial(source.read, own)


def _part(source: TensorSource, fused: str | None, piece: Piece) -> Tensor:
    if fused is None:
        return source.read(piece.name)
    matrix = source.read(fused)[piece.expert]
    return matrix[piece.begin : piece.begin + piece.shape[0]]


def _shared(name: str, config: ModelConfig) -> str:
    is_head = name.endswith("head.weight") and not config.tie_word_embeddings
    return "lm_head.weight" if is_head else "model.embed_tokens.weight"


def _finite(name: str, tensor: Tensor, *, origin: Path) -> Tensor:
    if not tensor.is_floating_point() or not is_finite(tensor):
        raise _unsound(name, tensor, origin=origin)
    return tensor


def _unsound(name: str, tensor: Tensor, *, origin: Path) -> CheckpointError:
    return CheckpointError(
        f"{origin}: '{name}' ({tensor.dtype}) holds NaN, infinite or whole numbers, which are no weights; "
        "restore the file, or use an earlier one."
    )


def _dtype_of(name: str, tensor: Tensor, chosen: str) -> torch.dtype:
    if chosen == "fp8":  # `in_fp8` has seen to it
        return tensor.dtype
    # The bias that chooses experts is added to scores that lie close together.
    return torch.float32 if name.endswith("e_score_correction_bias") else HF_TYPES[chosen]


def _config_values(checkpoint: Checkpoint, dtype: str, *, mtp: bool) -> dict[str, Any]:
    """The keys that the checkpoint came with; what the conversion changes is changed."""
    values = {key: value for key, value in checkpoint.config_values.items() if key not in _UNSAID}
    name = str(HF_TYPES[dtype]).removeprefix("torch.")
    values |= {key: name for key in ("torch_dtype", "dtype") if key in values} or {"torch_dtype": name}
    if not mtp and "num_nextn_predict_layers" in values:
        values["num_nextn_predict_layers"] = 0
    own = values.get("tenth")
    if isinstance(own, dict):  # 0.2 kept more there, which spoke of its own file
        values["tenth"] = {key: value for key, value in own.items() if key not in ("config", "weights_hash")}
    described = to_hf(checkpoint.config, is_fp8=True)
    wanted = ["architectures", "quantization_config"] if dtype == "fp8" else ["architectures"]
    return {key: described[key] for key in wanted} | values


def _bring_companions(checkpoint: Checkpoint, target: Path) -> tuple[str, ...]:
    """Tokenizer, template, generation config, licence and card; what is missing is said."""
    path = readable(checkpoint.path)
    if path.is_dir():
        for file in _companions_in(path):
            shutil.copyfile(file, target / file.name)
    if not has_tokenizer(path):
        return (f"{checkpoint.path} has no tokenizer beside its weights, so none was written.",)
    tokenizer = load_tokenizer(path)
    require_vocabulary(tokenizer, checkpoint.config, source=checkpoint.path)
    if not (target / FILE_NAME).exists():
        tokenizer.save(target)
        save_template(target, load_template(path))
    if not (target / GENERATION).exists():
        write_json(target / GENERATION, generation_ids(tokenizer))
    return ()


def _companions_in(directory: Path) -> list[Path]:
    """What is copied: files of the directory itself, or of the cache that its links lead into."""
    found = {file for pattern in _COMPANIONS for file in directory.glob(pattern)}
    for file in sorted(found):
        require_inside(file, directory)
        if file.is_file() and file.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(
                f"{file} is larger than {MAX_FILE_BYTES >> 20} MiB, and no file of a tokenizer, licence or "
                "model card is; remove it."
            )
    return [file for file in sorted(found) if file.is_file()]
