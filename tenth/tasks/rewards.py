"""From what a model wrote to named rewards and one weighted number.

Why: R1-Zero's reward is accuracy plus format, by rule (DeepSeek-R1, arXiv:2501.12948, section 2.2.2), and
R1 adds language consistency (section 2.3.2). Each stays a named float, so that a report can tell them apart.
In:  a problem and a sampled text. Out: `Scored`: rewards by name, their weighted sum, a verifier's error.
Not here: what an answer looks like (shape.py), how it is judged (checkers), how a user's function is run
(user_reward.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenth.base.errors import ConfigError, VerifierError
from tenth.base.records import Problem, Record, Verdict
from tenth.tasks.judge import answer_of
from tenth.tasks.shape import ZERO_SHAPE, AnswerShape

Check = Callable[[Problem, str], Verdict]
# The i-th answer to the i-th problem: many at once, since whoever judges may work on many at a time.
CheckMany = Callable[[Sequence[Problem], Sequence[str]], Sequence[Verdict]]

LANGUAGES = ("en", "zh")
BUILT_IN = ("accuracy", "format", "language")

_HAN = re.compile(r"[\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]+")


def language_consistency(text: str, language: str) -> float:
    """The share of words of the thinking that are in the language asked for; 1.0 when it has no words.

    A Chinese character counts as one word, a run of Latin letters too (R1, section 2.3.2, leaves it open).
    """
    if language not in LANGUAGES:
        raise ConfigError(f"no language reward for '{language}'; use 'en' or 'zh', or leave the reward out.")
    thinking = text.partition("<think>")[2].partition("</think>")[0] if "<think>" in text else text
    thinking = re.sub(r"</?(?:think|answer)>", " ", thinking)
    chinese, latin = len(_HAN.findall(thinking)), len(_LATIN_WORD.findall(thinking))
    if chinese + latin == 0:
        return 1.0
    return (chinese if language == "zh" else latin) / (chinese + latin)


def one_by_one(check: Check) -> CheckMany:
    """For rules that gain nothing from many at once."""
    return lambda problems, answers: [check(*pair) for pair in zip(problems, answers, strict=True)]


def check_found(
    check: CheckMany, problems: Sequence[Problem], answers: Sequence[str | None]
) -> list[Verdict | None]:
    """Verdicts on the answers that were found in their texts, all at once; None where there was none."""
    found = [pair for pair in zip(problems, answers, strict=True) if pair[1] is not None]
    texts = [answer for _, answer in found if answer is not None]
    verdicts = iter(check([problem for problem, _ in found], texts) if found else ())
    return [None if answer is None else next(verdicts) for answer in answers]


class BatchReward(Protocol):
    """A reward that judges many completions at once; None means: no opinion on this one."""

    def score(
        self, problems: Sequence[Problem], texts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """One reward per completion. VerifierError when it failed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored(Record):
    """What one sampled text earned. With `error` set nobody knows: leave the sample out of training."""

    rewards: Mapping[str, float]  # by name, unweighted; a reward that failed or abstained is absent
    reward: float  # the weighted sum of those present
    error: str | None = None
    answer: str | None = None  # as extracted


class RewardSet:
    """Weighted, named rewards: accuracy, format, language, and functions of the user's."""

    def __init__(
        self,
        check: CheckMany,
        *,
        weights: Mapping[str, float],
        functions: Mapping[str, BatchReward] | None = None,
        shape: AnswerShape = ZERO_SHAPE,
    ) -> None:
        functions = functions or {}
        known = [*BUILT_IN, *functions]
        unknown = [name for name in weights if name not in known]
        if unknown or not weights:
            named = f"reward '{unknown[0]}' is not known" if unknown else "no rewards are given"
            raise ConfigError(f"{named}; choose from {', '.join(known)}.")
        unused = [name for name in functions if name not in weights]
        if unused:
            raise ConfigError(
                f"reward function '{unused[0]}' has no weight; add {unused[0]} = 1.0 to the weights."
            )
        self._check, self._shape = check, shape
        self._weights = dict(weights)
        self._functions = dict(functions)

    def score(
        self,
        problems: Sequence[Problem],
        texts: Sequence[str],
        *,
        completion_ids: Sequence[Sequence[int]] | None = None,
    ) -> list[Scored]:
        """One `Scored` per text; the i-th text answers the i-th problem."""
        ids = completion_ids if completion_ids is not None else [() for _ in texts]
        columns, errors = self._function_columns(problems, texts, ids)
        pairs = list(zip(problems, texts, strict=True))
        answers = [answer_of(problem, text, shape=self._shape) for problem, text in pairs]
        verdicts = self._verdicts(problems, answers)
        scored = []
        for index, ((problem, text), answer) in enumerate(zip(pairs, answers, strict=True)):
            rewards, error = self._rule_rewards(problem, text, verdicts[index])
            extra = {name: column[index] for name, column in columns.items()}
            rewards |= {name: value for name, value in extra.items() if value is not None}
            total = sum(self._weights[name] * value for name, value in rewards.items())
            found = [text for text in (error, *errors) if text is not None]
            scored.append(
                Scored(rewards=rewards, reward=total, error="; ".join(found) or None, answer=answer)
            )
        return scored

    def _verdicts(self, problems: Sequence[Problem], answers: Sequence[str | None]) -> list[Verdict | None]:
        """None where accuracy earns nothing; no answer is a wrong one."""
        if "accuracy" not in self._weights:
            return [None] * len(answers)
        verdicts = check_found(self._check, problems, answers)
        return [verdict or Verdict(is_correct=False) for verdict in verdicts]

    def _rule_rewards(
        self, problem: Problem, text: str, verdict: Verdict | None
    ) -> tuple[dict[str, float], str | None]:
        rewards: dict[str, float] = {}
        error = verdict.error if verdict else None
        if verdict and error is None:
            rewards["accuracy"] = float(verdict.is_correct)
        if "format" in self._weights:
            rewards["format"] = self._shape.format_score(text)
        if "language" in self._weights:
            rewards["language"] = language_consistency(text, problem.language)
        return rewards, error

    def _function_columns(
        self, problems: Sequence[Problem], texts: Sequence[str], ids: Sequence[Sequence[int]]
    ) -> tuple[dict[str, list[float | None]], list[str]]:
        columns: dict[str, list[float | None]] = {}
        errors: list[str] = []
        for name, function in self._functions.items():
            try:
                columns[name] = function.score(problems, texts, ids)
            except VerifierError as error:
                errors.append(f"reward '{name}': {error}")
        return columns, errors
