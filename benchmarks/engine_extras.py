"""Two rows without a peer: what the prefix cache saves, and what speculation gains. Each against itself.

In:  a model directory.  Out: sides for workers.py, and summaries of what they answer.
Not here: the rows against peers (engine_rounds.py).
"""

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import spread
from benchmarks.workers import Channel, Worker
from tenth.base.seeds import stream_seed

SHARED, TAIL = 2048, 32  # tokens that a cold and a warm prompt have in common, and tokens of their own
SPECULATED_TOKENS = 128
TEMPERATURES = (0.0, 0.6)


def time_first_token(engine: Any, name: str, prompt: Sequence[int]) -> dict[str, float]:
    """Seconds from asking to the first token, alone on the engine; and how many tokens the cache had."""
    from tenth.engine.request import Request, SamplingParams

    params = SamplingParams(max_new_tokens=1, temperature=0.0)
    start = time.perf_counter()
    engine.add(Request(request_id=name, prompt_ids=tuple(prompt), params=params))
    updates: list[Any] = []
    while engine.has_work:
        updates += engine.step()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cached_tokens": max(update.cached_tokens for update in updates)}


def prefix(channel: Channel, *, directory: str) -> None:
    """The side: a prompt nobody has seen, then one that shares its first tokens."""
    import torch

    from tenth.checkpoint.model_dir import load_model
    from tenth.engine.engine import Engine
    from tenth.native.process import tune_process

    tune_process()
    model = load_model(Path(directory), dtype=torch.bfloat16)
    engine, vocabulary = Engine(model), model.config.vocab_size

    def answer(request: Mapping[str, int]) -> Any:
        rng = random.Random(stream_seed(request["number"], "prefix"))
        shared, first, second = (
            [rng.randrange(vocabulary) for _ in range(count)] for count in (request["shared"], TAIL, TAIL)
        )
        name = str(request["number"])
        return {
            "cold": time_first_token(engine, f"{name}-cold", shared + first),
            "hit": time_first_token(engine, f"{name}-hit", shared + second),
        }

    channel.answer(answer, {"runner": type(engine.runner).__name__})


def measure_prefix(directory: Path, *, rounds: int, shared: int = SHARED) -> dict[str, Any]:
    """Time to first token, cold and hit."""
    worker = Worker("benchmarks.engine_extras.prefix", {"directory": str(directory)}, keeps_memory=False)
    try:
        answers = [worker.ask({"number": number, "shared": shared}) for number in range(rounds + 1)][1:]
    finally:
        worker.close()
    cold, hit = ([answer[kind]["seconds"] for answer in answers] for kind in ("cold", "hit"))
    return {
        "shared_tokens": shared,
        "own_tokens": TAIL,
        "cached_tokens": answers[-1]["hit"]["cached_tokens"],
        "cold_seconds": spread(tuple(cold)),
        "hit_seconds": spread(tuple(hit)),
        "hit_per_cold": spread(tuple(b / a for a, b in zip(cold, hit, strict=True))),
    }


def speculating(channel: Channel, *, directory: str, speculation: str) -> None:
    """The side: one request after another, alone on the engine."""
    import torch

    from tenth.checkpoint.model_dir import load_model
    from tenth.engine.engine import Engine
    from tenth.engine.request import Request, SamplingParams
    from tenth.engine.settings import EngineSettings, Speculation
    from tenth.native.process import tune_process

    tune_process()
    model = load_model(Path(directory), dtype=torch.bfloat16)
    engine = Engine(model, EngineSettings(speculation=Speculation(speculation)))
    number = 0

    def answer(request: Mapping[str, Any]) -> Any:
        nonlocal number
        number += 1
        params = SamplingParams(
            max_new_tokens=request["new_tokens"],
            min_new_tokens=0,
            temperature=request["temperature"],
            stop_ids=tuple(request["stop_ids"]),
        )
        before = engine.stats()
        engine.add(Request(request_id=str(number), prompt_ids=tuple(request["prompt"]), params=params))
        ids: list[int] = []
        first, count = 0.0, 0
        while engine.has_work:
            for update in engine.step():
                ids += update.ids
            if ids and not count:
                first, count = time.perf_counter(), len(ids)
        after = engine.stats()
        return {
            "seconds": time.perf_counter() - first,
            "tokens": len(ids) - count,
            "ids": ids,
            "drafted": after.drafted_tokens - before.drafted_tokens,
            "accepted": after.accepted_tokens - before.accepted_tokens,
        }

    channel.answer(answer, {"runner": type(engine.runner).__name__})


def measure_speculation(
    directory: Path, prompts: Sequence[Sequence[int]], *, stop_ids: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Tokens per second with and without the model's own guesses, prompt by prompt in turn."""
    workers = {
        kind: Worker(
            "benchmarks.engine_extras.speculating",
            {"directory": str(directory), "speculation": kind},
            keeps_memory=False,
        )
        for kind in ("none", "mtp")
    }
    try:
        return {
            f"temperature {temperature}": _speculation_row(
                workers, prompts, {"temperature": temperature, "stop_ids": list(stop_ids)}, rounds=rounds
            )
            for temperature in TEMPERATURES
        }
    finally:
        for worker in workers.values():
            worker.close()


def _speculation_row(
    workers: Mapping[str, Worker],
    prompts: Sequence[Sequence[int]],
    request: Mapping[str, Any],
    *,
    rounds: int,
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {kind: [] for kind in workers}
    drafted = accepted = 0
    is_same = True
    for number in range(rounds + 1):  # the first warms up
        totals = {kind: [0, 0.0] for kind in workers}
        for prompt in prompts:
            texts = []
            for kind, worker in workers.items():
                got = worker.ask({**request, "prompt": list(prompt), "new_tokens": SPECULATED_TOKENS})
                totals[kind][0] += got["tokens"]
                totals[kind][1] += got["seconds"]
                drafted, accepted = drafted + got["drafted"], accepted + got["accepted"]
                texts.append(got["ids"])
            is_same &= texts[0] == texts[1]
        if number:
            for kind, (tokens, seconds) in totals.items():
                rates[kind].append(tokens / seconds)
    ratios = tuple(b / a for a, b in zip(rates["none"], rates["mtp"], strict=True))
    return {
        "tokens_per_s": {kind: statistics.median(values) for kind, values in rates.items()},
        "ratio": spread(ratios),
        "acceptance": round(accepted / max(1, drafted), 4),
        "drafted": drafted,
        "is_same_text": is_same,
    }
