"""Whole answers for a list of prompts: queue them as there is room, step until all have ended.

In:  prompts as token ids, SamplingParams.  Out: `Generation`s, in order.
Not here: the steps (engine.py); requests of others that run meanwhile keep their updates for the next `step`.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenth.engine.request import Generation, Request, SamplingParams
from tenth.engine.sequence import Sample, sample_streams

if TYPE_CHECKING:
    from tenth.engine.engine import Engine


def generate(
    engine: "Engine",
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    adapter: str | None = None,
) -> list[list[Generation]]:
    """`params.n` samples for every prompt. A prompt that comes twice is two requests."""
    for number, prompt in enumerate(prompts):
        engine.check(prompt, params, name=f"prompt {number}", adapter=adapter)
    groups: list[list[Sample]] = []
    times: Counter[tuple[int, ...]] = Counter()
    numbers = (f"generate-{number}" for number in itertools.count())
    free_names = (name for name in numbers if name not in engine.ledger.requests)
    ended = 0  # groups from the first on
    try:
        while ended < len(prompts):
            while len(groups) < len(prompts) and engine.has_room:
                prompt = tuple(prompts[len(groups)])
                streams = sample_streams(prompt, params, time=times[prompt])
                times[prompt] += 1
                request = Request(
                    request_id=next(free_names),
                    prompt_ids=prompt,
                    params=params,
                    streams=streams,
                    adapter=adapter,
                )
                groups.append(engine.submit(request, is_quiet=True))
            engine.advance()
            while ended < len(groups) and all(sample.finish for sample in groups[ended]):
                ended += 1
    finally:  # an interrupt must not leave half of them running
        for group in groups:
            engine.abort(group[0].request_id)
    return [[sample.generation() for sample in group] for group in groups]
