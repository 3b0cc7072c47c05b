"""`tenth inspect NAME|PATH [--tensors] [--json]`: what a network weighs, and what a checkpoint holds.

Why: before a download, a conversion or a run, a person wants parameters, cache, FLOPs and memory; and, where
there are weights, whether they are all there. No weight is read or allocated.
In:  a preset's name, a directory with a config.json, or a checkpoint of any format.
Out: tables, or one JSON object, on the standard output.
Presets and bare configurations are arithmetic and answer without torch; headers of weights need it.
Not here: the arithmetic (model/counts.py), the key names (model/hf_config.py), the headers
(checkpoint/inspection.py).
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tenth.base.errors import ConfigError
from tenth.base.units import show_bytes, show_count
from tenth.checkpoint.json_file import read_object
from tenth.model.config import ModelConfig
from tenth.model.counts import BYTES_PER_WEIGHT, count, flops_per_token
from tenth.model.hf_config import from_hf, to_hf
from tenth.model.presets import PRESETS, preset

_FLOPS_CONTEXT_TOKENS = 4096  # DeepSeek-V3 was trained on sequences of this length (section 4.2)
_NAMES_SHOWN, _SHAPES_SHOWN, _CHARS_SHOWN = 5, 2, 1000
_RELEASED_IN_FP8 = ("v3-671b",)


def inspect(
    name_or_path: Annotated[
        str, typer.Argument(help="A preset's name, a model directory, or a .gguf or llama2.c .bin file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor, not groups.")] = False,
) -> None:
    """Parameters, cache, FLOPs and memory of a network; tensors of a checkpoint, without reading them."""
    if _has_weights(name_or_path):
        summary = _summarize_checkpoint(Path(name_or_path), with_tensors=tensors)
    else:
        summary = summarize(name_or_path)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print_tables(summary)


def summarize(name_or_dir: str) -> dict[str, Any]:
    """What follows from a configuration alone, as plain JSON values."""
    config, keys = _find(name_or_dir)
    return _summarize_config(config, keys)


def _summarize_config(config: ModelConfig, keys: dict[str, Any]) -> dict[str, Any]:
    counts = count(config)
    context_tokens = min(_FLOPS_CONTEXT_TOKENS, config.max_position_embeddings)
    flops = flops_per_token(config, context_tokens=context_tokens)
    return {
        "name": config.name,
        "parameters": {
            "total": counts.total_parameters,
            "activated": counts.activated_parameters,
            "activated_without_embedding": counts.activated_without_embedding,
            "mtp": counts.mtp_parameters,
            "stored_with_mtp": counts.stored_parameters,
        },
        "kv_cache": {
            "elements_per_token": counts.kv_elements_per_token,
            "bf16_bytes_per_token": counts.kv_bytes_per_token(),
            "bf16_bytes_at_full_context": counts.kv_bytes_per_token() * config.max_position_embeddings,
        },
        "flops_per_token": {"context_tokens": context_tokens, **dataclasses.asdict(flops)},
        "weight_bytes": {precision: counts.weight_bytes(precision) for precision in BYTES_PER_WEIGHT},
        "config": keys,
    }


def _has_weights(name_or_path: str) -> bool:
    path = Path(name_or_path)
    if name_or_path in PRESETS or not path.exists():
        return False
    patterns = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt", "*.pth")
    return path.is_file() or any(file for pattern in patterns for file in path.glob(pattern))


def _summarize_checkpoint(path: Path, *, with_tensors: bool) -> dict[str, Any]:
    """The same, and what the files hold."""
    from tenth.checkpoint.inspection import inspect_checkpoint, show_dtype

    found = inspect_checkpoint(path)
    config = dataclasses.replace(found.config, name=path.resolve().name)
    checkpoint: dict[str, Any] = {
        "format": found.format,
        "family": found.family,
        "tensors": len(found.tensors),
        "bytes": found.num_bytes,
        "has_mtp": found.has_mtp,
        **(dataclasses.asdict(found.fit) if found.fit else {}),
        "tokenizer": found.tokenizer,
        "template": found.template,
        "groups": [dataclasses.asdict(group) for group in found.groups],
    }
    if with_tensors:
        checkpoint["every_tensor"] = {
            name: {"dtype": show_dtype(info), "shape": info.shape} for name, info in found.tensors.items()
        }
    return {**_summarize_config(config, dict(found.config_values)), "checkpoint": checkpoint}


def _find(name_or_dir: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The network, and its configuration in config.json's keys: a preset's, or the file's own."""
    if name_or_dir in PRESETS:
        config = preset(name_or_dir)
        return config, to_hf(config, is_fp8=name_or_dir in _RELEASED_IN_FP8)
    directory = Path(name_or_dir)
    if not directory.is_dir():
        try:
            return preset(name_or_dir), {}  # raises, with the nearest name
        except ConfigError as error:
            raise ConfigError(f"no model is at {directory}, and {error}") from error
    path = directory / "config.json"
    if not path.is_file():
        from tenth.checkpoint.opened import no_model

        raise no_model(directory)
    values = read_object(path)
    return from_hf(values, name=directory.resolve().name), values


def _print_tables(summary: dict[str, Any]) -> None:
    console = Console()
    console.print(_numbers(summary))
    if "checkpoint" in summary:
        for part in _checkpoint_parts(summary["checkpoint"]):
            console.print(part, soft_wrap=isinstance(part, Text))
        return
    keys = Table(title="config.json", title_justify="left", box=None, show_header=False, pad_edge=False)
    for key, value in sorted(summary["config"].items()):
        keys.add_row(key, json.dumps(value, ensure_ascii=False))
    console.print(keys)


def _checkpoint_parts(checkpoint: dict[str, Any]) -> Iterator[Table | Text]:
    """What the files hold, as lines and a table."""
    mtp = ", MTP layers included" if checkpoint["has_mtp"] else ""
    yield Text()
    yield _foreign(
        f"{checkpoint['family']}, {checkpoint['format']}: {checkpoint['tensors']:,} tensors, "
        f"{show_bytes(checkpoint['bytes'])}{mtp}"
    )
    table = Table(box=None, pad_edge=False)
    every = checkpoint.get("every_tensor")
    table.add_column("tensor" if every is not None else "tensors (.weight)", overflow="fold")
    table.add_column("dtype")
    table.add_column("shape")
    if every is not None:
        for name, info in every.items():
            table.add_row(_foreign(name), info["dtype"], _show_shapes([info["shape"]]))
    else:
        for column in ("count", "size"):
            table.add_column(column, justify="right")
        for group in checkpoint["groups"]:
            count, size = f"{group['count']:,}", show_bytes(group["num_bytes"])
            dtypes, shapes = ", ".join(group["dtypes"]), _show_shapes(group["shapes"])
            table.add_row(_foreign(group["pattern"].removesuffix(".weight")), dtypes, shapes, count, size)
    yield table
    for what in ("missing", "unexpected", "misshapen"):
        names = checkpoint.get(what, ())
        more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
        yield _foreign(f"{what}: {', '.join(names[:_NAMES_SHOWN]) or 'none'}{more}")
    yield _foreign(f"tokenizer: {checkpoint['tokenizer']}")
    yield _foreign(f"template: {checkpoint['template']}")


def _foreign(text: str) -> Text:
    """Text from a stranger's file: nothing in it moves the cursor or fills the screen."""
    shown = text if len(text) <= _CHARS_SHOWN else f"{text[:_CHARS_SHOWN]}..."
    return Text("".join(char if char.isprintable() else "\ufffd" for char in shown))


def _show_shapes(shapes: Sequence[Sequence[int]]) -> str:
    shown = [" x ".join(map(str, shape)) or "one number" for shape in shapes[:_SHAPES_SHOWN]]
    more = len(shapes) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _numbers(summary: dict[str, Any]) -> Table:
    parameters, cache, flops = summary["parameters"], summary["kv_cache"], summary["flops_per_token"]
    table = Table(title=summary["name"], title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")

    def row(label: str, shown: str, exact: float, unit: str) -> None:
        table.add_row(label, shown, f"{exact:,.0f} {unit}")

    row("total parameters", _billions(parameters["total"]), parameters["total"], "")
    row("activated per token", _billions(parameters["activated"]), parameters["activated"], "")
    without = parameters["activated_without_embedding"]
    row("  without the embedding table", _billions(without), without, "")
    if parameters["mtp"]:
        row("MTP layers on top", _billions(parameters["mtp"]), parameters["mtp"], "")
        stored = parameters["stored_with_mtp"]
        row("  stored, with MTP's own copies", _billions(stored), stored, "")
    per_token, full = cache["bf16_bytes_per_token"], cache["bf16_bytes_at_full_context"]
    row("KV cache per token, bf16", show_bytes(per_token), per_token, "bytes")
    row("  at full context", show_bytes(full), full, "bytes")
    at = f"per token, {flops['context_tokens']:,}-token context"
    row(f"forward {at}", show_count(flops["forward"]), flops["forward"], "FLOPs")
    row(f"training {at}", show_count(flops["training"]), flops["training"], "FLOPs")
    for precision, size in summary["weight_bytes"].items():
        row(f"weights in {precision}", show_bytes(size), size, "bytes")
    return table


def _billions(value: int) -> str:
    """Five digits, enough to tell 671.03 B from 671.0 B: show_count rounds to three."""
    return f"{value / 1e9:.2f} B" if value >= 1e9 else f"{value / 1e6:.2f} M"
