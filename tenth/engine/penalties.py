"""What a request changes about the scores before the draw: biases, penalties, a mask, a least length.

Why apart from the sampler: few requests ask for it, and those that do pay for it alone, row by row.
The order is vLLM's: biases, then the repetition penalty (CTRL, arXiv:1909.05858, section 4.1, with the sign
rule that transformers added), then frequency and presence (OpenAI's interface); what is forbidden comes last.

In:  one row of scores, the ids so far.  Out: a new row.
Not here: temperature and filters (sampler.py); log-probabilities, which are those of the scores as they came.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.engine.request import SamplingParams

# Shapes: V vocabulary


def adjust(
    logits: Tensor, generated: Sequence[int], prompt_ids: Sequence[int] | Tensor, params: SamplingParams
) -> Tensor:
    """The scores to draw from. Never changes `logits`. (V,) -> (V,) float32, or float64 if it was

    `prompt_ids` may be a tensor of the ids that occur: a long prompt need not be walked at every token.
    """
    row = logits.clone() if logits.dtype == torch.float64 else logits.to(torch.float32, copy=True)  # (V,)
    if params.logit_bias:
        biased = _index(list(params.logit_bias), row)
        row[biased] += torch.tensor(list(params.logit_bias.values()), dtype=row.dtype, device=row.device)
    _penalise(row, _index(generated, row), prompt_ids, params)
    if len(generated) < params.min_new_tokens:
        row[_index(params.stop_ids, row)] = -torch.inf
    if params.logit_mask is not None:
        _forbid(row, params.logit_mask(generated))
    return row


def _penalise(
    row: Tensor, generated: Tensor, prompt_ids: Sequence[int] | Tensor, params: SamplingParams
) -> None:
    if params.repetition_penalty != 1:
        seen = torch.cat([_index(prompt_ids, row), generated]).unique()
        scores = row[seen]
        row[seen] = torch.where(
            scores > 0, scores / params.repetition_penalty, scores * params.repetition_penalty
        )
    if params.frequency_penalty or params.presence_penalty:
        ids, counts = generated.unique(return_counts=True)
        row[ids] -= params.frequency_penalty * counts + params.presence_penalty


def _forbid(row: Tensor, allowed: Tensor | None) -> None:
    if allowed is None:
        return
    if allowed.shape != row.shape or allowed.dtype != torch.bool:
        raise ConfigError(
            f"a logit_mask gave {allowed.dtype} of shape {tuple(allowed.shape)}; "
            f"it must give one bool per id, {len(row)} in all, or None."
        )
    row.masked_fill_(~allowed.to(row.device), -torch.inf)


def _index(ids: Sequence[int] | Tensor, row: Tensor) -> Tensor:
    return torch.as_tensor(ids, dtype=torch.int64, device=row.device)
