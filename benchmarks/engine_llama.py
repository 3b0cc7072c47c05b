"""llama.cpp through its C interface: its own quantiser, and a side that decodes batches greedily.

Why: the peer at its best, without a server or a Python loop inside what is timed. A step is one call of
`llama_decode` with one token per sequence; choosing the next token is not timed, which favours the peer.
In:  a GGUF file, the peer's settings.  Out: a side for workers.py; quantised files.
torch is not imported here: a second pool of threads would disturb the peer.
Not here: which settings are tried (engine_cases.py), how the file is made (engine_files.py).
"""

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from numpy.typing import NDArray

from benchmarks.engine_side import Timing, serve
from benchmarks.workers import Channel

FILE_TYPES = {  # what its quantiser is asked for, and whether every matrix gets that type
    "Q8_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True),
    "Q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True),
    "Q4_0-mixed": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, False),
}
CACHE_TYPES = {"f16": 1, "f32": 0, "bf16": 30, "q8_0": 8}  # ggml.h, enum ggml_type
CACHE_BYTES = {"f16": 2.0, "f32": 4.0, "bf16": 2.0, "q8_0": 34 / 32}  # per number
CELLS = 256  # the peer rounds each sequence's context up to this


def quantise_file(source: Path, target: Path, *, file_type: str) -> None:
    """`source` in one of FILE_TYPES; pure ones have every matrix so, embedding and head among them."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure = FILE_TYPES[file_type]
    params.nthread = os.cpu_count() or 1
    partial = target.with_name(target.name + ".partial")
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp could not quantise {source} to {file_type}")
    partial.replace(target)


def file_facts(path: Path) -> dict[str, Any]:
    """What a step reads and how many bits a weight has, from the file's own table."""
    tensors = gguf.GGUFReader(path).tensors
    names = {tensor.name for tensor in tensors}
    size = {tensor.name: int(tensor.n_bytes) for tensor in tensors}
    looked_up = size["token_embd.weight"] if "output.weight" in names else 0
    expert_bytes = sum(value for name, value in size.items() if "_exps." in name)
    elements = sum(int(tensor.n_elements) for tensor in tensors)
    return {
        "dense_bytes": sum(size.values()) - expert_bytes - looked_up,
        "expert_bytes": expert_bytes,
        "bits_per_weight": round(8 * sum(size.values()) / elements, 3),
        "types": sorted({tensor.tensor_type.name for tensor in tensors}),
    }


class LlamaCpp:
    """One loaded model, and a context that is made anew when a request needs a larger one."""

    def __init__(
        self, path: Path, *, threads: int, flash: bool, ubatch: int, cache: str, unified: bool, repack: bool
    ) -> None:
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = repack  # weights rearranged for the processor's widest kernels
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.options = {
            "n_threads": threads,
            "n_threads_batch": threads,
            "n_ubatch": ubatch,
            "flash_attn_type": int(flash),
            "type_k": CACHE_TYPES[cache],
            "type_v": CACHE_TYPES[cache],
            "kv_unified": unified,
        }
        self.context: Any = None
        self.shape = (0, 0)

    def _reserve(self, sequences: int, tokens: int) -> None:
        """An empty cache for so many sequences of so many tokens."""
        if self.shape == (sequences, tokens):
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
            return
        if self.context is not None:
            llama_cpp.llama_batch_free(self.batch)
            llama_cpp.llama_free(self.context)
        params = llama_cpp.llama_context_default_params()
        for name, value in self.options.items():
            setattr(params, name, value)
        capacity = sequences * -(-tokens // CELLS) * CELLS
        params.n_ctx, params.n_seq_max, params.n_batch = capacity, sequences, capacity
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp made no context of {sequences} x {tokens} tokens")
        self.batch = llama_cpp.llama_batch_init(capacity, 0, 1)
        self.shape = (sequences, tokens)

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> float:
        """Rows of (id, position, sequence, is its output wanted). -> seconds"""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, is_wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, is_wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        start = time.perf_counter()
        if code := llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode returned {code} for {len(rows)} tokens")
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - start

    def _outputs(self, count: int) -> NDArray[np.float32]:
        """The logits of the wanted rows, (count, V); overwritten by the next step."""
        pointer = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, shape=(count, self.vocabulary))

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        """Greedy continuation of all prompts together."""
        self._reserve(len(prompts), max(map(len, prompts)) + new_tokens)
        rows = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        prefill_seconds, step_seconds = self._decode(rows), []
        chosen = [self._outputs(len(prompts)).argmax(1).tolist()]
        for step in range(new_tokens - 1):
            rows = [
                (token, len(prompt) + step, sequence, True)
                for sequence, (prompt, token) in enumerate(zip(prompts, chosen[-1], strict=True))
            ]
            step_seconds.append(self._decode(rows))
            chosen.append(self._outputs(len(prompts)).argmax(1).tolist())
        return Timing(
            prefill_seconds=prefill_seconds,
            step_seconds=tuple(step_seconds),
            ids=tuple(zip(*chosen, strict=True)),
        )

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V) of one sequence, token by token as in decoding."""
        self._reserve(1, len(ids))
        rows = []
        for position, token in enumerate(ids):
            self._decode([(token, position, 0, True)])
            rows.append(self._outputs(1).copy())
        return np.concatenate(rows)


def llama(channel: Channel, *, path: str, **options: Any) -> None:
    """The side."""
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    side = LlamaCpp(Path(path), **options)
    system = llama_cpp.llama_print_system_info().decode().strip()
    cache = {"cache_bytes_per_number": CACHE_BYTES[options["cache"]]}
    serve(channel, side, {**file_facts(Path(path)), **cache, "system_info": system})


if __name__ == "__main__":  # SOURCE TARGET TYPE: quantise a file
    quantise_file(Path(sys.argv[1]), Path(sys.argv[2]), file_type=sys.argv[3])
