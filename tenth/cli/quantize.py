"""`tenth quantize DIR [OUT] --bits 8|4 [--text FILE]`: a model directory in half or a quarter of the memory.

Why: a smaller model answers faster and fits where the original does not; what it costs should be a number.
In:  a model directory; a text in the model's language, if the loss of quality is to be measured.
Out: a new model directory, which every command reads like the original, and its size on the standard output.
Not here: the work itself (checkpoint/quantized_dir.py).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.base.errors import ConfigError, DataError
from tenth.base.units import show_bytes
from tenth.cli.progress import progress

if TYPE_CHECKING:  # torch: not for `--help`
    from tenth.model.divergence import Divergence

_BITS = (8, 4)
_TEXT_TOKENS = 4096  # of the text that are compared: forty of them lie above the 99th percentile


def quantize(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    out: Annotated[Path | None, typer.Argument(help="The new one; default: DIR-8bit or DIR-4bit.")] = None,
    bits: Annotated[int, typer.Option(help="Bits per weight, 8 or 4.")] = 8,
    head_bits: Annotated[int, typer.Option(help="Of the output head; 4 is faster and loses more.")] = 8,
    text: Annotated[
        Path | None, typer.Option(help="A text on which to compare the result with the original.")
    ] = None,
) -> None:
    """Write a model's matrices in 8 or 4 bits, as a new model directory."""
    for option, value in (("--bits", bits), ("--head-bits", head_bits)):
        if value not in _BITS:
            raise ConfigError(f"{option} {value} is not known; choose 8 or 4.")
    whole = directory.resolve()  # `.` has no name
    target = out or whole.parent / f"{whole.name}-{bits}bit"
    from tenth.native.process import tune_process

    tune_process()  # before the first tensor
    from tenth.checkpoint.quantized_dir import quantize_directory, require_quantizable

    require_quantizable(directory, target)
    ids = None if text is None else _token_ids(text, directory)
    with progress(f"{bits} bits") as tell:
        done = quantize_directory(
            directory,
            target,
            bits=bits,
            head_bits=head_bits,
            ids=ids,
            on_progress=tell,
        )
    share = done.bytes_after / done.bytes_before
    typer.echo(
        f"{directory}: {show_bytes(done.bytes_before)} -> {target}: {show_bytes(done.bytes_after)} "
        f"({share:.0%}), {done.bits_per_weight:.2f} bits per weight"
    )
    if done.divergence is not None:
        typer.echo(_sentence(done.divergence))


def _token_ids(path: Path, directory: Path) -> list[int]:
    from tenth.tokenizer.tokenizer import Tokenizer

    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"could not read {path} ({error}); name a text file in UTF-8.") from error
    ids = Tokenizer.load(directory).encode_plain(content)[:_TEXT_TOKENS]
    if not ids:
        raise DataError(f"{path} is empty; name a text of some thousand words.")
    return ids


def _sentence(measured: "Divergence") -> str:
    return (
        f"against the original, on {measured.tokens:,} tokens: KL divergence {measured.kl_mean:.4g} nats per "
        f"token (99th percentile {measured.kl_p99:.4g}), same likeliest token {measured.same_top_share:.2%}"
    )
