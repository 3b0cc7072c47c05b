"""Interleaved trials of any number of sides, the memory's speed before each round, and what they say.

Why: on a shared machine only neighbours in time can be compared, so every round runs every side once on the
same prompts, who begins rotates, and each round's own ratio and bandwidth are kept.
In:  workers that answer, a case.  Out: `Round`s; `summary` of them, pure.
Not here: starting the sides (engine.py), tables (engine_tables.py).
"""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine_cases import TENTH, Case, StoredBytes, bytes_per_step
from benchmarks.engine_side import Timing, ask_timing
from benchmarks.rounds import spread
from benchmarks.workers import Worker
from tenth.base.seeds import stream_seed
from tenth.model.presets import preset


@dataclass(frozen=True, kw_only=True)
class Round:
    """Each side once."""

    read_gb_per_s: float  # measured just before
    timings: Mapping[str, Timing]


def random_prompts(case: Case, *, number: int) -> list[list[int]]:
    """The prompts of one round: new ones each time, so that no prefix cache helps."""
    rng = random.Random(stream_seed(number, case.name))
    vocabulary = preset(case.shape).vocab_size
    return [[rng.randrange(vocabulary) for _ in range(case.prompt_tokens)] for _ in range(case.batch)]


def run_rounds(
    case: Case, workers: Mapping[str, Worker], memory: Worker, *, rounds: int, warm_up: int = 1
) -> list[Round]:
    """Warm every side up, then alternate."""
    for number in range(warm_up):
        for worker in workers.values():
            ask_timing(worker, random_prompts(case, number=-1 - number), case.new_tokens)
    names, done = list(workers), []
    for number in range(rounds):
        prompts = random_prompts(case, number=number)
        read = memory.ask(None)
        turn = number % len(names)
        order = names[turn:] + names[:turn]
        timings = {name: ask_timing(workers[name], prompts, case.new_tokens) for name in order}
        done.append(Round(read_gb_per_s=read, timings=timings))
    return done


def seconds_of(case: Case, timing: Timing) -> float:
    """What the case is about: the prompt, or the median decode step."""
    return timing.prefill_seconds if case.is_prefill else statistics.median(timing.step_seconds)


def summary(case: Case, rounds: Sequence[Round], stored: Mapping[str, StoredBytes]) -> dict[str, Any]:
    """Tokens per second, shares and ratios; every spread holds its rounds."""
    seconds = {
        name: tuple(seconds_of(case, each.timings[name]) for each in rounds) for name in rounds[0].timings
    }
    sides = {name: _side(case, name, rounds, seconds[name], stored[name]) for name in seconds}
    ratios = {
        name: spread(tuple(peer / own for own, peer in zip(seconds[TENTH], values, strict=True)))
        for name, values in seconds.items()
        if name != TENTH
    }
    reads = spread(tuple(each.read_gb_per_s for each in rounds))
    return {"sides": sides, "ratios": ratios, "read_gb_per_s": reads}


def _side(
    case: Case, name: str, rounds: Sequence[Round], seconds: Sequence[float], stored: StoredBytes
) -> dict[str, Any]:
    timings = [each.timings[name] for each in rounds]
    rate = spread(tuple(case.tokens_per_second(value) for value in seconds))
    result: dict[str, Any] = {
        "tokens_per_s": rate,
        "bits_per_weight": stored.bits_per_weight,
        "prefill_tokens_per_s": spread(
            tuple(case.batch * case.prompt_tokens / timing.prefill_seconds for timing in timings)
        ),
    }
    if case.is_prefill:
        return result
    # The mean over all steps beside the median step: a stall counts in what a user pays for.
    result["mean_tokens_per_s"] = spread(
        tuple(case.batch / statistics.mean(timing.step_seconds) for timing in timings)
    )
    size = bytes_per_step(case, stored)
    shares = tuple(
        size / value / 1e9 / each.read_gb_per_s for value, each in zip(seconds, rounds, strict=True)
    )
    return {**result, "bytes_per_step": round(size), "bandwidth_share": spread(shares)}


def agreement(rounds: Sequence[Round]) -> dict[str, float]:
    """Mean share of tokens until a peer's continuation leaves ours: 1 is the same text throughout.

    Rounding alone makes greedy texts part sooner or later; a low number on float32 would be an error.
    """
    found: dict[str, list[float]] = {}
    for each in rounds:
        for name, timing in each.timings.items():
            if name == TENTH:
                continue
            for own, peer in zip(each.timings[TENTH].ids, timing.ids, strict=True):
                same = next(
                    (i for i, pair in enumerate(zip(own, peer, strict=True)) if pair[0] != pair[1]), len(own)
                )
                found.setdefault(name, []).append(same / len(own))
    return {name: round(statistics.mean(values), 3) for name, values in found.items()}
