"""A peer's best settings for each case, found by trying them one key after another; every trial is kept.

In:  a case, a peer, where the weights are.  Out: `Trial`s (grid.py), best first.
Not here: which keys and values there are (engine_cases.py).
"""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.engine_cases import LLAMA_FORMATS, Case, start, variations
from benchmarks.engine_files import our_directory, peer_file
from benchmarks.engine_rounds import random_prompts, seconds_of
from benchmarks.engine_side import ask_timing
from benchmarks.grid import Trial, ranked
from benchmarks.workers import Worker, WorkerError


def open_peer(peer: str, case: Case, options: Mapping[str, Any], *, root: Path) -> Worker:
    """A worker of this peer with these settings."""
    if peer in LLAMA_FORMATS:
        path = str(peer_file(root, case.shape, case.weights, peer=peer))
        return Worker("benchmarks.engine_llama.llama", {"path": path, **options}, keeps_memory=False)
    own = {k: v for k, v in options.items() if k != "keeps_memory"}
    directory = str(our_directory(root, case.shape, "bf16"))
    side = "benchmarks.engine_transformers.transformers"
    return Worker(side, {"directory": directory, **own}, keeps_memory=options["keeps_memory"])


def attempt(peer: str, case: Case, options: Mapping[str, Any], *, root: Path, trials: int) -> Trial:
    """Build, warm up, and take the best of a few trials: a scan asks what a setting can do."""
    keeps = bool(options.get("keeps_memory"))
    try:
        worker = open_peer(peer, case, options, root=root)
        try:
            seconds = []
            for number in range(trials + 1):
                timing = ask_timing(worker, random_prompts(case, number=-100 - number), case.new_tokens)
                seconds.append(seconds_of(case, timing))
        finally:
            worker.close()
    except (WorkerError, statistics.StatisticsError) as error:
        return Trial(options=dict(options), keeps_memory=keeps, seconds=None, error=str(error))
    return Trial(options=dict(options), keeps_memory=keeps, seconds=min(seconds[1:]), steps=trials)


def scan_peer(
    peer: str, case: Case, *, root: Path, trials: int = 2, tell: Callable[[str], None] = print
) -> list[Trial]:
    """The start, then every other value of every key on top of the best so far. Best first."""
    done = [attempt(peer, case, start(peer, case), root=root, trials=trials)]
    tell(f"  {_show(done[-1])}")
    for key, values in variations(peer, case):
        best = ranked(done)[0].options
        for value in values:
            options = {**best, key: value}
            if all(options != trial.options for trial in done):
                done.append(attempt(peer, case, options, root=root, trials=trials))
                tell(f"  {_show(done[-1])}")
    return ranked(done)


def _show(trial: Trial) -> str:
    words = ", ".join(f"{key} {value}" for key, value in trial.options.items())
    return f"{words}: " + (f"{1e3 * trial.seconds:.2f} ms" if trial.seconds else f"failed, {trial.error}")
