"""What the main run set out to reach, held against what it measured.

Why: the aims were fixed before the first reinforcement-learning run; showing each with its measured number,
reached or not, keeps the report honest.
In:  the evaluations of base and R1-Zero, and the seconds of the whole run.  Out: `Aim`s.
Not here: how they look (sections.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tenth.reports.scores import BASE_WAYS, FORCED_DIRECT, MODE_LABELS, SAMPLED, Evaluation, Score

RISE = 0.30
FINAL_ACCURACY = 0.75
MIN_FAMILIES = 6
DIRECT_BELOW = 0.25
MIN_HARD_FAMILIES = 3
MIN_LONGER_FAMILIES = 2
RUN_SECONDS = 20 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One aim, what was measured, and whether it was reached."""

    text: str
    measured: str
    is_reached: bool


def check_aims(base: Evaluation, zero: Evaluation, *, seconds: float | None) -> list[Aim]:
    """Every aim that can be judged from what was measured."""
    start, end = base.score(SAMPLED), zero.score(SAMPLED)
    aims = [_time_aim(seconds)] if seconds is not None else []
    if start is None or end is None:
        return aims
    rise = end.accuracy - start.accuracy
    hard = [family for family in base.families if _is_below(base.score(FORCED_DIRECT, family), DIRECT_BELOW)]
    longer = families_beyond_documents(zero, zero.longest_in_documents or base.longest_in_documents)
    return [
        Aim(
            text=f"the mean over at least {MIN_FAMILIES} families rises by {RISE * 100:.0f} points or more",
            measured=f"{rise * 100:+.1f} points over {len(zero.families)} families",
            is_reached=rise >= RISE and len(zero.families) >= MIN_FAMILIES,
        ),
        Aim(
            text=f"R1-Zero reaches at least {FINAL_ACCURACY:.0%}",
            measured=f"{end.accuracy:.1%}",
            is_reached=end.accuracy >= FINAL_ACCURACY,
        ),
        _beats_base_aim(base, end),
        Aim(
            text=f"in at least {MIN_HARD_FAMILIES} families a direct answer stays under {DIRECT_BELOW:.0%}",
            measured=", ".join(hard) or "none",
            is_reached=len(hard) >= MIN_HARD_FAMILIES,
        ),
        Aim(
            text=f"{MIN_LONGER_FAMILIES} families or more are tested on longer problems than documents solve",
            measured=", ".join(longer) or "none",
            is_reached=len(longer) >= MIN_LONGER_FAMILIES,
        ),
        *aims,
    ]


def families_beyond_documents(evaluation: Evaluation, longest_in_documents: Mapping[str, int]) -> list[str]:
    """Families whose test problems go past the longest level that the base's documents solve."""
    levels = evaluation.levels.get(SAMPLED, {})
    return [
        family
        for family, longest in sorted(longest_in_documents.items())
        if any(level > longest and score.problems for level, score in levels.get(family, {}).items())
    ]


def _beats_base_aim(base: Evaluation, end: Score) -> Aim:
    ways = {mode: score for mode in BASE_WAYS if (score := base.score(mode))}
    best = max(ways, key=lambda mode: ways[mode].accuracy)
    return Aim(
        text=f"R1-Zero beats the base in each of the {len(BASE_WAYS)} ways it is measured",
        measured=f"best way of {len(ways)}: {MODE_LABELS[best]}, {ways[best].accuracy:.1%}",
        is_reached=end.accuracy > ways[best].accuracy and len(ways) == len(BASE_WAYS),
    )


def _time_aim(seconds: float) -> Aim:
    return Aim(
        text=f"the whole run takes at most {RUN_SECONDS // 60} minutes",
        measured=f"{seconds / 60:.1f} minutes",
        is_reached=seconds <= RUN_SECONDS,
    )


def _is_below(score: Score | None, limit: float) -> bool:
    return score is not None and score.accuracy < limit
