"""A GRPO step against TRL's GRPOTrainer on the 5M dense shape, TRL at the best of its grid.

python -m benchmarks.grpo --scan      find TRL's best setting -> results/grpo_grid.json
python -m benchmarks.grpo             interleaved rounds against it -> results/grpo.json and grpo.md
In:  nothing.  Out: the files above.  Not here: what a step is (grpo_sides.py).
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.grid import Trial, scan
from benchmarks.grpo_sides import NEW_TOKENS, PROMPTS, SAMPLES
from benchmarks.machine import measure
from benchmarks.provenance import RESULTS, provenance
from benchmarks.rounds import compare
from benchmarks.tables import grpo_table
from benchmarks.workers import Worker
from tenth.base.files import read_json, write_json, write_whole

OURS, PEER = "benchmarks.grpo_sides.ours", "benchmarks.grpo_sides.peer"


def peer_grid() -> Iterator[dict[str, Any]]:
    """Precision × cache; the scan compiles the best."""
    for precision, cache in itertools.product(
        ("bf16", "bf16-autocast", "fp32-medium"), ("dynamic", "static", "paged")
    ):
        yield {"precision": precision, "cache": cache, "is_compiled": False}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", action="store_true", help="search TRL's grid instead of comparing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="per round and side")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    machine = measure()
    grid_path = RESULTS / "grpo_grid.json"
    if args.scan:
        trials = scan(PEER, {}, peer_grid(), steps=5)
        found = {"trials": [dataclasses.asdict(trial) for trial in trials], **provenance("grpo", machine)}
        write_json(grid_path, found)
        return
    best = Trial(**read_json(grid_path)["trials"][0])
    ours = Worker(OURS, {}, keeps_memory=True)
    peer = Worker(PEER, best.options, keeps_memory=best.keeps_memory)
    try:
        comparison = compare(ours, peer, rounds=args.rounds, steps=args.steps)
    finally:
        ours.close()
        peer.close()
    result = {
        **comparison.to_dict(),
        "facts": {"ours": ours.facts, "peer": peer.facts},
        "peer_settings": {**best.options, "keeps_memory": best.keeps_memory},
        **provenance("grpo", machine),
    }
    for side in ("ours", "peer"):
        result[side]["tokens_per_s"] = round(PROMPTS * SAMPLES * NEW_TOKENS / result[side]["median"])
    write_json(args.out / "grpo.json", result)
    write_whole(args.out / "grpo.md", grpo_table(result, read_json(grid_path)).encode())
    print(f"{result['ratio']['median']:.2f} times TRL")


if __name__ == "__main__":
    main()
