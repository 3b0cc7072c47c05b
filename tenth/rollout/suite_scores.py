"""Scores of one model on one suite: accuracy with its interval, tokens, time, money, and what went wrong.

Protocol of R1 (arXiv:2501.12948v2, appendix D.1): pass@1 averaged over k samples. Intervals are over
questions, since samples of one question are not independent, and Wilson's (1927), since a small model's
accuracy may be 0 or 1. An answer that failed (an endpoint's fault, a verifier's) is neither right nor wrong:
it is counted and left out.
In:  `Sample` rows.  Out: a `SuiteScore`.
Not here: asking (pipeline/evaluate_model.py).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev
from typing import Any

from tenth.base.records import Finish, Record

_Z95 = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Record):
    """One answer to one question, judged: a line of SUITE.jsonl."""

    suite: str
    problem_id: str
    prompt: str
    answer: str  # the right one
    text: str
    reasoning: str | None
    extracted: str | None
    is_correct: bool
    finish: Finish
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    seconds: float  # from asking to the whole answer; of a batch in this process, the batch's
    wall_seconds: float  # its share of the time that all answers took together
    usd: float
    error: str | None = None  # there is no answer
    verifier_error: str | None = None  # there is one, and nobody knows
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether the answer counts."""
        return self.error is None and self.verifier_error is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteScore(Record):
    """One line of the table."""

    suite: str
    problems: int
    samples: int  # answers in all, failed ones too
    accuracy: float | None  # None: not one answer counts
    low: float | None
    high: float | None
    unparsed: float | None  # share of answers in which none could be read
    truncated: float | None  # share cut off by its length
    prompt_tokens: float  # per answer
    cached_tokens: float
    completion_tokens: float
    reasoning_tokens: float
    seconds_median: float | None  # per answer
    seconds_p90: float | None
    tokens_per_second: float | None  # written, of all answers together
    usd: float
    errors: int
    verifier_errors: int
    failure: str | None = None  # what the most frequent of the failures says
    more: Mapping[str, float] = field(default_factory=dict)  # what only this suite has


def score_suite(suite: str, samples: Sequence[Sample], *, usd_per_hour: float = 0.0) -> SuiteScore:
    """At least one sample. `usd_per_hour` is the price of one's own machine."""
    answered = [sample for sample in samples if sample.error is None]
    known = [sample for sample in samples if sample.is_known]
    groups = _by_problem(known)
    rates = [fmean(each.is_correct for each in group) for group in groups]
    low, high = wilson(rates) if rates else (None, None)
    wall = math.fsum(sample.wall_seconds for sample in samples)
    seconds = sorted(sample.seconds for sample in answered)
    return SuiteScore(
        suite=suite,
        problems=len({sample.problem_id for sample in samples}),
        samples=len(samples),
        accuracy=fmean(rates) if rates else None,
        low=low,
        high=high,
        unparsed=_share(answered, "extracted", None),
        truncated=_share(answered, "finish", Finish.LENGTH),
        prompt_tokens=_mean(answered, "prompt_tokens"),
        cached_tokens=_mean(answered, "cached_tokens"),
        completion_tokens=_mean(answered, "completion_tokens"),
        reasoning_tokens=_mean(answered, "reasoning_tokens"),
        seconds_median=median(seconds) if seconds else None,
        seconds_p90=quantile(seconds, 0.9) if seconds else None,
        tokens_per_second=sum(each.completion_tokens for each in answered) / wall if wall else None,
        usd=math.fsum(sample.usd for sample in samples) + wall / 3600 * usd_per_hour,
        errors=sum(sample.error is not None for sample in samples),
        verifier_errors=sum(sample.verifier_error is not None for sample in samples),
        failure=_most_frequent([sample.error or sample.verifier_error for sample in samples]),
        more=_followed(known) | _likelihood(known),
    )


def wilson(rates: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of questions' rates.

    With one sample per question this is Wilson's interval. With several, a question's rate varies less than
    a coin, so it counts for as many questions as would have the variance that was seen.
    """
    mean, variance, num = fmean(rates), pstdev(rates) ** 2, float(len(rates))
    if 0 < mean < 1 and variance > 0:
        num *= mean * (1 - mean) / variance
    spread = _Z95**2 / num
    centre = (mean + spread / 2) / (1 + spread)
    half = _Z95 * math.sqrt(mean * (1 - mean) / num + spread / (4 * num)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _most_frequent(texts: Sequence[str | None]) -> str | None:
    counts = Counter(text for text in texts if text is not None)
    return counts.most_common(1)[0][0] if counts else None


def _followed(samples: Sequence[Sample]) -> dict[str, float]:
    """IFEval's four accuracies (arXiv:2311.07911, section 3)."""
    found = [sample.details for sample in samples if "strict" in sample.details]
    if not found:
        return {}
    scores = {}
    for how in ("strict", "loose"):
        scores[f"prompt_{how}"] = fmean(all(each[how]) for each in found)
        scores[f"instruction_{how}"] = fmean(one for each in found for one in each[how])
    return scores


def _likelihood(samples: Sequence[Sample]) -> dict[str, float]:
    """Perplexity of the right continuations, and accuracy by likelihood per byte."""
    logprobs = [sample.details["logprob"] for sample in samples if "logprob" in sample.details]
    tokens = sum(sample.details.get("tokens", 0) for sample in samples)
    scores: dict[str, float] = {}
    if logprobs and tokens:
        scores["perplexity_per_word"] = math.exp(-fmean(logprobs))
        scores["perplexity_per_token"] = math.exp(-math.fsum(logprobs) / tokens)
    per_byte = [
        sample.details["is_correct_per_byte"] for sample in samples if "is_correct_per_byte" in sample.details
    ]
    if per_byte:
        scores["accuracy_per_byte"] = fmean(per_byte)
    return scores


def _by_problem(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.problem_id, []).append(sample)
    return list(groups.values())


def _mean(samples: Sequence[Sample], name: str) -> float:
    return fmean(getattr(sample, name) for sample in samples) if samples else 0.0


def _share(samples: Sequence[Sample], name: str, value: Any) -> float | None:
    return fmean(getattr(sample, name) is value for sample in samples) if samples else None
