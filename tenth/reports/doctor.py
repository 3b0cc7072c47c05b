"""The doctor: reads a stage's metrics and says in plain words what is wrong and what to change.

Why: "frac_reward_zero_std = 0.93" helps nobody who has not read the GRPO paper; "93 % of the groups teach
nothing, the problems are too hard, lower their level" does.
In:  rows of metrics.jsonl.
Out: `Finding`s, the worst first; an empty list means that no rule fired.
Not here: the numbers themselves (training/, rollout/), how findings look (sections.py, cli/).

A rule looks at metrics by their documented names and says nothing where they are absent, so one table
serves pre-training, SFT and RL. "Recent" means the mean over the last quarter of the steps.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Rows = Sequence[Mapping[str, float]]

LOSS_REMINDER = (
    "A GRPO loss near 0 is normal: advantages of a group sum to 0, so the loss says nothing about progress; "
    "read the reward, the accuracy and the response length instead."
)

ZERO_VARIANCE_SHARE = 0.8
TRUNCATED_SHARE = 0.2
ENTROPY_LEFT = 0.1  # of the first steps' entropy
SOLVED_ACCURACY = 0.8  # above it, low entropy and equal rewards are what success looks like
KL_NATS = 1.0  # per token, against the reference
CLIPPED_SHARE = 0.2
MISMATCH_NATS = 0.01  # sampler against trainer
SPIKE_FACTOR = 1.5  # of the median of the steps before
SPIKE_WINDOW = 10
MAX_VIO = 1.0  # the busiest expert gets twice its share
FORMAT_STUCK = 0.5
THINK_SHARE = 0.01
PEAK_SHARE = 0.1
BPB_RISE = 1.02  # of the best so far
VAL_LOSS_RISE = 1.05  # of the best so far
LANGUAGE_FALL = 0.05  # below the first steps
HACKING_ERRORS = 2.5  # standard errors by which a reward model's score rises and a verifiable one falls
MIN_STEPS = 10  # fewer than this say nothing about a trend


class Severity(StrEnum):
    """How much a finding matters; in this order on the page."""

    PROBLEM = "problem"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing the doctor saw."""

    severity: Severity
    metric: str
    sentence: str  # the value and the remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which metric must be there for `judge` to be asked."""

    metric: str
    judge: Callable[[Rows], Finding | None]


def diagnose(rows: Rows) -> list[Finding]:
    """Every rule's finding about one stage, the worst first."""
    findings = [
        finding
        for rule in RULES
        if any(rule.metric in row for row in rows) and (finding := rule.judge(rows)) is not None
    ]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def series(rows: Rows, metric: str) -> list[float]:
    """The finite values of a metric, in the order of steps."""
    return [
        row[metric] for row in rows if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]


def recent(rows: Rows, metric: str) -> float | None:
    """The mean over the last quarter of the values; None where there is no value."""
    values = series(rows, metric)
    return statistics.fmean(values[-max(1, len(values) // 4) :]) if values else None


def is_reinforcement(rows: Rows) -> bool:
    """Whether the rows come from an RL stage."""
    return any("reward" in row for row in rows)


def _not_finite(rows: Rows) -> Finding | None:
    bad = [row for row in rows if isinstance(row.get("loss"), float) and not math.isfinite(row["loss"])]
    if not bad:
        return None
    return Finding(
        severity=Severity.PROBLEM,
        metric="loss",
        sentence=f"The loss is not a number in {len(bad)} of {len(rows)} steps, first in step "
        f"{bad[0].get('step', 0):.0f}: halve the learning rate, or lower the gradient clip.",
    )


def _loss_spikes(rows: Rows) -> Finding | None:
    if is_reinforcement(rows):  # GRPO's loss hovers about 0: a ratio of two of its values means nothing
        return None
    values = series(rows, "loss")
    factors = [
        value / before
        for i, value in enumerate(values)
        if i >= SPIKE_WINDOW and (before := statistics.median(values[i - SPIKE_WINDOW : i])) > 0
    ]
    spikes = [factor for factor in factors if factor > SPIKE_FACTOR]
    if not spikes:
        return None
    times = "once" if len(spikes) == 1 else f"{len(spikes)} times"
    return Finding(
        severity=Severity.WARNING,
        metric="loss",
        sentence=f"The loss jumped {times}, at worst to {max(spikes):.1f} times the median of "
        f"the {SPIKE_WINDOW} steps before: lengthen the warm-up or lower the learning rate.",
    )


def _zero_variance(rows: Rows) -> Finding | None:
    share = recent(rows, "frac_reward_zero_std")
    if share is None or share <= ZERO_VARIANCE_SHARE:
        return None
    accuracy = recent(rows, "rewards/accuracy/mean")
    seen = f"Reward variance is 0 in {share:.0%} of the groups, so they teach nothing"
    if accuracy is None:
        severity, why = Severity.WARNING, "look at the accuracy, then change the problems' levels."
    elif accuracy >= 0.5:
        severity = Severity.NOTE
        why = f"accuracy is {accuracy:.0%}, the problems are too easy now; raise their levels, or stop here."
    else:
        severity = Severity.PROBLEM
        why = (
            f"accuracy is {accuracy:.0%}, the problems are too hard; lower their levels, "
            "sample more answers per prompt, or pre-train longer."
        )
    return Finding(severity=severity, metric="frac_reward_zero_std", sentence=f"{seen}: {why}")


def _truncated(rows: Rows) -> Finding | None:
    share = recent(rows, "completions/clipped_ratio")
    if share is None or share <= TRUNCATED_SHARE:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="completions/clipped_ratio",
        sentence=f"{share:.0%} of the answers are cut off at the length limit: raise the number of new "
        "tokens, or turn on overlong shaping.",
    )


def _entropy_collapse(rows: Rows) -> Finding | None:
    values, now = series(rows, "entropy"), recent(rows, "entropy")
    if now is None or len(values) < MIN_STEPS:
        return None
    first = statistics.fmean(values[: max(1, len(values) // 10)])
    accuracy = recent(rows, "rewards/accuracy/mean") or 0.0
    if now >= ENTROPY_LEFT * first or accuracy >= SOLVED_ACCURACY:
        return None
    return Finding(
        severity=Severity.PROBLEM,
        metric="entropy",
        sentence=f"Entropy fell from {first:.3f} to {now:.3f} nats per token while accuracy is only "
        f"{accuracy:.0%}: exploration has stopped; turn on clip-higher, lower the learning rate, "
        "or raise the KL weight.",
    )


def _kl_explosion(rows: Rows) -> Finding | None:
    now = recent(rows, "kl")
    if now is None or now <= KL_NATS:
        return None
    return Finding(
        severity=Severity.PROBLEM,
        metric="kl",
        sentence=f"KL to the reference is {now:.2f} nats per token: the policy runs away from it; lower the "
        "learning rate, raise the KL weight, or refresh the reference more often.",
    )


def _clipped(rows: Rows) -> Finding | None:
    share = recent(rows, "clip_ratio/region_mean")
    if share is None or share <= CLIPPED_SHARE:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="clip_ratio/region_mean",
        sentence=f"{share:.0%} of the token ratios are clipped: the updates are too large; lower the "
        "learning rate or take fewer minibatches per batch of rollouts.",
    )


def _mismatch(rows: Rows) -> Finding | None:
    now = recent(rows, "mismatch_kl")
    if now is None or abs(now) <= MISMATCH_NATS:
        return None
    return Finding(
        severity=Severity.PROBLEM,
        metric="mismatch_kl",
        sentence=f"Sampler and trainer disagree by {now:.3f} nats per token about the same answers: the "
        "sampler has stale weights or a lower precision; sample in fp32 or update its weights every step.",
    )


def _balance(rows: Rows) -> Finding | None:
    now = recent(rows, "max_vio")
    if now is None or now <= MAX_VIO:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="max_vio",
        sentence=f"MaxVio is {now:.2f}: the busiest expert gets {1 + now:.1f} times its share of tokens; "
        "raise the bias update speed or the balance loss weight.",
    )


def _verifier_errors(rows: Rows) -> Finding | None:
    values = series(rows, "verifier_error_ratio")
    worst = max(values, default=0.0)
    if worst <= 0:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="verifier_error_ratio",
        sentence=f"The verifier failed on up to {worst:.1%} of the answers of a step (in "
        f"{sum(value > 0 for value in values)} of {len(values)} steps): these answers are neither right nor "
        "wrong; raise its deadline or look at the `error` column of the rollouts.",
    )


def _format_stuck(rows: Rows) -> Finding | None:
    values, now = series(rows, "rewards/format/mean"), recent(rows, "rewards/format/mean")
    if now is None or len(values) < MIN_STEPS or now >= FORMAT_STUCK or now - values[0] >= 0.1:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="rewards/format/mean",
        sentence=f"Only {now:.0%} of the answers are well-formed (first step {values[0]:.0%}) and that does "
        "not rise: raise the format reward's weight, or put more well-formed documents into the "
        "base's corpus.",
    )


def _no_thinking(rows: Rows) -> Finding | None:
    share = recent(rows, "think_share")
    if share is None or share >= THINK_SHARE:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="think_share",
        sentence=f"{share:.1%} of the answers think: what is never sampled cannot be reinforced; raise the "
        "share of step-by-step documents in the base's corpus, or the sampling temperature.",
    )


def _low_peak(rows: Rows) -> Finding | None:
    share = recent(rows, "peak_share")
    if share is None or share >= PEAK_SHARE:
        return None
    return Finding(
        severity=Severity.NOTE,
        metric="peak_share",
        sentence=f"Training reaches {share:.1%} of the machine's measured matrix-product peak: the time goes "
        "to overhead; use larger batches, or stop other programs on this machine.",
    )


def _bpb_rising(rows: Rows) -> Finding | None:
    values = series(rows, "val_bpb")
    if len(values) < 3 or values[-1] <= BPB_RISE * min(values):
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="val_bpb",
        sentence=f"Held-out text went up from {min(values):.3f} to {values[-1]:.3f} bits per byte: the model "
        "memorises its documents; use more documents or fewer steps.",
    )


def _val_loss_rising(rows: Rows) -> Finding | None:
    values = series(rows, "val_loss")
    if len(values) < 2 or values[-1] <= VAL_LOSS_RISE * min(values):
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="val_loss",
        sentence=f"The held-out loss went up from {min(values):.3f} to {values[-1]:.3f} nats per token: the "
        "model memorises its examples; take fewer epochs, a lower learning rate, or more examples.",
    )


def _language_falls(rows: Rows) -> Finding | None:
    values, now = series(rows, "rewards/language/mean"), recent(rows, "rewards/language/mean")
    if now is None or len(values) < MIN_STEPS:
        return None
    first = statistics.fmean(values[: max(1, len(values) // 10)])
    if first - now <= LANGUAGE_FALL:
        return None
    return Finding(
        severity=Severity.WARNING,
        metric="rewards/language/mean",
        sentence=f"The share of words in the question's language fell from {first:.1%} to {now:.1%}: other "
        "rewards outweigh it; raise language_weight.",
    )


def _reward_hacking(rows: Rows) -> Finding | None:
    worst = max(series(rows, "reward_hacking"), default=0.0)
    if worst <= HACKING_ERRORS:
        return None
    names = ("helpful", "safe", "accuracy", "truth")
    curves = {name: series(rows, f"rewards/{name}/mean") for name in names}
    moved = ", ".join(f"{name} {curve[0]:.2f} to {curve[-1]:.2f}" for name, curve in curves.items() if curve)
    return Finding(
        severity=Severity.PROBLEM,
        metric="reward_hacking",
        sentence=f"A reward model's score rose while a verifiable score fell, both by {worst:.1f} standard "
        f"errors or more ({moved}): the policy deceives the reward model; give it fewer steps or less "
        "weight, or train it anew with answers of this policy.",
    )


RULES = (
    Rule(metric="loss", judge=_not_finite),
    Rule(metric="loss", judge=_loss_spikes),
    Rule(metric="frac_reward_zero_std", judge=_zero_variance),
    Rule(metric="completions/clipped_ratio", judge=_truncated),
    Rule(metric="entropy", judge=_entropy_collapse),
    Rule(metric="kl", judge=_kl_explosion),
    Rule(metric="clip_ratio/region_mean", judge=_clipped),
    Rule(metric="mismatch_kl", judge=_mismatch),
    Rule(metric="max_vio", judge=_balance),
    Rule(metric="verifier_error_ratio", judge=_verifier_errors),
    Rule(metric="rewards/format/mean", judge=_format_stuck),
    Rule(metric="think_share", judge=_no_thinking),
    Rule(metric="peak_share", judge=_low_peak),
    Rule(metric="val_bpb", judge=_bpb_rising),
    Rule(metric="val_loss", judge=_val_loss_rising),
    Rule(metric="rewards/language/mean", judge=_language_falls),
    Rule(metric="reward_hacking", judge=_reward_hacking),
)
