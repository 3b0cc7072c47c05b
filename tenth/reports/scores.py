"""What an evaluation found, as records: one `Score` per mode and family, read from a stage's eval.json.

Why: the page, the figures, the gain and the seeds all read scores; parsed once here, a missing key is a
`None` in one place instead of a `KeyError` in six.
In:  eval.json and samples/<mode>.jsonl of a measuring stage.
Out: `Evaluation`.
Not here: computing scores (rollout/evaluate.py), drawing them (figures.py).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tenth.base.errors import DataError
from tenth.base.files import read_json
from tenth.base.runlog import read_metrics

SAMPLED = "sampled"
GREEDY = "greedy"
FORCED_THINK = "forced_think"
FORCED_DIRECT = "forced_direct"
BASE_WAYS = (SAMPLED, GREEDY, FORCED_THINK, FORCED_DIRECT)  # the four ways the base is measured

MODE_LABELS = {
    SAMPLED: "template, sampled",
    GREEDY: "template, greedy",
    FORCED_THINK: "forced to think",
    FORCED_DIRECT: "forced to answer directly",
    "sampled_pass16": "template, 16 samples",
    "format_only": "RL on the format reward only",
    "sft_steps": "SFT on the step-by-step documents",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one model did in one mode, over all families or on one. Shares are between 0 and 1."""

    accuracy: float  # pass@1, the mean over samples
    low: float  # 95 % interval
    high: float
    problems: int
    samples: int  # per problem
    pass_at: Mapping[int, float]
    majority: float | None = None  # cons@k
    truncated: float | None = None
    think_share: float | None = None
    format: float | None = None  # share that is well-formed
    readable: float | None = None  # share with an answer tag that could be read; from the stored samples
    reads_well: float | None = None  # share without a fault that a person would stumble over
    language: float | None = None  # share of the thinking's words in the question's language
    mean_tokens: float | None = None
    reflection_per_1k: float | None = None
    verifier_errors: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScore:
    """Accuracy on the problems of one difficulty."""

    accuracy: float
    problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer as the model wrote it. The text is the model's: escape it before showing it."""

    problem_id: str
    family: str
    level: int
    prompt: str
    answer: str  # a right answer
    text: str
    is_correct: bool
    mode: str = SAMPLED
    finish: str = ""
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeScores:
    """One mode: the whole, and each family."""

    overall: Score
    families: Mapping[str, Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything eval.json says."""

    settings: Mapping[str, Any]
    modes: Mapping[str, ModeScores]
    guess: Mapping[str, float]  # accuracy of a good guesser, per family
    levels: Mapping[str, Mapping[str, Mapping[int, LevelScore]]]  # mode -> family -> level
    longest_in_documents: Mapping[str, int]  # hardest level that the base's documents solve
    examples: tuple[Sample, ...]
    general: ModeScores | None = None  # questions beside reasoning, by their rule; in no mean accuracy

    @property
    def families(self) -> tuple[str, ...]:
        """Every family that was measured, in alphabetical order."""
        return tuple(sorted({name for mode in self.modes.values() for name in mode.families}))

    @property
    def mean_guess(self) -> float | None:
        """The guess baseline, averaged over the families that have one."""
        return sum(self.guess.values()) / len(self.guess) if self.guess else None

    def score(self, mode: str, family: str | None = None) -> Score | None:
        """The score of a mode, overall or on one family; None where it was not measured."""
        found = self.modes.get(mode)
        if found is None:
            return None
        return found.overall if family is None else found.families.get(family)


def read_scores(stage_dir: Path) -> Evaluation | None:
    """What eval.json says, or None while there is none; `readable` stays unknown."""
    path = stage_dir / "eval.json"
    if not path.exists():
        return None
    value = read_json(path)
    try:
        return parse_evaluation(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not an evaluation ({type(error).__name__}: {error}); "
            "delete it and run the stage again."
        ) from error


def read_evaluation(stage_dir: Path) -> Evaluation | None:
    """`read_scores`, with the readable shares counted in the stored samples (all of them are read)."""
    evaluation = read_scores(stage_dir)
    if evaluation is None:
        return None
    modes = {
        mode: with_readable(scores, readable_shares(read_samples(stage_dir, mode)))
        for mode, scores in evaluation.modes.items()
    }
    return replace(evaluation, modes=modes)


def parse_evaluation(value: Mapping[str, Any]) -> Evaluation:
    """eval.json's value as records."""
    return Evaluation(
        settings=value.get("settings", {}),
        modes={mode: _parse_mode(scores) for mode, scores in value["modes"].items()},
        guess=value.get("guess", {}),
        levels={
            mode: {family: _parse_levels(levels) for family, levels in families.items()}
            for mode, families in value.get("levels", {}).items()
        },
        longest_in_documents=value.get("longest_in_documents", {}),
        examples=tuple(parse_sample(row) for row in value.get("examples", ())),
        general=_parse_mode(value["general"]) if value.get("general") else None,
    )


def read_samples(stage_dir: Path, mode: str) -> list[Sample]:
    """The stored samples of one mode; empty where none were kept."""
    path = stage_dir / "samples" / f"{mode}.jsonl"
    try:
        return [parse_sample({**row, "mode": mode}) for row in read_metrics(path)]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: a row is not a sample ({error}); delete the file to go on.") from error


def parse_sample(row: Mapping[str, Any]) -> Sample:
    """One row of samples/<mode>.jsonl or of eval.json's examples; columns nobody asked for are ignored."""
    return Sample(
        problem_id=str(row["problem_id"]),
        family=str(row["family"]),
        level=int(row.get("level") or 0),
        prompt=str(row["prompt"]),
        answer=str(row["answer"]),
        text=str(row["text"]),
        is_correct=bool(row["is_correct"]),
        mode=str(row.get("mode", SAMPLED)),
        finish=str(row.get("finish", "")),
        tokens=row.get("tokens"),
    )


def is_readable(text: str) -> bool:
    """Whether an answer tag was opened and closed, so that a checker had something to judge."""
    opened = text.find("<answer>")
    return opened >= 0 and text.find("</answer>", opened) >= 0


def readable_shares(samples: Iterable[Sample]) -> dict[str | None, float]:
    """Share of samples with a readable answer, per family; under None, over all."""
    seen: dict[str | None, list[bool]] = defaultdict(list)
    for sample in samples:
        readable = is_readable(sample.text)
        seen[sample.family].append(readable)
        seen[None].append(readable)
    return {family: sum(flags) / len(flags) for family, flags in seen.items()}


def with_readable(scores: ModeScores, shares: Mapping[str | None, float]) -> ModeScores:
    """The same scores with `readable` filled in; well-formed answers count where no samples were kept."""

    def fill(score: Score, key: str | None) -> Score:
        return replace(score, readable=shares.get(key, score.format))

    return ModeScores(
        overall=fill(scores.overall, None),
        families={family: fill(score, family) for family, score in scores.families.items()},
    )


def _parse_mode(value: Mapping[str, Any]) -> ModeScores:
    return ModeScores(
        overall=_parse_score(value["overall"]),
        families={family: _parse_score(score) for family, score in value.get("families", {}).items()},
    )


def _parse_score(value: Mapping[str, Any]) -> Score:
    accuracy = float(value["accuracy"])
    return Score(
        accuracy=accuracy,
        low=float(value.get("low", accuracy)),
        high=float(value.get("high", accuracy)),
        problems=int(value.get("problems", 0)),
        samples=int(value.get("samples", 1)),
        pass_at={int(k): float(share) for k, share in value.get("pass_at", {}).items() if share is not None},
        majority=value.get("cons"),
        truncated=value.get("truncated"),
        think_share=value.get("think_share"),
        format=value.get("format"),
        reads_well=value.get("readable"),
        language=value.get("language"),
        mean_tokens=value.get("mean_tokens"),
        reflection_per_1k=value.get("reflection_per_1k"),
        verifier_errors=value.get("verifier_errors"),
    )


def _parse_levels(value: Mapping[str, Any]) -> dict[int, LevelScore]:
    return {
        int(level): LevelScore(accuracy=float(row["accuracy"]), problems=int(row.get("problems", 0)))
        for level, row in sorted(value.items(), key=lambda item: int(item[0]))
    }
