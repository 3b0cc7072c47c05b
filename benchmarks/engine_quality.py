"""What small weights cost in quality: the divergence from the bf16 model's predictions, ours and the peer's.

Why: speed at 4 bits means nothing without it; a format counts only at equal or better quality per bit.
In:  a directory of weights (engine_files.py), a text.  Out: KL in nats per token and bits per weight.
The reference is one for all: the bf16 weights, computed in float32 by transformers. What each side's own
bf16 costs against it is listed too: that is the noise of bf16 arithmetic. All formats are read token by
token, with the code that decodes.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine_cases import BITS, LLAMA, LLAMA_FORMATS, STARTS, TENTH
from benchmarks.engine_files import our_directory, peer_file
from benchmarks.engine_side import ask_logits
from benchmarks.workers import Worker
from tenth.base.files import text_hash
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_dir import load_config
from tenth.tokenizer.tokenizer import Tokenizer

Logits = NDArray[np.float32]
WINDOW = 128  # tokens that are read together; the first few have little context, as in any text


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Over all tokens of the text."""

    kl_mean: float  # nats per token, KL(reference || this)
    kl_p99: float  # a hundredth of the tokens diverge by more
    same_top_share: float  # share of tokens whose likeliest successor is the reference's
    tokens: int


def kl_per_token(reference: Logits, other: Logits) -> NDArray[np.float64]:
    """KL(softmax(reference) || softmax(other)) of each row, in nats. (T, V), (T, V) -> (T,)"""
    wide = [values.astype(np.float64) for values in (reference, other)]
    logp, logq = (values - _log_sum_exp(values) for values in wide)
    result: NDArray[np.float64] = (np.exp(logp) * (logp - logq)).sum(-1)
    return result


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    most = values.max(-1, keepdims=True)
    result: NDArray[np.float64] = most + np.log(np.exp(values - most).sum(-1, keepdims=True))
    return result


def divergence(pairs: Iterator[tuple[Logits, Logits]]) -> Divergence:
    """Over (reference, other) of every window."""
    found, same = [], []
    for reference, other in pairs:
        found.append(kl_per_token(reference, other))
        same.append(reference.argmax(-1) == other.argmax(-1))
    values = np.concatenate(found)
    return Divergence(
        kl_mean=float(values.mean()),
        kl_p99=float(np.quantile(values, 0.99)),
        same_top_share=float(np.concatenate(same).mean()),
        tokens=len(values),
    )


def text_ids(text: str, directory: Path, *, vocab_size: int) -> list[int]:
    """The model's own tokens; random weights have no tokenizer, there every word gets an id of its own."""
    if (directory / "tokenizer.json").exists():
        return Tokenizer.load(directory).encode_plain(text)
    return [stream_seed(0, word) % vocab_size for word in text.split()]


def measure_quality(root: Path, shape: str, text: str, *, windows: int) -> dict[str, Any]:
    """Every format of both sides against the reference, one side in memory at a time."""
    whole = our_directory(root, shape, "bf16")
    vocab_size = load_config(whole).vocab_size
    ids = text_ids(text, whole, vocab_size=vocab_size)[: windows * WINDOW]
    pieces = [ids[i : i + WINDOW] for i in range(0, len(ids) - 1, WINDOW)]
    with tempfile.TemporaryDirectory() as folder:
        reference = _reference(whole, pieces, Path(folder))
        rows = {}
        for label, (side, options) in sides(root, shape).items():
            worker = Worker(f"benchmarks.{side}", options, keeps_memory=False)
            try:
                pairs = zip(reference, _answers(worker, pieces, Path(folder)), strict=True)
                found = asdict(divergence(iter(pairs)))
            finally:
                worker.close()
            rows[label] = {**found, "bits_per_weight": worker.facts["bits_per_weight"]}
            print(f"  {label}: {rows[label]}", flush=True)
    return {"rows": rows, "text_hash": text_hash(text), "tokens": len(ids)}


def counts(own: dict[str, float], peer: dict[str, float]) -> bool:
    """Whether a quantised row may be compared on speed: no worse at no more bits."""
    is_small = own["bits_per_weight"] <= peer["bits_per_weight"] + 0.01
    return is_small and own["kl_mean"] <= peer["kl_mean"] and not math.isnan(own["kl_mean"])


def sides(root: Path, shape: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """label -> (side, options): every format of ours, then of the peer."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for weights in BITS:
        directory = str(our_directory(root, shape, weights))
        found[f"{TENTH} {weights}"] = ("engine_sides.tenth_logits", {"directory": directory})
    small_cache = {"directory": str(our_directory(root, shape, "bf16")), "cache_dtype": "int8"}
    found[f"{TENTH} bf16, 8-bit cache"] = ("engine_sides.tenth_logits", small_cache)
    for peer, formats in LLAMA_FORMATS.items():
        for weights, kind in formats.items():
            path = str(peer_file(root, shape, weights, peer=peer))
            found[f"{LLAMA} {kind}"] = ("engine_llama.llama", {"path": path, **STARTS[peer], "threads": 1})
    return found


def _answers(worker: Worker, pieces: Sequence[Sequence[int]], folder: Path) -> Iterator[Logits]:
    for piece in pieces:
        yield ask_logits(worker, piece, folder / "logits.npy")


def _reference(directory: Path, pieces: Sequence[Sequence[int]], folder: Path) -> list[Logits]:
    """Kept in memory-mapped files: a window of a large vocabulary is a hundred megabytes."""
    options = {
        "directory": str(directory),
        "dtype": "fp32",
        "attention": "eager",
        "cache": "dynamic",
        "is_compiled": False,
    }
    worker = Worker("benchmarks.engine_transformers.transformers", options, keeps_memory=False)
    paths = [folder / f"reference-{number}.npy" for number in range(len(pieces))]
    try:
        for piece, path in zip(pieces, paths, strict=True):
            worker.ask({"ids": list(piece), "path": str(path)})
    finally:
        worker.close()
    return [np.load(path, mmap_mode="r") for path in paths]
