"""Run directories: find them, read them, compare two, free their disk space.

Why: everything that is known about a run lies in its directory, so a report, a list and a comparison need
no trainer and no torch, and work while the run is still going or after it was killed.
In:  runs/NAME/ with run.json, recipe.json and stage directories `NN-name`.
Out: `Run` and `Stage`; a stage or file that is not there yet is a None or an empty list.
Not here: writing run directories (pipeline/), scores (scores.py).
"""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError, RunError
from tenth.base.files import read_json
from tenth.base.records import Rollout
from tenth.base.runlog import read_metrics
from tenth.reports.scores import SAMPLED, Evaluation, read_evaluation, read_scores

FORMAT_VERSION = 1  # the newest run.json this code can read

DOCUMENTS = "documents"
BASE = "base"
MEASURE_BASE = "measure-base"
ZERO = "zero"
MEASURE_ZERO = "measure-zero"
MEASURE_R1 = "measure-r1"
MEASURE_CONTROLS = "measure-controls"
TUNED_BY_REWARD, TUNED_BY_EXAMPLE = "rl", "sft"  # stages of somebody's own model and data

_STAGE_DIR = re.compile(r"(\d+)-(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """DONE.json: a stage that has ended says what it took and what came out."""

    seconds: float
    tokens: float | None
    flops: float | None
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One sub-directory `NN-name`. Files are read when asked for."""

    path: Path
    number: int
    name: str
    done: Done | None  # None: still running, or interrupted

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl so far."""
        return list(read_metrics(self.path / "metrics.jsonl"))

    def evaluation(self) -> Evaluation | None:
        """The stage's evaluation, readable shares counted in its samples."""
        return read_evaluation(self.path)

    def scores(self) -> Evaluation | None:
        """The stage's eval.json alone: quick, for lists."""
        return read_scores(self.path)

    def corpus(self) -> Mapping[str, Any]:
        """corpus.json of the documents stage; empty for others."""
        path = self.path / "corpus.json"
        return read_json(path) if path.exists() else {}

    def rollout_files(self) -> list[Path]:
        """The stored rollouts, one file per step, in the order of steps."""
        return sorted((self.path / "rollouts").glob("*.jsonl"))

    def checkpoints(self) -> list[Path]:
        """Directories of weights; the only large thing in a stage."""
        return sorted(path for path in self.path.glob("**/checkpoint") if path.is_dir())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole run directory."""

    path: Path
    name: str
    info: Mapping[str, Any]  # run.json as written
    recipe: Mapping[str, Any]  # recipe.json, resolved
    stages: tuple[Stage, ...]

    @property
    def price_usd_per_hour(self) -> float | None:
        """What an hour of the machine costs, where the recipe says so."""
        return self.info.get("price_usd_per_hour")

    @property
    def matmul_peak_flops(self) -> Mapping[str, float]:
        """Matrix-product rates measured at the start of the run, FLOP/s by precision."""
        measured = self.info.get("matmul_peak_flops") or {}
        return {name: float(rate) for name, rate in measured.items() if rate}

    def stage(self, name: str) -> Stage | None:
        """The stage called `name`, whatever its number."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def metrics(self, name: str) -> list[dict[str, float]]:
        """The metrics of a stage; empty when it has not begun."""
        stage = self.stage(name)
        return stage.metrics() if stage else []

    def evaluation(self, name: str) -> Evaluation | None:
        """The evaluation of a stage; None when it has not been made."""
        stage = self.stage(name)
        return stage.evaluation() if stage else None

    def corpus_reflection_per_1k(self) -> float | None:
        """How often the base's documents reflect: the level that RL starts from."""
        stage = self.stage(DOCUMENTS)
        return stage.corpus().get("reflection_per_1k") if stage else None


def read_run(path: Path) -> Run:
    """Read a run directory; a RunError says why when it is none or too new."""
    info_path = path / "run.json"
    if not info_path.exists():
        raise RunError(
            f"{path} is not a run directory (no run.json in it); `tenth runs` lists those there are."
        )
    info = read_json(info_path)
    version = info.get("format_version") if isinstance(info, dict) else None
    if not isinstance(version, int):
        raise RunError(f"{info_path} has no format_version; it was not written by tenth, choose another run.")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{path} has format version {version}, this tenth reads up to {FORMAT_VERSION}; "
            "update tenth to read it."
        )
    recipe_path = path / "recipe.json"
    recipe = read_json(recipe_path) if recipe_path.exists() else {}
    if not isinstance(recipe, dict):
        raise RunError(f"{recipe_path} holds no settings; restore it, or choose another run.")
    return Run(
        path=path,
        name=str(info.get("name") or path.name),
        info=info,
        recipe=recipe,
        stages=tuple(_read_stages(path)),
    )


def find_runs(root: Path) -> list[Path]:
    """Every run directory directly under `root`, by name."""
    if not root.is_dir():
        return []
    return sorted(path.parent for path in root.glob("*/run.json"))


def find_run(text: str, *, root: Path) -> Path:
    """A run given as a path, or as a name under `root`."""
    for path in (Path(text), root / text):
        if (path / "run.json").exists():
            return path
    known = ", ".join(path.name for path in find_runs(root)) or "none yet"
    raise RunError(f"there is no run '{text}'; runs in {root}/: {known}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One line of `tenth runs`."""

    name: str
    stage: str  # the last stage that has begun
    is_done: bool  # whether that stage has ended
    seconds: float
    accuracy: float | None  # the newest sampled pass@1
    problem: str | None = None  # why the run cannot be read


def summarise_run(path: Path) -> RunLine:
    """The line of one run; a run that cannot be read gets a line that says so instead of ending the list."""
    try:
        run = read_run(path)
        return RunLine(
            name=path.name,
            stage=run.stages[-1].name if run.stages else "not begun",
            is_done=bool(run.stages) and run.stages[-1].done is not None,
            seconds=sum(stage.done.seconds for stage in run.stages if stage.done),
            accuracy=final_accuracy(run),
        )
    except (RunError, DataError) as error:
        return RunLine(
            name=path.name, stage="?", is_done=False, seconds=0.0, accuracy=None, problem=str(error)
        )


def final_accuracy(run: Run) -> float | None:
    """Sampled pass@1 of R1, of R1-Zero while there is no R1, or of the base while there is neither."""
    for name in (MEASURE_R1, MEASURE_ZERO, MEASURE_BASE):
        stage = run.stage(name)
        evaluation = stage.scores() if stage else None
        score = evaluation.score(SAMPLED) if evaluation else None
        if score:
            return score.accuracy
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting or result in which two runs differ; None where a run has none."""

    name: str
    first: Any
    second: Any


def compare_recipes(first: Run, second: Run) -> list[Difference]:
    """The settings in which two runs differ, as dotted keys."""
    return _differences(flatten(first.recipe), flatten(second.recipe))


def compare_results(first: Run, second: Run) -> list[Difference]:
    """Measured numbers of both runs side by side: accuracies per mode and seconds per stage."""
    one, two = _results(first), _results(second)
    return [Difference(name=key, first=one.get(key), second=two.get(key)) for key in {**one, **two}]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def checkpoints_of(run: Run) -> list[Path]:
    """Every directory of weights in the run."""
    return [path for stage in run.stages for path in stage.checkpoints()]


def bytes_under(paths: Sequence[Path]) -> int:
    """How much disk the files under these directories take."""
    return sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())


def delete_directories(paths: Sequence[Path]) -> None:
    """Remove the directories; a sentence, not a traceback, when the disk refuses."""
    for path in paths:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise RunError(
                f"could not delete {path}: {error.strerror or error}; check its permissions and try again."
            ) from error


def read_rollouts(path: Path) -> list[Rollout]:
    """The rollouts of one step; a last line cut by a kill is left out."""
    try:
        return [Rollout.from_dict(row) for row in read_metrics(path)]
    except DataError as error:
        raise DataError(f"{path}: {error} Delete the file to go on.") from error


def _read_stages(path: Path) -> list[Stage]:
    stages = []
    for child in path.iterdir():
        match = _STAGE_DIR.fullmatch(child.name)
        if match and child.is_dir():
            done = _read_done(child / "DONE.json")
            stages.append(Stage(path=child, number=int(match[1]), name=match[2], done=done))
    return sorted(stages, key=lambda stage: stage.number)


def _read_done(path: Path) -> Done | None:
    if not path.exists():
        return None
    value = read_json(path)
    found = value if isinstance(value, dict) else {"seconds": value}
    numbers = {name: found.get(name) for name in ("seconds", "tokens", "flops")}
    wrong = [name for name, each in numbers.items() if not _is_amount(each)]
    summary = found.get("summary") or {}
    if wrong or not isinstance(summary, dict):
        raise DataError(
            f"{path}: {(wrong or ['summary'])[0]} is not what a stage writes; restore the file, or remove it "
            "and run the stage again."
        )
    return Done(
        seconds=numbers["seconds"] or 0.0, tokens=numbers["tokens"], flops=numbers["flops"], summary=summary
    )


def _is_amount(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < math.inf)


def _results(run: Run) -> dict[str, float]:
    found: dict[str, float] = {}
    for stage in run.stages:
        evaluation = stage.scores()
        if evaluation:
            for mode, scores in evaluation.modes.items():
                found[f"{stage.name} / {mode}"] = scores.overall.accuracy
        if stage.done:
            found[f"{stage.name} / seconds"] = stage.done.seconds
    return found


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(name=key, first=first.get(key), second=second.get(key))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]
