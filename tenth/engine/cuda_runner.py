"""The runner of a GPU: decode steps as CUDA graphs, prompts as they come.

Why: a GPU computes a decode step of a small network in less time than Python needs to ask for it. A graph is
the whole step in one call; it is made when its shape is first met (PyTorch's CUDAGraph, "whole network
capture").
In/out: see padded_runner.py, which holds everything that is not CUDA. Bfloat16 like the model, or whatever
the model is.
"""

from contextlib import AbstractContextManager

import torch

from tenth.engine.padded_runner import PaddedRunner, Step
from tenth.engine.settings import CacheDtype
from tenth.model.static_experts import MAX_TOKENS
from tenth.model.transformer import Transformer

_FIXED_ROWS = 32  # deterministic: weights are read once for so many tokens; prompts pay for each of them
_WARM_UP_STEPS = 2  # libraries set themselves up in the first, which must not be recorded


class GraphCapture:
    """Records steps on one device, in memory that all its graphs share.

    They may share it because they run one at a time and leave nothing in it: what a step reads and what it
    leaves lies in tensors made before.
    """

    def __init__(self, device: torch.device, aside: torch.cuda.Stream) -> None:
        self.device, self._aside = device, aside
        with self._on_device():
            self._pool = torch.cuda.graph_pool_handle()

    def _on_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device)

    def __call__(self, step: Step) -> Step:
        """Doing a step twice changes nothing: it writes the same entries again."""
        with self._on_device():
            self._aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._aside):
                for _ in range(_WARM_UP_STEPS):
                    step()
            torch.cuda.current_stream().wait_stream(self._aside)
            graph = torch.cuda.CUDAGraph()
            # What other threads do with the device, a trainer's say, is none of the recording's business.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"
            ):
                step()

        def replay() -> None:
            with self._on_device():
                graph.replay()

        return replay


class CudaRunner(PaddedRunner):
    """See `Runner`. Decode steps of more tokens than experts take at once are cut."""

    def __init__(
        self,
        model: Transformer,
        *,
        cache_dtype: CacheDtype = CacheDtype.AUTO,
        deterministic: bool = False,
    ) -> None:
        device = model.norm.weight.device
        aside = torch.cuda.Stream(device)  # one for good: every stream that multiplies keeps a workspace
        super().__init__(
            model,
            cache_dtype=cache_dtype,
            max_rows=MAX_TOKENS,
            fixed_rows=_FIXED_ROWS if deterministic else None,
            build_capture=lambda: GraphCapture(device, aside),
        )
