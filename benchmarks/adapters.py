"""Eight adapters in one batch: what they cost next to the base alone, and save next to merged models.

Why: serving adapters together is worth it if a mixed batch decodes nearly as fast as a batch of the base, and
much faster than the same requests one merged model after another.
In:  a preset, a rank.  Out: benchmarks/results/adapters.json and a table: decode tokens per second of eight
requests, interleaved rounds, who begins rotates.
The merged side is kind to the peer: one merged model stands for all eight, so nothing is loaded or packed
between two requests.
Not here: whether the tokens are right (tests/engine/test_adapters.py).

python -m benchmarks.adapters [--shape NAME] [--rank 16] [--rounds 7] [--steps 64]
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.engine_weights import random_model
from benchmarks.machine import measure
from benchmarks.provenance import RESULTS, provenance
from benchmarks.rounds import spread
from tenth.base.files import write_json, write_whole
from tenth.base.seeds import stream_seed
from tenth.engine.engine import Engine
from tenth.engine.request import Request, SamplingParams
from tenth.engine.settings import EngineSettings
from tenth.model.lora import LoraConfig, attach_lora, default_targets, lora_parameters, merge_lora
from tenth.model.presets import preset
from tenth.model.transformer import Transformer
from tenth.native.process import tune_process

Side = Callable[[Sequence[Sequence[int]]], float]  # prompts -> tokens per second

ADAPTERS = tuple(f"adapter {number}" for number in range(8))
PROMPT_TOKENS = 64
MIXED, BASE, BASE_ALONE, MERGED = (
    "eight adapters",
    "no adapter",
    "an engine without adapters",
    "merged in turn",
)


def adapted_model(shape: str, *, names: Sequence[str], rank: int) -> Transformer:
    """A random base with random adapters on everything that can be served."""
    model = random_model(preset(shape))
    config = LoraConfig(rank=rank, alpha=float(rank), targets=default_targets(model.config))
    for name in names:
        generator = torch.Generator().manual_seed(stream_seed(0, name))
        attach_lora(model, config, name=name, generator=generator)
        for parameter in lora_parameters(model, name).values():
            parameter.data.normal_(0.0, 0.02, generator=generator)
    return model


def tokens_per_second(
    engine: Engine, prompts: Sequence[Sequence[int]], adapters: Sequence[str | None], *, steps: int
) -> float:
    """Of decoding all of them together; reading the prompts is not counted."""
    params = SamplingParams(max_new_tokens=steps + 1, temperature=0)
    samples = [
        engine.submit(
            Request(request_id=str(number), prompt_ids=tuple(prompt), params=params, adapter=adapter),
            is_quiet=True,
        )[0]
        for number, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True))
    ]
    while not all(sample.logprobs for sample in samples):
        engine.advance()
    before, began = sum(len(sample.logprobs) for sample in samples), time.perf_counter()
    while engine.has_work:
        engine.advance()
    return (sum(len(sample.logprobs) for sample in samples) - before) / (time.perf_counter() - began)


def build_sides(shape: str, *, rank: int, steps: int) -> dict[str, Side]:
    """Four engines' work over three models."""
    settings = EngineSettings(max_sequences=len(ADAPTERS), prefix_caching=False, cache_bytes=2**28)
    serving = Engine(adapted_model(shape, names=ADAPTERS, rank=rank), settings)
    plain = Engine(random_model(preset(shape)), settings)
    merged = Engine(merge_lora(adapted_model(shape, names=ADAPTERS[:1], rank=rank), ADAPTERS[0]), settings)
    nobody = (None,) * len(ADAPTERS)

    def one_after_another(prompts: Sequence[Sequence[int]]) -> float:
        speeds = [tokens_per_second(merged, [prompt], (None,), steps=steps) for prompt in prompts]
        return statistics.harmonic_mean(speeds)  # equally many tokens at each

    return {
        MIXED: lambda prompts: tokens_per_second(serving, prompts, ADAPTERS, steps=steps),
        BASE: lambda prompts: tokens_per_second(serving, prompts, nobody, steps=steps),
        BASE_ALONE: lambda prompts: tokens_per_second(plain, prompts, nobody, steps=steps),
        MERGED: one_after_another,
    }


def run_rounds(sides: Mapping[str, Side], *, vocabulary: int, rounds: int) -> dict[str, tuple[float, ...]]:
    """Every side once per round, on the same prompts; the first round warms up and is not kept."""
    names = list(sides)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        rng = random.Random(stream_seed(number, "adapters"))
        prompts = [[rng.randrange(vocabulary) for _ in range(PROMPT_TOKENS)] for _ in ADAPTERS]
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            speeds[name].append(sides[name](prompts))
    return {name: tuple(values[1:]) for name, values in speeds.items()}


def ratios(speeds: Mapping[str, Sequence[float]], *, to: str) -> tuple[float, ...]:
    """How many times as fast the mixed batch was, round by round."""
    return tuple(own / other for own, other in zip(speeds[MIXED], speeds[to], strict=True))


def table(speeds: Mapping[str, Sequence[float]], *, shape: str, rank: int) -> str:
    """Markdown."""
    lines = [
        f"# Eight adapters of rank {rank} over {shape}, eight requests, bf16",
        "",
        "| side | decode tok/s, median | mixed batch / this, median (min–max) |",
        "|---|---|---|",
    ]
    for name, values in speeds.items():
        each = ratios(speeds, to=name)
        lines.append(
            f"| {name} | {statistics.median(values):,.0f} "
            f"| {statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters")
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=64)
    args = parser.parse_args()
    tune_process()
    machine = measure()
    sides = build_sides(args.shape, rank=args.rank, steps=args.steps)
    vocabulary = preset(args.shape).vocab_size
    speeds = run_rounds(sides, vocabulary=vocabulary, rounds=args.rounds)
    result = {
        "shape": args.shape,
        "rank": args.rank,
        "steps": args.steps,
        "tokens_per_s": {name: spread(values) for name, values in speeds.items()},
        "mixed_to": {name: spread(ratios(speeds, to=name)) for name in speeds},
        **provenance("adapters", machine),
    }
    write_json(RESULTS / "adapters.json", result)
    text = table(speeds, shape=args.shape, rank=args.rank)
    write_whole(RESULTS / "adapters.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
