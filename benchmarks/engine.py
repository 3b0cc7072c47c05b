"""The engine against transformers and llama.cpp: tokens per second, share of the memory's speed, dollars.

python -m benchmarks.engine --check   do all sides compute the same?  (minutes)
python -m benchmarks.engine --scan    the peers' best settings -> results/engine_grid.json  (an hour or two)
python -m benchmarks.engine           interleaved rounds against them -> results/engine.json and engine.md
--cases NAME...   rows whose names begin so; other rows of the files stay as they are
--parts PART...   some of: cases, quality, prefix, speculation
--quick           tiny shapes, one round, nothing kept: does everything still run end to end?
In:  nothing; random weights are made once under --work.  Out: the files above.
Not here: the table of rows (engine_cases.py), what a side does (engine_sides.py, engine_llama.py).
"""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import engine_cases as cases_of
from benchmarks.engine_cases import TENTH, Case, StoredBytes, choose_cases
from benchmarks.engine_check import check
from benchmarks.engine_extras import measure_prefix, measure_speculation
from benchmarks.engine_files import adopt, our_directory
from benchmarks.engine_grid import open_peer, scan_peer
from benchmarks.engine_quality import measure_quality
from benchmarks.engine_rounds import agreement, run_rounds, summary
from benchmarks.engine_tables import engine_table
from benchmarks.machine import Machine, measure
from benchmarks.provenance import RESULTS, provenance
from benchmarks.workers import Worker
from tenth.base.errors import ConfigError
from tenth.base.files import read_json, read_lines, write_json, write_whole

PARTS = ("cases", "quality", "prefix", "speculation")
GRID = "engine_grid.json"


def read_grid(out: Path) -> dict[str, Any]:
    """The scan beside the results, or else the committed one."""
    paths = [folder / GRID for folder in (out, RESULTS) if (folder / GRID).exists()]
    return read_json(paths[0]) if paths else {"cases": {}}


def small(chosen: list[Case]) -> list[Case]:
    """The same rows in seconds each; rows that become the same are one."""
    shrunk = [
        dataclasses.replace(
            case,
            shape="dense-5m" if case.shape == "qwen2.5-0.5b" else case.shape,
            batch=min(case.batch, 4),
            prompt_tokens=min(case.prompt_tokens, 32),
            new_tokens=min(case.new_tokens, 6),
        )
        for case in chosen
    ]
    return list({case.name: case for case in shrunk}.values())


def best_options(peer: str, case: Case, grid: Mapping[str, Any]) -> dict[str, Any]:
    """The fastest of the scan; where this row was not scanned, what a scan starts from."""
    trials = grid["cases"].get(case.name, {}).get(peer, [])
    return dict(trials[0]["options"]) if trials else cases_of.start(peer, case)


def measure_case(
    case: Case, options: Mapping[str, Mapping[str, Any]], *, root: Path, rounds: int
) -> dict[str, Any]:
    """One row: all its sides alive at once, in turn. `options`: each peer's settings."""
    threads = os.cpu_count() or 1
    directory = str(our_directory(root, case.shape, case.weights))
    workers: dict[str, Worker] = {}
    memory = Worker("benchmarks.engine_bandwidth.bandwidth", {"threads": threads}, keeps_memory=False)
    try:
        side = "benchmarks.engine_sides.tenth"
        workers[TENTH] = Worker(side, {"directory": directory}, keeps_memory=False)
        for peer, chosen in options.items():
            workers[peer] = open_peer(peer, case, chosen, root=root)
        done = run_rounds(case, workers, memory, rounds=rounds)
    finally:
        for worker in (memory, *workers.values()):
            worker.close()
    facts = {name: worker.facts for name, worker in workers.items()}
    stored = {
        name: StoredBytes(
            dense_bytes=fact["dense_bytes"],
            expert_bytes=fact["expert_bytes"],
            bits_per_weight=fact["bits_per_weight"],
            cache_bytes_per_number=fact.get("cache_bytes_per_number", 2.0),
        )
        for name, fact in facts.items()
    }
    return {
        **dataclasses.asdict(case),
        **summary(case, done, stored),
        "agreement": agreement(done),
        "facts": facts,
        "settings": options,
    }


def scan(args: argparse.Namespace, machine: Machine) -> None:
    """Write each row's trials as soon as they are there."""
    grid = read_grid(args.out)
    for case in args.chosen:
        for peer in case.peers:
            print(f"{case.name}: settings of {peer}", flush=True)
            trials = scan_peer(peer, case, root=args.work)
            grid["cases"].setdefault(case.name, {})[peer] = [dataclasses.asdict(t) for t in trials]
            write_json(args.out / GRID, {**grid, **provenance("engine", machine)})


def speculation_prompts(path: Path, *, count: int) -> list[list[int]]:
    """Token ids from a file of rollouts, or any JSON lines with `prompt_ids`; each prompt once."""
    found: dict[tuple[int, ...], None] = {}
    for _, row in read_lines(path):
        found.setdefault(tuple(row["prompt_ids"]))
    return [list(prompt) for prompt in list(found)[:count]]


class Report:
    """The result files, whole after every row: rows measured now replace those of earlier runs."""

    def __init__(self, out: Path, machine: Machine, *, price_per_hour: float) -> None:
        self.path, self.grid = out / "engine.json", read_grid(out)
        self.stamp = provenance("engine", machine)
        earlier = read_json(self.path) if self.path.exists() else {}
        self.result = {**earlier, **self.stamp, "price_per_hour": price_per_hour}

    def add(self, part: str, name: str, row: dict[str, Any]) -> None:
        """One row, with the day and the commit that made it."""
        stamped = {**row, "date": self.stamp["date"], "commit": self.stamp["machine"]["commit"]}
        rows = {**self.result.get(part, {}), name: stamped}
        order = {known: number for number, known in enumerate(cases_of.CASES)}  # JSON files sort by name
        self.result[part] = dict(sorted(rows.items(), key=lambda item: order.get(item[0], len(order))))
        write_json(self.path, self.result)
        write_whole(self.path.with_suffix(".md"), engine_table(self.result, self.grid).encode())


def run_cases(args: argparse.Namespace, report: Report) -> None:
    """The rows against peers."""
    for case in args.chosen:
        options = {peer: best_options(peer, case, report.grid) for peer in case.peers}
        row = measure_case(case, options, root=args.work, rounds=args.rounds)
        report.add("cases", case.name, row)
        told = ", ".join(f"{ratio['median']:.2f} × {peer}" for peer, ratio in row["ratios"].items())
        rate = row["sides"][TENTH]["tokens_per_s"]["median"]
        print(f"{case.name}: {rate:.1f} tok/s, {told}, agreement {row['agreement']}", flush=True)


def run_quality(args: argparse.Namespace, report: Report) -> None:
    """KL beside speed, on the random weights and on every trained model that was named."""
    text = args.text.read_text(encoding="utf-8")
    shapes = ["dense-5m" if args.quick else "qwen2.5-0.5b"]
    shapes += [adopt(args.work, directory) for directory in args.quality_model]
    for shape in shapes:
        print(f"{shape}: quality", flush=True)
        row = measure_quality(args.work, shape, text, windows=1 if args.quick else 4)
        report.add("quality", shape, {**row, "text": args.text.name})


def run_prefix(args: argparse.Namespace, report: Report) -> None:
    """Time to first token with and without a prefix in the cache."""
    shape = "dense-5m" if args.quick else "qwen2.5-0.5b"
    directory = our_directory(args.work, shape, "bf16")
    shared = 256 if args.quick else 2048
    row = measure_prefix(directory, rounds=args.rounds, shared=shared)
    report.add("prefix", shape, row)
    print(f"prefix cache, {shared} shared: {row['hit_per_cold']['median']:.3f} of cold", flush=True)


def run_speculation(args: argparse.Namespace, report: Report) -> None:
    """Only with a model that was trained to guess ahead."""
    if args.mtp_model is None or args.mtp_prompts is None:
        print("speculation: skipped; name --mtp-model DIR and --mtp-prompts FILE", flush=True)
        return
    prompts = speculation_prompts(args.mtp_prompts, count=2 if args.quick else 8)
    stop_ids = args.mtp_stop_ids
    row = measure_speculation(args.mtp_model, prompts, stop_ids=stop_ids, rounds=args.rounds)
    report.add("speculation", args.mtp_model.name, {"rows": row})
    print(f"speculation: {row}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--check", action="store_true", help="compare what the sides compute, time nothing")
    parser.add_argument("--scan", action="store_true", help="search the peers' grids instead of comparing")
    parser.add_argument("--cases", nargs="*", help="beginnings of names; default: all")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--price-per-hour", type=float, default=0.05, help="dollars, an assumption")
    parser.add_argument("--text", type=Path, default=RESULTS.parents[1] / "README.md")
    parser.add_argument("--quality-model", type=Path, nargs="*", default=[], help="trained model directories")
    parser.add_argument("--mtp-model", type=Path, help="a model directory with a trained MTP module")
    parser.add_argument("--mtp-prompts", type=Path, help="JSON lines with prompt_ids, such as rollouts")
    parser.add_argument("--mtp-stop-ids", type=int, nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=cache / "tenth" / "bench-engine")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.chosen = choose_cases(args.cases)
    if args.rounds < 1:
        raise ConfigError(f"--rounds {args.rounds} must be at least 1.")
    if args.quick:
        args.chosen, args.rounds = small(args.chosen), 1
    args.out = args.out or (args.work / "quick" if args.quick else RESULTS)
    return args


def main() -> None:
    args = parse()
    if args.check:
        for shape in dict.fromkeys(case.shape for case in args.chosen):
            wrong = [label for label, found in check(args.work, shape).items() if not found.holds]
            if wrong:
                raise SystemExit(f"{shape}: {', '.join(wrong)} computes something else")
        return
    machine = measure()
    if args.scan:
        scan(args, machine)
        return
    report = Report(args.out, machine, price_per_hour=args.price_per_hour)
    steps = (run_cases, run_quality, run_prefix, run_speculation)
    for part, step in zip(PARTS, steps, strict=True):
        if part in args.parts:
            step(args, report)
    print(f"written: {report.path}")


if __name__ == "__main__":
    main()
