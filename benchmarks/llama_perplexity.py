"""Perplexity of exported GGUF files: llama.cpp's number next to ours on the same file.

Why: llama.cpp rounds activations where a file is quantised, so equal tokens are not to be had there; that it
reads the same weights shows in how surprised it is by the same text.
In:  the directory of stories260K.  Out: benchmarks/results/llama-perplexity.json.
The text: stories that the model itself samples at temperature 1 from the beginning token, by a fixed seed.
Ours is computed in float32 from the blocks that the file holds.
Not here: equal tokens in float32 (llama_golden.py).

python -m benchmarks.llama_perplexity --stories DIR
"""

import argparse
import importlib.metadata
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
import torch
from torch import Tensor

from benchmarks.provenance import RESULTS
from tenth.checkpoint.gguf_export import export_gguf
from tenth.checkpoint.model_dir import load_model
from tenth.engine.request import SamplingParams
from tenth.llm.llm import LLM

_STORIES, _TOKENS = 64, 128


def sampled_stories(path: Path) -> list[list[int]]:
    """Token ids, the beginning token included."""
    params = SamplingParams(n=_STORIES, max_new_tokens=_TOKENS, temperature=1.0, seed=0)
    with LLM(path, dtype=torch.float32) as llm:
        (output,) = llm.generate([[1]], params, ignore_eos=True)
    return [[1, *sample.ids] for sample in output.samples]


def surprise(logits: Tensor, ids: Sequence[int]) -> float:
    """Summed negative log-likelihood. logits (T, V), of which row t predicts ids[t + 1]"""
    logprobs = logits[: len(ids) - 1].double().log_softmax(-1)
    return -float(logprobs.gather(1, torch.tensor(ids[1:])[:, None]).sum())


def compare(path: Path, stories: Sequence[Sequence[int]]) -> dict[str, float]:
    """Perplexities of one file."""
    model = load_model(path, dtype=torch.float32)
    peer = llama_cpp.Llama(str(path), n_ctx=2 * _TOKENS, logits_all=True, verbose=False, n_threads=1)
    ours = theirs = 0.0
    for ids in stories:
        with torch.no_grad():
            ours += surprise(model.logits(model(torch.tensor([ids])))[0], ids)
        peer.reset()
        peer.eval(ids)
        theirs += surprise(torch.from_numpy(np.array(peer.scores[: len(ids)])), ids)
    peer.close()
    tokens = sum(len(ids) - 1 for ids in stories)
    return {
        "ours": math.exp(ours / tokens),
        "llama.cpp": math.exp(theirs / tokens),
        "llama.cpp_over_ours": math.exp((theirs - ours) / tokens),
        "tokens": tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=Path, required=True, help="the directory of stories260K.bin")
    model = parser.parse_args().stories / "stories260K.bin"
    stories = sampled_stories(model)
    result: dict[str, object] = {
        "command": "python -m benchmarks.llama_perplexity --stories DIR",
        "versions": {
            name: importlib.metadata.version(name) for name in ("llama-cpp-python", "torch", "gguf")
        },
    }
    with tempfile.TemporaryDirectory() as place:
        for file_type in ("f32", "bf16", "q8_0", "q4_0"):
            path = Path(place) / f"{file_type}.gguf"
            export_gguf(model, path, file_type=file_type, on_progress=lambda _done, _total: None)
            result[file_type] = compare(path, stories)
            print(file_type, result[file_type])
    text = json.dumps(result, indent=1) + "\n"
    (RESULTS / "llama-perplexity.json").write_text(text)


if __name__ == "__main__":
    main()
