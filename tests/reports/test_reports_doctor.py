"""The doctor's rules, one by one: the numbers that make each speak, and the ones that leave it silent."""

import pytest
from synthetic_run import pretrain_rows, zero_rows

from tenth.reports.doctor import RULES, Severity, diagnose, recent

Row = dict[str, float]


def rows(count: int = 20, **metrics: float) -> list[Row]:
    """The same numbers in every step."""
    return [{"step": step, **metrics} for step in range(count)]


def ramp(name: str, values: list[float], **others: float) -> list[Row]:
    return [{"step": step, name: value, **others} for step, value in enumerate(values)]


def finding(found_rows: list[Row], metric: str):
    return next((f for f in diagnose(found_rows) if f.metric == metric), None)


def test_healthy_stages_have_no_findings():
    assert diagnose(pretrain_rows()) == []
    assert diagnose(zero_rows()) == []


def test_an_empty_stage_has_no_findings():
    assert diagnose([]) == []


def test_recent_is_the_mean_of_the_last_quarter():
    assert recent(ramp("x", [0, 0, 0, 0, 0, 0, 2, 4]), "x") == 3.0


SPEAKS = [  # metric, rows, severity, words
    (
        "frac_reward_zero_std",
        rows(**{"frac_reward_zero_std": 0.93, "rewards/accuracy/mean": 0.02}),
        Severity.PROBLEM,
        "Reward variance is 0 in 93% of the groups, so they teach nothing: accuracy is 2%, the problems are "
        "too hard; lower",
    ),
    (
        "frac_reward_zero_std",
        rows(**{"frac_reward_zero_std": 0.9, "rewards/accuracy/mean": 0.97}),
        Severity.NOTE,
        "too easy",
    ),
    ("frac_reward_zero_std", rows(frac_reward_zero_std=0.9), Severity.WARNING, "look at the accuracy"),
    (
        "completions/clipped_ratio",
        rows(**{"completions/clipped_ratio": 0.35}),
        Severity.WARNING,
        "35% of the",
    ),
    (
        "entropy",
        ramp("entropy", [1.0] * 10 + [0.05] * 10, **{"rewards/accuracy/mean": 0.4}),
        Severity.PROBLEM,
        "Entropy fell from 1.000 to 0.050",
    ),
    ("kl", rows(kl=2.5), Severity.PROBLEM, "2.50 nats per token"),
    ("clip_ratio/region_mean", rows(**{"clip_ratio/region_mean": 0.3}), Severity.WARNING, "30% of the token"),
    ("mismatch_kl", rows(mismatch_kl=0.05), Severity.PROBLEM, "disagree by 0.050 nats"),
    ("max_vio", rows(max_vio=1.5), Severity.WARNING, "the busiest expert gets 2.5 times its share"),
    (
        "verifier_error_ratio",
        ramp("verifier_error_ratio", [0.0, 0.02, 0.0, 0.01]),
        Severity.WARNING,
        "up to 2.0% of the answers of a step (in 2 of 4 steps)",
    ),
    (
        "rewards/format/mean",
        rows(**{"rewards/format/mean": 0.2}),
        Severity.WARNING,
        "Only 20% of the answers",
    ),
    ("think_share", rows(think_share=0.002), Severity.WARNING, "0.2% of the answers think"),
    ("peak_share", rows(peak_share=0.04), Severity.NOTE, "4.0% of the machine's"),
    ("val_bpb", ramp("val_bpb", [1.0, 0.5, 0.55]), Severity.WARNING, "from 0.500 to 0.550"),
    ("val_loss", ramp("val_loss", [1.0, 0.5, 0.55]), Severity.WARNING, "went up from 0.500 to 0.550 nats"),
    (
        "rewards/language/mean",
        ramp("rewards/language/mean", [1.0] * 10 + [0.9] * 10),
        Severity.WARNING,
        "fell from 100.0% to 90.0%",
    ),
    ("loss", ramp("loss", [2.0, float("nan"), 2.0]), Severity.PROBLEM, "in 1 of 3 steps, first in step 1"),
    # the median of the ten steps before is 2, so 6 is three times as much
    (
        "loss",
        ramp("loss", [2.0] * 10 + [6.0, 2.0]),
        Severity.WARNING,
        "jumped once, at worst to 3.0 times",
    ),
    (
        "reward_hacking",
        [{"reward_hacking": 1.0, "rewards/helpful/mean": 0.5, "rewards/accuracy/mean": 0.8},
         {"reward_hacking": 3.1, "rewards/helpful/mean": 0.7, "rewards/accuracy/mean": 0.6}],
        Severity.PROBLEM,
        "both by 3.1 standard errors or more (helpful 0.50 to 0.70, accuracy 0.80 to 0.60)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "sick", "severity", "words"), SPEAKS)
def test_a_rule_speaks(metric: str, sick: list[Row], severity: Severity, words: str):
    found = finding(sick, metric)
    assert found is not None
    assert found.severity is severity
    assert words in found.sentence


SILENT = [  # metric, rows
    ("frac_reward_zero_std", rows(**{"frac_reward_zero_std": 0.8, "rewards/accuracy/mean": 0.02})),
    ("completions/clipped_ratio", rows(**{"completions/clipped_ratio": 0.2})),
    # the problems are solved: low entropy is what success looks like
    ("entropy", ramp("entropy", [1.0] * 10 + [0.05] * 10, **{"rewards/accuracy/mean": 0.97})),
    ("entropy", ramp("entropy", [1.0] * 10 + [0.2] * 10, **{"rewards/accuracy/mean": 0.4})),
    ("kl", rows(kl=0.5)),
    ("clip_ratio/region_mean", rows(**{"clip_ratio/region_mean": 0.1})),
    ("mismatch_kl", rows(mismatch_kl=1e-5)),
    ("max_vio", rows(max_vio=0.4)),
    ("verifier_error_ratio", rows(verifier_error_ratio=0.0)),
    ("rewards/format/mean", ramp("rewards/format/mean", [0.02 * i for i in range(20)])),  # low, but it rises
    ("think_share", rows(think_share=0.05)),
    ("peak_share", rows(peak_share=0.5)),
    ("val_bpb", ramp("val_bpb", [1.0, 0.5, 0.505])),
    ("loss", ramp("loss", [0.001, 0.5] * 10, reward=1.0)),  # GRPO's loss jumps about 0, and may
    ("val_loss", ramp("val_loss", [1.0, 0.5, 0.52])),
    ("rewards/language/mean", ramp("rewards/language/mean", [0.8] * 10 + [0.9] * 10)),  # it rises
    ("reward_hacking", rows(reward_hacking=2.5)),
]


@pytest.mark.parametrize(("metric", "healthy"), SILENT)
def test_a_rule_is_silent(metric: str, healthy: list[Row]):
    assert finding(healthy, metric) is None


def test_every_rule_is_tested_both_ways():
    metrics = {rule.metric for rule in RULES}
    assert {case[0] for case in SPEAKS} == metrics
    assert {case[0] for case in SILENT} == metrics


def test_the_worst_comes_first():
    sick = rows(peak_share=0.01, kl=5.0, max_vio=3.0)
    assert [f.severity for f in diagnose(sick)] == [Severity.PROBLEM, Severity.WARNING, Severity.NOTE]
