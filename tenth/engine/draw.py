"""From a step's logits to one token per draw: the sampler for all, and what few requests ask for beside it.

In:  logits, `Packed`.  Out: `Draws`, as plain lists: the engine goes through them row by row.
Not here: the distribution (sampler.py), penalties (penalties.py), whether a guess was right (engine.py).
"""

from dataclasses import dataclass, field

from torch import Tensor

from tenth.engine.batcher import Packed
from tenth.engine.penalties import adjust
from tenth.engine.request import TopLogprobs
from tenth.engine.sampler import logprobs_of, sample, top_logprobs
from tenth.engine.sequence import Sample

# Shapes: O rows of logits, R draws, V vocabulary


@dataclass(slots=True)
class Draws:
    """One entry per draw."""

    ids: list[int]  # -1: nothing could be drawn
    logprobs: list[float]
    top_logprobs: dict[int, TopLogprobs] = field(default_factory=dict)  # where asked for
    errors: dict[int, str] = field(default_factory=dict)  # why nothing could be drawn, where it is known


def draw(logits: Tensor, packed: Packed) -> Draws:
    """One token for every draw. logits (O, V)"""
    if packed.sources is not None:
        logits = logits[packed.sources.to(logits.device)]  # (R, V)
    if not packed.is_adjusted:
        drawn = sample(logits, packed.uniforms.to(logits.device), packed.settings)
        return Draws(drawn.ids.tolist(), drawn.logprobs.tolist())
    return _draw_adjusted(logits, packed)


def _draw_adjusted(logits: Tensor, packed: Packed) -> Draws:
    scores, errors = logits.clone(), {}
    adjusted = [r for r, each in enumerate(packed.samples) if each.params.adjusts]
    for r in adjusted:
        try:
            scores[r] = _adjust(logits[r], packed.samples[r], packed.indices[r])
        except Exception as error:  # noqa: BLE001  a logit_mask is foreign code: its request fails, no other
            errors[r] = f"the request's logit_mask failed with {type(error).__name__}: {error}"
    drawn = sample(scores, packed.uniforms.to(scores.device), packed.settings)
    ids, logprobs = drawn.ids.tolist(), drawn.logprobs.tolist()
    for r, logprob in zip(adjusted, logprobs_of(logits[adjusted], drawn.ids[adjusted]).tolist(), strict=True):
        logprobs[r] = logprob
        if r in errors:
            ids[r] = -1
        elif ids[r] < 0 and bool(logits[r].isfinite().any()):
            errors[r] = "logit_mask, logit_bias and min_new_tokens together leave no token to draw"
    tops = {
        r: top_logprobs(logits[r : r + 1], each.params.top_logprobs)[0]
        for r, each in enumerate(packed.samples)
        if each.params.top_logprobs
    }
    return Draws(ids, logprobs, tops, errors)


def _adjust(row: Tensor, each: Sample, index: int) -> Tensor:
    """The scores of a draw whose past includes the drafts before it: it counts only if they were right."""
    generated = (each.generated() + each.drafts)[:index]
    prompt = each.tokens[: each.prompt_len] if each.params.repetition_penalty != 1 else ()
    return adjust(row, generated, prompt, each.params)
