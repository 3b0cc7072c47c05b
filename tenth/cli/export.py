"""`tenth export DIR --format gguf --type f32|bf16|q8_0|q4_0 [--out FILE]`: a model for llama.cpp.

Why: what is trained here should run where people run models.
In:  a checkpoint of any format that is read.
Out: one file with weights, vocabulary and chat template, and its size on the standard output.
Not here: the work itself (checkpoint/gguf_export.py).
"""

from pathlib import Path
from typing import Annotated

import typer

from tenth.base.errors import ConfigError
from tenth.base.units import show_bytes
from tenth.cli.progress import progress


def export(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory, or a model file.")],
    file_format: Annotated[str, typer.Option("--format", help="gguf, the only one so far.")] = "gguf",
    file_type: Annotated[
        str, typer.Option("--type", help="Of the matrices: f32, bf16, q8_0, q4_0.")
    ] = "q8_0",
    out: Annotated[Path | None, typer.Option(help="The file; default: DIR-TYPE.gguf.")] = None,
) -> None:
    """Write a model as a file that llama.cpp runs."""
    if file_format != "gguf":
        raise ConfigError(f"--format {file_format} is not known; it is gguf.")
    whole = path.resolve()  # `.` has no name
    name = whole.name if whole.is_dir() else whole.stem
    target = out or whole.parent / f"{name}-{file_type}.gguf"
    if target.suffix != ".gguf":
        raise ConfigError(f"--out {target} would be a GGUF file under another name; end it in .gguf.")
    if target.exists():
        raise ConfigError(f"{target} exists; name another file with --out, or remove it first.")
    from tenth.checkpoint.gguf_export import export_gguf

    with progress(file_type) as tell:
        warnings = export_gguf(path, target, file_type=file_type, on_progress=tell)
    typer.echo(f"{path} -> {target}: {show_bytes(target.stat().st_size)}")
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
