"""Training tokens per second against transformers on three shapes, the peer at the best of its grid.

python -m benchmarks.train --scan     find the peer's best settings (minutes to an hour) ->
results/train_grid.json python -m benchmarks.train            interleaved rounds against them ->
results/train.json and train.md
In:  nothing.  Out: the files above.  Not here: what a step is (training_sides.py).
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.grid import Trial, scan
from benchmarks.machine import Machine, measure
from benchmarks.provenance import RESULTS, provenance
from benchmarks.rounds import compare
from benchmarks.tables import training_table
from benchmarks.training_sides import SHAPES
from benchmarks.workers import Worker
from tenth.base.files import read_json, write_json, write_whole
from tenth.model.counts import flops_per_token
from tenth.model.presets import preset

OURS, PEER = "benchmarks.training_sides.ours", "benchmarks.training_sides.peer"
STEPS = {"dense-5m": 8, "dense-50m": 3, "dsv3-mini": 3}  # per round and side, two to three seconds


def peer_grid(shape: str) -> Iterator[dict[str, Any]]:
    """Attention × precision, and for experts the way they are multiplied; the scan compiles the best."""
    ways: tuple[str | None, ...] = (
        ("eager", "batched_mm", "grouped_mm") if preset(SHAPES[shape].preset).moe else (None,)
    )
    for experts, precision, attention in itertools.product(
        ways, ("bf16", "bf16-autocast", "fp32-medium"), ("eager", "sdpa")
    ):
        yield {
            "attention": attention,
            "precision": precision,
            "is_compiled": False,
            **({} if experts is None else {"experts": experts}),
        }


def scan_shapes(shapes: list[str], *, machine: Machine, path: Path) -> None:
    """Write each shape's trials as soon as they are there."""
    grid = read_json(path) if path.exists() else {"shapes": {}}
    for shape in shapes:
        print(f"{shape}: the peer's settings")
        trials = scan(PEER, {"shape": shape}, peer_grid(shape), steps=STEPS[shape])
        grid["shapes"][shape] = [dataclasses.asdict(trial) for trial in trials]
        write_json(path, {**grid, **provenance("train", machine)})


def best_trial(path: Path, shape: str) -> Trial:
    """The fastest of the committed scan."""
    return Trial(**read_json(path)["shapes"][shape][0])


def measure_shape(shape: str, best: Trial, *, machine: Machine, rounds: int) -> dict[str, Any]:
    """One row of the result."""
    row = SHAPES[shape]
    ours = Worker(OURS, {"shape": shape}, keeps_memory=True)
    peer = Worker(PEER, {"shape": shape, **best.options}, keeps_memory=best.keeps_memory)
    try:
        comparison = compare(ours, peer, rounds=rounds, steps=STEPS[shape])
    finally:
        ours.close()
        peer.close()
    tokens = row.batch * row.tokens
    flop = flops_per_token(
        dataclasses.replace(preset(row.preset), num_nextn_predict_layers=0), context_tokens=row.tokens
    ).training
    result = comparison.to_dict()
    precision = str(best.options["precision"])
    for side, kind in (("ours", "bf16"), ("peer", precision)):
        seconds = result[side]["median"]  # type: ignore[index]
        result[side] |= {  # type: ignore[operator]
            "precision": kind,
            "tokens_per_s": round(tokens / seconds),
            "gflop_per_s": round(tokens * flop / seconds / 1e9, 1),
            "peak_share": round(tokens * flop / seconds / 1e9 / machine.peak(kind), 3),
        }
    facts = {"ours": ours.facts, "peer": peer.facts}
    return {
        "batch": row.batch,
        "tokens": row.tokens,
        "gflop_per_step": round(tokens * flop / 1e9, 1),
        "facts": facts,
        "peer_settings": {**best.options, "keeps_memory": best.keeps_memory},
        **result,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", action="store_true", help="search the peer's grid instead of comparing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    machine = measure()
    grid_path = RESULTS / "train_grid.json"
    if args.scan:
        scan_shapes(args.shapes, machine=machine, path=grid_path)
        return
    rows = {}
    for shape in args.shapes:
        rows[shape] = measure_shape(shape, best_trial(grid_path, shape), machine=machine, rounds=args.rounds)
        print(f"{shape}: {rows[shape]['ratio']['median']:.2f} times transformers")
    result = {"rounds": args.rounds, "shapes": rows, **provenance("train", machine)}
    write_json(args.out / "train.json", result)
    write_whole(args.out / "train.md", training_table(result, read_json(grid_path)).encode())


if __name__ == "__main__":
    main()
