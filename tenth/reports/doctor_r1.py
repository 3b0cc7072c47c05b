"""The doctor on a whole R1 run: what shows only when stages are set side by side.

Why: a stage's metrics cannot say that its filter kept next to nothing, or that small talk was forgotten.
In:  a run and its models.  Out: stage -> `Finding`s.
Not here: what the metrics of one stage say (doctor.py).
"""

from collections.abc import Mapping
from typing import Any

from tenth.base.files import read_json
from tenth.reports.appendix import show_findings
from tenth.reports.doctor import LOSS_REMINDER, Finding, Severity, diagnose, is_reinforcement
from tenth.reports.facts import Facts
from tenth.reports.markup import Html, element, join
from tenth.reports.runs import Run
from tenth.reports.stages import ALL_RL, COLD_START_DATA, REJECTION_DATA, REWARD_MODELS, STUDENT_DATA, Model

KEPT_SHARE = 0.1
GENERAL_FALL = 0.1
_REMEDIES = {
    COLD_START_DATA: "train R1-Zero longer, raise cold_start.samples, or loosen cold_start.readable",
    REJECTION_DATA: "lengthen reasoning_rl, raise rejection.samples, or loosen rejection.readable",
    STUDENT_DATA: "raise student.samples or student.prompts, or make R1 better first",
}


def r1_doctor_section(facts: Facts) -> Html | None:
    """Findings stage by stage; the stages without any in one line."""
    rows_of = {stage.name: stage.metrics() for stage in facts.run.stages}
    if not any(rows_of.values()):
        return None
    across = diagnose_stages(facts.run, facts.models)
    found = {name: [*across.get(name, []), *diagnose(rows)] for name, rows in rows_of.items()}
    parts: list[object] = [element("h2", "The doctor")]
    for name, findings in found.items():
        if findings:
            parts += [element("h3", name), show_findings(findings)]
    silent = [name for name, findings in found.items() if not findings]
    if silent:
        parts.append(element("p", f"No rule fired in: {', '.join(silent)}.", class_="muted"))
    if any(is_reinforcement(rows) for rows in rows_of.values()):
        parts.append(element("p", LOSS_REMINDER, class_="note"))
    return join(parts)


def diagnose_stages(run: Run, models: Mapping[str, Model]) -> dict[str, list[Finding]]:
    """What was found, by the stage that it is about."""
    found = {name: _kept_little(_summary(run, name), remedy) for name, remedy in _REMEDIES.items()}
    found[REWARD_MODELS] = _no_better_than_length(run)
    found[ALL_RL] = _general_forgotten(models)
    return {name: findings for name, findings in found.items() if findings}


def _kept_little(summary: Mapping[str, Any], remedy: str) -> list[Finding]:
    sampled = summary.get("sampled")
    if not sampled or summary["kept"] / sampled >= KEPT_SHARE:
        return []
    dropped = summary.get("dropped") or {"none": 0}
    rule = max(dropped, key=lambda name: dropped[name])
    share = summary["kept"] / sampled
    sentence = (
        f"Only {summary['kept']:,} of {sampled:,} sampled answers were kept ({share:.1%}); "
        f"most were dropped by the rule “{rule}” ({dropped[rule]:,}): {remedy}."
    )
    return [Finding(severity=Severity.WARNING, metric="kept", sentence=sentence)]


def _no_better_than_length(run: Run) -> list[Finding]:
    stage = run.stage(REWARD_MODELS)
    path = stage.path / "scores.json" if stage else None
    scores = read_json(path) if path and path.exists() else {}
    found = []
    for kind, each in scores.items():
        best = max(each["longer_wins"], each["shorter_wins"])
        if each["accuracy"] <= best:
            sentence = (
                f"The {kind} model is right on {each['accuracy']:.1%} of {each['held_out']} held-out "
                f"examples, a rule that looks at the length alone on {best:.1%}: it rewards nothing that "
                "length does not; raise reward_model.pairs or reward_model.epochs, or balance the lengths of "
                "the pairs."
            )
            found.append(Finding(severity=Severity.WARNING, metric="accuracy", sentence=sentence))
    return found


def _general_forgotten(models: Mapping[str, Model]) -> list[Finding]:
    before, after = (models[key].general if key in models else None for key in ("dev3", "r1"))
    if before is None or after is None:
        return []
    # Beyond both intervals: a handful of questions moves by itself.
    if before.accuracy - after.accuracy < GENERAL_FALL or after.high >= before.low:
        return []
    sentence = (
        f"General questions fell from {before.accuracy:.1%} (Dev3) to {after.accuracy:.1%} (R1): raise "
        "all_rl.preference_steps or all_rl.general_share so that they are practised, or lower "
        "all_rl.helpful_weight if the reward model was deceived."
    )
    return [Finding(severity=Severity.PROBLEM, metric="general", sentence=sentence)]


def _summary(run: Run, name: str) -> Mapping[str, Any]:
    stage = run.stage(name)
    return stage.done.summary if stage and stage.done else {}
