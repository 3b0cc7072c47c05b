"""`tenth convert A B [--dtype T] [--mtp keep|drop] [--shard-size N] [--adapter DIR]`: from format to format.

Why: a model comes in one format and is wanted in another.
In:  a checkpoint of any format that is read: a Hugging Face directory, a GGUF file, a llama2.c .bin file.
Out: a GGUF file where B ends in .gguf, else a Hugging Face directory; its size on the standard output.
Not here: the work itself (checkpoint/convert.py).
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tenth.base.errors import ConfigError
from tenth.base.units import parse_count, show_bytes
from tenth.cli.progress import progress

_LEAST_SHARD_BYTES = 1_000_000


class Mtp(StrEnum):
    """What happens to the draft layers behind the last one."""

    KEEP = "keep"
    DROP = "drop"


def convert(
    source: Annotated[Path, typer.Argument(metavar="A", help="A model directory, or a model file.")],
    target: Annotated[Path, typer.Argument(metavar="B", help="The new directory, or a file named *.gguf.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the matrices: f32, bf16 or fp8 in a directory; f32, bf16, q8_0 or q4_0 in a GGUF file. "
            "Default: f32 where all of A is, else bf16."
        ),
    ] = None,
    mtp: Annotated[Mtp, typer.Option(help="DeepSeek's draft layers; GGUF files never have them.")] = Mtp.KEEP,
    shard_size: Annotated[str, typer.Option(help="The most bytes of a file, such as 5G or 500M.")] = "5G",
    adapter: Annotated[
        Path | None, typer.Option(help="A PEFT directory whose LoRA is merged into the weights.")
    ] = None,
) -> None:
    """Write a model in another format, tensor by tensor."""
    try:
        shard_bytes = parse_count(shard_size.strip().removesuffix("B"))
    except ConfigError as error:
        raise ConfigError(f"--shard-size {shard_size!r} is no size; write it like 500M or 5G.") from error
    if shard_bytes < _LEAST_SHARD_BYTES:
        raise ConfigError(f"--shard-size {shard_size} is less than 1M; most models have files of 5G.")
    from tenth.checkpoint.convert import convert as convert_checkpoint

    whole = target.parent.resolve() / target.name if target.name else target.resolve()
    with progress("converting") as tell:
        done = convert_checkpoint(
            source,
            whole,
            dtype=dtype,
            keep_mtp=mtp is Mtp.KEEP,
            max_shard_bytes=shard_bytes,
            adapter=adapter,
            on_progress=tell,
        )
    typer.echo(f"{source} -> {target}: {show_bytes(done.num_bytes)}")
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
