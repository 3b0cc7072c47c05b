"""The top of a run directory: run.json says what made the run, recipe.json with which settings.

Why: a run that is continued must be the same run; what differs is said by name, and nothing that was there
is lost.
In:  a run directory, settings as plain values.
Out: the two files, and the machine to compute on; or a RunError.
Not here: stages (stage.py), which settings there are (recipe.py, tune_recipe.py).
"""

import platform
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tenth.base.errors import RunError
from tenth.base.files import read_json, write_json
from tenth.base.machine import describe_machine
from tenth.pipeline.machine import Machine, measure_machine
from tenth.pipeline.stage import FORMAT_VERSION

INFO, RECIPE = "run.json", "recipe.json"
_FIRST_FILES = (INFO, RECIPE)  # what a kill may have left of a run before it was one


def changed_settings(run_dir: Path, settings: Mapping[str, Any], *, free: Collection[str]) -> list[str]:
    """Names of the settings in which a run with results differs from these; a RunError if it is no run.

    While no stage is done nothing would be lost, so there a mended recipe may replace the one that failed.
    """
    require_run_or_nothing(run_dir)
    saved = run_dir / RECIPE
    if not saved.exists() or not has_results(run_dir):
        return []
    before = read_json(saved)
    return [key for key in settings if key not in free and before.get(key) != settings[key]]


def require_run_or_nothing(run_dir: Path) -> None:
    """A RunError where something lies that is no run."""
    if (run_dir / RECIPE).exists():
        return
    if run_dir.exists() and not run_dir.is_dir():
        raise RunError(f"{run_dir} is a file; name a directory for the run.")
    if run_dir.exists() and any(not path.name.startswith(_FIRST_FILES) for path in run_dir.iterdir()):
        raise RunError(f"{run_dir} exists and is not a run; choose another name for the run.")


def describe_run(
    run_dir: Path, *, name: str, recipe_folder: Path, price_usd_per_hour: float | None
) -> Machine:
    """run.json: what made this run. A continued run keeps its description and says when it goes on
    elsewhere."""
    path = run_dir / INFO
    here = {
        "machine": describe_machine().to_dict(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if path.exists() and has_results(run_dir):
        return _describe_again(path, here)
    machine = measure_machine()
    facts = here | {
        "format_version": FORMAT_VERSION,
        "name": name,
        "python": platform.python_version(),
        "commit": _commit(),
        "compute_dtype": str(machine.compute_dtype),
        "matmul_peak_flops": machine.peaks,
        "recipe_folder": str(recipe_folder.resolve()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "price_usd_per_hour": price_usd_per_hour,
    }
    write_json(path, facts)
    return machine


def _describe_again(path: Path, here: Mapping[str, Any]) -> Machine:
    """Note whether a continued run has moved; only then the peak is measured again."""
    before = read_json(path)
    has_moved = any(before.get(key) != value for key, value in here.items())
    write_json(path, before | {"continued_elsewhere": has_moved or before.get("continued_elsewhere", False)})
    peaks = measure_machine().peaks if has_moved else before["matmul_peak_flops"]
    # What was begun in one type goes on in it, whatever this processor would choose.
    return Machine(compute_dtype=getattr(torch, before["compute_dtype"].removeprefix("torch.")), peaks=peaks)


def has_results(run_dir: Path) -> bool:
    """Whether a stage is done."""
    return any(run_dir.glob("*/DONE.json"))


def _commit() -> str:
    """The commit of the code, "unknown" outside a checkout."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"
