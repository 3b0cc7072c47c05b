"""What llama.cpp answers to files that `tenth export` writes, kept as a small file that tests compare with.

Why: llama.cpp is built from source, so tests do not run it; its answers to networks that anybody can make
again (llama_models.py) are the proof that names, layouts, keys and vocabularies of a GGUF file are right.
In:  optionally the directory of stories260K, a real trained network.
Out: tests/checkpoint/golden/llama_cpp.json: per network the greedy continuation of a prompt, logits at three
places, and what the files of each type hash to; per type the perplexity of a story; and how often llama.cpp
cuts a text as our own vocabulary does.
    python -m benchmarks.llama_golden [--stories DIR]
Not here: speed (engine.py).
"""

import argparse
import ctypes
import datetime
import hashlib
import importlib.metadata
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from numpy.typing import NDArray

from benchmarks.llama_models import (
    COMPARED,
    CONFIGS,
    GOLDEN,
    NEW_TOKENS,
    SHOWN_LOGITS,
    SHOWN_PLACES,
    TRAINED_ON,
    build_model,
    documents,
    own_tokenizer,
    prompt_ids,
    source_of,
)
from tenth.checkpoint.companions import load_tokenizer
from tenth.checkpoint.gguf_export import export_gguf
from tenth.checkpoint.gguf_vocabulary import vocabulary_keys
from tenth.checkpoint.gguf_writer import FILE_TYPES, write_gguf
from tenth.model.config import ModelConfig

STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, "
    "she saw a big, red ball. She wanted to play with it, but it was too high. Her mom said, Lily, let us go "
    "to the store. We can buy a new ball! Lily was happy and ran to the car. They went to the store and saw "
    "many toys. Tom and Sam were there too. They liked to run and jump. The dog was sad because he lost his "
    "bone. The sun was hot and the sky was blue.\nThe end."
)
# Where a vocabulary of our own and the nearest cut could part: blanks, digits, punctuation, other scripts.
TEXTS = (
    "<think>12 + 30 = 42</think><answer>42</answer>",
    "User: 小明有3个苹果，又买了12个。\nAssistant:",
    "x = [1, 2,  30]\n    return x.y + a_b  \n\n\tif (x >= 10):  # 3.14...",
    'Don\'t stop!  ..."Why?"   9',
)


def perplexity(logits: NDArray[np.float32], ids: Sequence[int]) -> float:
    """Of every id but the first, after the ones before it."""
    rows = logits[:-1].astype(np.float64)
    chosen = rows[np.arange(len(rows)), np.array(ids[1:])] - np.logaddexp.reduce(rows, axis=1)
    return math.exp(-chosen.mean())


class Llama:
    """One file in llama.cpp, with a cache in float32."""

    def __init__(self, path: Path, *, vocab_only: bool = False) -> None:
        self._llama = llama_cpp.Llama(
            str(path),
            vocab_only=vocab_only,
            n_ctx=512,
            n_threads=1,
            n_threads_batch=1,
            logits_all=True,
            verbose=False,
            flash_attn=False,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
        )

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self._llama.reset()
        self._llama.eval(ids)
        return self._llama.scores[: len(ids)].copy()

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        self.logits(ids)
        chosen: list[int] = []
        while len(chosen) < count:
            chosen.append(int(self._llama.scores[self._llama.n_tokens - 1].argmax()))
            self._llama.eval(chosen[-1:])
        return chosen

    def encode(self, text: str, *, add_bos: bool = False) -> list[int]:
        return list(self._llama.tokenize(text.encode(), add_bos=add_bos, special=True))


def network(name: str, config: ModelConfig, folder: Path) -> dict[str, Any]:
    """Its answers."""
    source, path = source_of(build_model(config)), folder / "network.gguf"
    hashes = {}
    for file_type in reversed(FILE_TYPES):  # float32 last
        write_gguf(path, config, source, file_type=file_type, beside={"tokenizer.ggml.model": "none"})
        hashes[file_type] = hashlib.sha256(path.read_bytes()).hexdigest()
    llama, ids = Llama(path), prompt_ids(config)
    logits = llama.logits(ids)
    shown = [[round(float(each), 5) for each in logits[place][:SHOWN_LOGITS]] for place in SHOWN_PLACES]
    print(name, file=sys.stderr)
    return {"greedy": llama.greedy(ids, NEW_TOKENS), "logits": shown, "sha256": hashes}


def cuts(folder: Path) -> dict[str, Any]:
    """Our own vocabulary under the nearest cut."""
    tokenizer = own_tokenizer()
    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in vocabulary_keys(tokenizer, vocab_size=tokenizer.vocab_size).items():
        kind = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
        kind.get(type(value), writer.add_array)(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    llama = Llama(path, vocab_only=True)
    compared = documents(TRAINED_ON + COMPARED)[TRAINED_ON:]
    same = sum(llama.encode(text) == tokenizer.encode(text) for text in compared)
    return {
        "documents": COMPARED,
        "same_ids": same,
        "texts": {text: llama.encode(text) for text in TEXTS},
    }


def stories(directory: Path, folder: Path) -> dict[str, Any]:
    """A trained network in every type."""
    source = directory / "stories260K.bin"
    ids = [1, *load_tokenizer(source).encode_plain(STORY)]
    found: dict[str, Any] = {"ids": ids, "perplexity": {}}
    for file_type in FILE_TYPES:
        path = folder / "stories.gguf"
        export_gguf(source, path, file_type=file_type, on_progress=lambda _done, _total: None)
        llama = Llama(path)
        found["perplexity"][file_type] = perplexity(llama.logits(ids), ids)
        if file_type == "f32":
            found["encoded"] = llama.encode(STORY, add_bos=True)
            found["greedy"] = llama.greedy([1], 255)
    return found


def main() -> None:
    """Make the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=Path, help="the directory of stories260K.bin")
    options = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    versions = {
        "llama-cpp-python": llama_cpp.__version__,
        "gguf": importlib.metadata.version("gguf"),
        "numpy": np.__version__,
    }
    print(versions, file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "command": "python -m benchmarks.llama_golden [--stories DIR]",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": versions,
            "networks": {key: network(key, config, folder) for key, config in CONFIGS.items()},
            "own_vocabulary": cuts(folder),
        }
        if options.stories:
            found["stories260K"] = stories(options.stories, folder)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
