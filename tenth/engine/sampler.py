"""From scores to a token: temperature, nucleus, and the log-probability that training needs.

Why inverse-CDF with given uniforms: a sequence draws from its own stream of numbers, so it gets the same
tokens whatever else is in the batch.
In:  logits (R, V), uniforms (R,).  Out: ids (R,), log-probabilities (R,) of the temperature-1 distribution.
"""

import ctypes

import torch
from torch import Tensor

from tenth.model.ops import is_native, kernels, pointer


def sample_ids(
    logits: Tensor, uniforms: Tensor, *, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """Draw one id per row. Temperature 0 takes the most likely; top_p keeps the fewest ids of that mass."""
    if not is_native(logits):
        return sample_ids_reference(logits, uniforms, temperature=temperature, top_p=top_p)
    logits, uniforms = logits.contiguous(), uniforms.float().contiguous()
    rows, cols = logits.shape
    ids, logprobs = torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.float32)
    kernels().tenth_sample(
        int(logits.dtype == torch.bfloat16), pointer(logits), pointer(uniforms), ctypes.c_int64(rows),
        ctypes.c_int64(cols), ctypes.c_float(temperature), ctypes.c_float(top_p), pointer(ids),
        pointer(logprobs),
    )  # fmt: skip
    return ids, logprobs


def sample_ids_reference(
    logits: Tensor, uniforms: Tensor, *, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """The obvious form."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logp = wide.log_softmax(-1)  # (R, V)
    if temperature == 0:
        ids = logp.argmax(-1)  # (R,)
    else:
        p = (wide / temperature).softmax(-1)
        ranked, order = p.sort(dim=-1, descending=True, stable=True)
        is_kept = ranked.cumsum(-1) - ranked < top_p  # mass before this one
        p = torch.zeros_like(p).scatter(-1, order, ranked * is_kept)
        cdf = p.cumsum(-1)  # (R, V)
        ids = torch.searchsorted(cdf, (uniforms.to(p.dtype) * cdf[:, -1])[:, None], right=True).squeeze(-1)
        ids = ids.clamp(max=logits.shape[-1] - 1)
    return ids, logp.gather(-1, ids[:, None]).squeeze(-1)
