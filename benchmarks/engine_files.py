"""Where each side finds the weights of a shape and format; what is missing is made.

In:  a directory that outlives the run, a shape, a format.
Out: our model directory, quantised as by `tenth quantize`; the peer's file, quantised by its own library.
"""

import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.engine_cases import BITS, LLAMA, LLAMA_FORMATS, Format
from benchmarks.engine_weights import model_directory
from tenth.checkpoint.gguf_writer import write_gguf
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.opened import open_checkpoint
from tenth.checkpoint.quantized_dir import quantize_directory
from tenth.tokenizer.tokenizer import Tokenizer


def our_directory(root: Path, shape: str, weights: Format) -> Path:
    """A model directory."""
    whole = model_directory(root, shape)
    if weights == "bf16":
        return whole
    directory = root / shape / weights
    if not (directory / "config.json").exists():
        bits, head_bits = BITS[weights]
        quantize_directory(whole, directory, bits=bits, head_bits=head_bits)
    return directory


def adopt(root: Path, directory: Path) -> str:
    """Give a trained model a place among the shapes, in bf16; the name it goes by there."""
    name = f"{directory.resolve().parent.name}-{directory.resolve().name}"
    target = root / name / "bf16"
    if not (target / "config.json").exists():
        model = load_model(directory, dtype=torch.bfloat16)
        has_tokenizer = (directory / "tokenizer.json").exists()
        save_model(target, model, tokenizer=Tokenizer.load(directory) if has_tokenizer else None)
    return name


def peer_file(root: Path, shape: str, weights: Format, *, peer: str = LLAMA) -> Path:
    """A GGUF file."""
    kind = LLAMA_FORMATS[peer][weights]
    path = root / shape / f"{kind.lower()}.gguf"
    if path.exists():
        return path
    if kind == "BF16":
        _write_file(root, shape, path, file_type="bf16")
    else:
        # In a process of its own: the peer's library shares none with torch.
        source = str(peer_file(root, shape, "bf16"))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine_llama", source, str(path), kind]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return path


def wide_file(root: Path, shape: str) -> Path:
    """The peer's file in float32, for checks."""
    path = root / shape / "f32.gguf"
    if not path.exists():
        _write_file(root, shape, path, file_type="f32")
    return path


def _write_file(root: Path, shape: str, path: Path, *, file_type: str) -> None:
    """Without a vocabulary: ids go in and come out."""
    checkpoint = open_checkpoint(model_directory(root, shape))
    no_vocabulary = {"tokenizer.ggml.model": "none"}
    write_gguf(path, checkpoint.config, checkpoint.source, file_type=file_type, beside=no_vocabulary)
