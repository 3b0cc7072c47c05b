"""tenth's sides: the engine step by step, and its runner alone for comparing what it computes.

Why: every side gets the same prompts and the same weights, decodes greedily, and is timed step by step in its
own process. Ours is timed with everything a user gets: scheduling, the forward pass, sampling.
In:  a model directory and engine settings.  Out: sides for workers.py.
Not here: the peers (engine_transformers.py, engine_llama.py).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engine_side import Timing, serve
from benchmarks.workers import Channel
from tenth.checkpoint.model_dir import load_model
from tenth.engine.build import build_runner
from tenth.engine.engine import Engine
from tenth.engine.request import Request, SamplingParams
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype, EngineSettings
from tenth.model.counts import count
from tenth.model.transformer import Transformer
from tenth.native.process import tune_process

BLOCK = 64


class Tenth:
    """The engine as it is, one step after another."""

    def __init__(self, model: Transformer, settings: EngineSettings) -> None:
        self.engine = Engine(model, settings)
        self.number = 0

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        """All prompts together. Steps that also read prompts count as prefill."""
        params = SamplingParams(max_new_tokens=new_tokens, temperature=0.0)
        names = [f"{self.number}-{i}" for i in range(len(prompts))]
        self.number += 1
        start = time.perf_counter()
        for name, prompt in zip(names, prompts, strict=True):
            self.engine.add(Request(request_id=name, prompt_ids=tuple(prompt), params=params))
        ids: dict[str, list[int]] = {name: [] for name in names}
        prefill_seconds, step_seconds = 0.0, []
        while self.engine.has_work:
            has_begun = all(ids.values())
            updates = self.engine.step()
            now = time.perf_counter()
            for update in updates:
                if update.error is not None:
                    raise RuntimeError(update.error)
                ids[update.request_id] += update.ids
            if has_begun and sum(len(update.ids) for update in updates) == len(prompts):
                step_seconds.append(now - start)
            elif not has_begun:
                prefill_seconds += now - start
            start = now
        return Timing(
            prefill_seconds=prefill_seconds,
            step_seconds=tuple(step_seconds),
            ids=tuple(tuple(values) for values in ids.values()),
        )


class TenthLogits:
    """The engine's runner alone, for comparing what it computes."""

    def __init__(self, model: Transformer, settings: EngineSettings) -> None:
        self.runner = build_runner(model, settings)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        """Not what this side is for."""
        raise NotImplementedError

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V), token by token as in decoding, which may calculate differently from reading a prompt."""
        blocks = -(-len(ids) // BLOCK)
        self.runner.allocate(blocks)
        table = torch.arange(blocks, dtype=torch.int32)[None]
        parts = []
        for position, token in enumerate(ids):
            batch = Batch(
                ids=torch.tensor([token]),
                positions=torch.tensor([position]),
                starts=torch.tensor([0, 1], dtype=torch.int32),
                tables=table,
                outputs=torch.zeros(1, dtype=torch.int64),
            )
            parts.append(self.runner.forward(batch).float().clone())
        self.runner.free()
        values: NDArray[np.float32] = torch.cat(parts).numpy()
        return values


def tenth(channel: Channel, *, directory: str, **settings: Any) -> None:
    """The side; `settings` are EngineSettings."""
    tune_process()
    model = load_model(Path(directory), dtype=torch.bfloat16)
    side = Tenth(model, EngineSettings(**settings))
    facts = {**stored_facts(model), "runner": type(side.engine.runner).__name__}
    serve(channel, side, {**facts, "layout": side.engine.runner.layout})


def tenth_logits(channel: Channel, *, directory: str, cache_dtype: str = "auto") -> None:
    """The side that engine_quality.py compares."""
    tune_process()
    model = load_model(Path(directory), dtype=torch.bfloat16)
    settings = EngineSettings(cache_dtype=CacheDtype(cache_dtype))
    serve(channel, TenthLogits(model, settings), stored_facts(model))


def stored_facts(model: Transformer) -> dict[str, Any]:
    """What a step reads and how many bits a weight has; MTP layers are left out."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("mtp.")}
    size = {name: tensor.numel() * tensor.element_size() for name, tensor in state.items()}
    expert_bytes = sum(v for k, v in size.items() if "ffn.gate_up" in k and _is_stack(k, state))
    expert_bytes += sum(v for k, v in size.items() if "ffn.down" in k and _is_stack(k, state))
    is_tied = model.config.tie_word_embeddings
    looked_up = 0 if is_tied else sum(v for k, v in size.items() if k.startswith("embed."))
    return {
        "dense_bytes": sum(size.values()) - expert_bytes - looked_up,
        "expert_bytes": expert_bytes,
        "bits_per_weight": round(8 * sum(size.values()) / count(model.config).total_parameters, 3),
    }


def _is_stack(name: str, state: dict[str, torch.Tensor]) -> bool:
    return state[name].dim() == 3  # (experts, rows, columns)
