"""`tenth inspect NAME|DIR [--json]`: what a network weighs, without allocating a weight.

Why: before a download or a run, a person wants parameters, cache, FLOPs and memory; all of it is arithmetic
on the configuration, so neither torch nor a weight file is touched.
In:  a preset's name, or a directory with a config.json.
Out: a table, or one JSON object, on the standard output.
Not here: the arithmetic (model/counts.py), the key names (model/hf_config.py).
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tenth.base.errors import ConfigError
from tenth.base.files import read_json
from tenth.base.units import show_bytes, show_count
from tenth.model.config import ModelConfig
from tenth.model.counts import BYTES_PER_WEIGHT, count, flops_per_token
from tenth.model.hf_config import from_hf, to_hf
from tenth.model.presets import PRESETS, preset

_FLOPS_CONTEXT_TOKENS = 4096  # DeepSeek-V3 was trained on sequences of this length (section 4.2)
_RELEASED_IN_FP8 = ("v3-671b",)


def inspect(
    name_or_dir: Annotated[str, typer.Argument(help="A preset's name, or a directory with a config.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Parameters, cache, FLOPs and memory of a network, without allocating its weights."""
    summary = summarize(name_or_dir)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print_tables(summary)


def summarize(name_or_dir: str) -> dict[str, Any]:
    """Everything `inspect` says, as plain JSON values."""
    config, keys = _find(name_or_dir)
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


def _find(name_or_dir: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The network, and its configuration in config.json's keys: a preset's, or the file's own."""
    if name_or_dir in PRESETS:
        config = preset(name_or_dir)
        return config, to_hf(config, is_fp8=name_or_dir in _RELEASED_IN_FP8)
    directory = Path(name_or_dir)
    if not directory.is_dir():
        return preset(name_or_dir), {}  # raises, with the nearest name
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigError(f"{directory} has no config.json; name a model directory or a preset.")
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no JSON object; restore the file that came with the checkpoint.")
    return from_hf(values, name=directory.resolve().name), values


def _print_tables(summary: dict[str, Any]) -> None:
    console = Console()
    console.print(_numbers(summary))
    keys = Table(title="config.json", title_justify="left", box=None, show_header=False, pad_edge=False)
    for key, value in sorted(summary["config"].items()):
        keys.add_row(key, json.dumps(value, ensure_ascii=False))
    console.print(keys)


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
