"""transformers' side: `generate` with a clock.

In:  a model directory and the peer's settings.  Out: a side for workers.py.
Not here: which settings are tried (engine_cases.py).
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engine_side import Timing, serve
from benchmarks.engine_weights import transformers_model
from benchmarks.workers import Channel


class Transformers:
    """`generate`, with a clock where it asks whether to stop."""

    def __init__(self, model: Any, *, cache: str, is_compiled: bool) -> None:
        self.model = model
        if is_compiled:
            model.forward = torch.compile(model.forward)
        model.generation_config.eos_token_id = None
        self.options = {"cache_implementation": "static"} if cache == "static" else {}

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
        """All prompts together."""
        ids = torch.tensor(prompts)
        moments = [time.perf_counter()]

        def clock(_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
            moments.append(time.perf_counter())
            return torch.zeros(len(prompts), dtype=torch.bool)

        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
            stopping_criteria=[clock],
            **self.options,
        )
        seconds = [later - earlier for earlier, later in pairwise(moments)]
        return Timing(
            prefill_seconds=seconds[0],
            step_seconds=tuple(seconds[1:]),
            ids=tuple(map(tuple, out[:, ids.shape[1] :].tolist())),
        )

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V)"""
        values: NDArray[np.float32] = self.model(torch.tensor([ids])).logits[0].float().numpy()
        return values


def transformers(
    channel: Channel,
    *,
    directory: str,
    dtype: str,
    attention: str,
    cache: str,
    is_compiled: bool,
    experts: str | None = None,
) -> None:
    """The side. float32 products run at precision "medium", which on this kind of machine is its fastest."""
    torch.set_float32_matmul_precision("medium")
    chosen = {} if experts is None else {"experts_implementation": experts}
    model = transformers_model(
        Path(directory),
        dtype=torch.bfloat16 if dtype == "bf16" else torch.float32,
        attn_implementation=attention,
        **chosen,
    )
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    stacks = sum(p.numel() * p.element_size() for n, p in model.named_parameters() if ".experts." in n)
    is_tied = model.config.tie_word_embeddings
    table = model.get_input_embeddings().weight
    looked_up = 0 if is_tied else table.numel() * table.element_size()
    numbers = sum(p.numel() for p in model.parameters())
    facts = {
        "dense_bytes": size - stacks - looked_up,
        "expert_bytes": stacks,
        "bits_per_weight": round(8 * size / numbers, 3),
    }
    serve(channel, Transformers(model, cache=cache, is_compiled=is_compiled), facts)
