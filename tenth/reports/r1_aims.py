"""What a run of the whole recipe set out to reach, held against what it measured.

Why: the limits were fixed before the first run; each is judged by the run's own numbers, reached or not.
In:  the models of an R1 run, and the seconds of the whole run.  Out: `Aim`s.
Not here: R1-Zero's aims (aims.py), how they look (sections.py).
"""

from collections.abc import Mapping

from tenth.reports.aims import Aim
from tenth.reports.scores import Score
from tenth.reports.stages import Model, share_activated, share_kept

LANGUAGE = 0.98
TAGS = 0.99
KEPT = 0.95
ACTIVATED = 0.5
RUN_SECONDS = 40 * 60


def check_r1_aims(models: Mapping[str, Model], *, seconds: float | None) -> list[Aim]:
    """Every aim that can be judged from what was measured; `seconds` None: the run has not ended."""
    base_to_r1 = [_ability_aim, _language_aim, _tags_aim]
    found = [aim(models) for aim in base_to_r1]
    found += [_size_aim(models), _kept_aim(models)]
    found += [
        _control_aim(models, "control_small", "for the compute of the student's training"),
        _control_aim(models, "control", "for that and the teacher's sampling"),
        _time_aim(seconds),
    ]
    return [aim for aim in found if aim is not None]


def _ability_aim(models: Mapping[str, Model]) -> Aim | None:
    before, after = _score(models, "zero"), _score(models, "r1")
    if before is None or after is None:
        return None
    return Aim(
        text="R1 is as able as R1-Zero: its mean accuracy lies in R1-Zero's 95% interval or above",
        measured=f"R1 {after.accuracy:.1%}, R1-Zero {_with_interval(before)}",
        is_reached=after.accuracy >= before.low,
    )


def _language_aim(models: Mapping[str, Model]) -> Aim | None:
    after = _score(models, "r1")
    if after is None or after.language is None:
        return None
    before = _score(models, "zero")
    came_from = f"R1-Zero {before.language:.1%}, " if before and before.language is not None else ""
    return Aim(
        text=f"at least {LANGUAGE:.0%} of the words that R1 thinks are in the question's language",
        measured=f"{came_from}R1 {after.language:.1%}",
        is_reached=after.language >= LANGUAGE,
    )


def _tags_aim(models: Mapping[str, Model]) -> Aim | None:
    after = _score(models, "r1")
    if after is None or after.format is None:
        return None
    return Aim(
        text=f"at least {TAGS:.0%} of R1's answers have closed, ordered tags",
        measured=f"{after.format:.1%}",
        is_reached=after.format >= TAGS,
    )


def _size_aim(models: Mapping[str, Model]) -> Aim | None:
    share = share_activated(models)
    if share is None:
        return None
    return Aim(
        text=f"the student activates at most {ACTIVATED:.0%} of R1's parameters per token",
        measured=f"{share:.1%}",
        is_reached=share <= ACTIVATED,
    )


def _kept_aim(models: Mapping[str, Model]) -> Aim | None:
    share, student, teacher = share_kept(models), _score(models, "student"), _score(models, "r1")
    if share is None or student is None or teacher is None:
        return None
    return Aim(
        text=f"the student keeps at least {KEPT:.0%} of R1's accuracy",
        measured=f"{share:.1%} ({student.accuracy:.1%} of {teacher.accuracy:.1%})",
        is_reached=share >= KEPT,
    )


def _control_aim(models: Mapping[str, Model], key: str, compute: str) -> Aim | None:
    student, control = _score(models, "student"), _score(models, key)
    if student is None or control is None:
        return None
    return Aim(
        text=f"the student beats the same student reinforced alone {compute}",
        measured=f"{_with_interval(student)} against {_with_interval(control)}",
        is_reached=student.accuracy > control.accuracy,
    )


def _time_aim(seconds: float | None) -> Aim | None:
    if seconds is None:
        return None
    return Aim(
        text=f"the whole run takes at most {RUN_SECONDS // 60} minutes",
        measured=f"{seconds / 60:.1f} minutes",
        is_reached=seconds <= RUN_SECONDS,
    )


def _score(models: Mapping[str, Model], key: str) -> Score | None:
    return models[key].score() if key in models else None


def _with_interval(score: Score) -> str:
    return f"{score.accuracy:.1%} ({score.low * 100:.1f} to {score.high * 100:.1f})"
