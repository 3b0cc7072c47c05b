"""Batches for the tests of runners: parts of a few prompts, alone and together."""

import torch
from engine_models import random_prompts

from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.runner import Batch

LENGTHS = (200, 70, 3, 129)
PROMPTS = random_prompts(*LENGTHS)
PER_PROMPT = 4  # blocks
NUM_BLOCKS = PER_PROMPT * len(PROMPTS)
WHOLE = [(i, 0, length) for i, length in enumerate(LENGTHS)]
STARTS = [(0, 0, 70), (1, 0, 66), (2, 0, 3)]  # a block and a bit, where every token costs a step


def batch(*pieces, firsts=None):
    """Tokens start to end - 1 of each (prompt, start, end); prompt i has its own blocks, in falling order."""
    ids, positions, starts, tables = [], [], [0], []
    for prompt, start, end in pieces:
        ids += PROMPTS[prompt][start:end]
        positions += range(start, end)
        starts.append(len(ids))
        tables.append([prompt * PER_PROMPT + PER_PROMPT - 1 - i for i in range(PER_PROMPT)])
    return Batch(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        starts=torch.tensor(starts, dtype=torch.int32),
        tables=torch.tensor(tables, dtype=torch.int32),
        outputs=torch.arange(len(ids)),
        firsts=None if firsts is None else torch.tensor(firsts),
    )


def allocated(runner):
    runner.allocate(NUM_BLOCKS)
    return runner


CUTS = {
    "together": [STARTS],
    "in chunks": [
        [(0, 0, 7)],
        [(1, 0, 64)],
        [(0, 7, 70)],
        [(1, 64, 66)],
        [(2, 0, 1)],
        [(2, 1, 2)],
        [(2, 2, 3)],
    ],
    "chunks beside tokens": [
        [(0, 0, 30), (1, 0, 1), (2, 0, 2)],
        [(0, 30, 31), (1, 1, 40), (2, 2, 3)],
        [(0, 31, 69), (1, 40, 42)],
        [(0, 69, 70), (1, 42, 66)],
    ],
}


def logits_of(runner, steps):
    """By (prompt, position)."""
    found = {}
    for pieces in steps:
        places = [(prompt, p) for prompt, start, end in pieces for p in range(start, end)]
        found |= dict(zip(places, runner.forward(batch(*pieces)).unbind(), strict=True))
    return found


def assert_same_bits(runner_of):
    """However the starts of the prompts are cut and put together."""
    wanted = {}
    for piece in STARTS:
        wanted |= logits_of(allocated(runner_of()), [[piece]])
    for steps in CUTS.values():
        found = logits_of(allocated(runner_of()), steps)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[place], wanted[place]) for place in wanted)


def answers(network, runner, settings):
    params = SamplingParams(max_new_tokens=6, n=2, temperature=0.8, seed=5)
    engine = Engine(network, settings, runner=runner)
    return [
        [(a.ids, a.logprobs) for a in group]
        for group in engine.generate([*PROMPTS[1:3], PROMPTS[3][:40]], params)
    ]
