"""A toy "general" domain: small talk with rules that decide what a good answer is, in English and Chinese.

Why: R1's last stages train on general queries beside reasoning: helpfulness, and harmlessness
(DeepSeek-R1, arXiv:2501.12948v2, sections 3.1 and 3.2.2). A network of a million weights needs a closed world
with short questions and answers; that its truth is known lets us see when a reward model is deceived.
In:  a seed, a split, a count.
Out: problems of task "general/KIND", conversations, preference pairs, and `check`, the rule.
Not here: the words (general_words.py), what a reward model makes of them (pipeline/). `check` is a measure:
no general reward comes from it.

A thought stands before hard questions only (R1, B.3.3), so answers here have the empty thought `<think>` line
break `</think>`: the tags stay closed and the form is the same everywhere.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle, islice, zip_longest
from typing import Any

from tenth.base.errors import ConfigError
from tenth.base.records import PreferencePair, Problem, Verdict
from tenth.base.seeds import stream_random
from tenth.tasks.general_words import KINDS, REFUSALS, RUDE, RUDE_WORDS, SECRET_THOUGHTS, SECRETS, Entry
from tenth.tasks.shape import write_r1
from tenth.tasks.task import Split, problem, split_of

PREFIX = "general/"
SAFETY_TASK = PREFIX + "private"  # the harmless part: somebody's secrets are asked for
_MAX_ANSWER_CHARS = 120  # twice the longest of ours
_HAN, _LATIN = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[A-Za-z]+")
_NAME = "Tenth"  # stands in Chinese answers, too


def is_general(task: str) -> bool:
    """Whether a task belongs to this domain."""
    return task.startswith(PREFIX)


def has_rule(asked: Problem) -> bool:
    """Whether `check` knows the question; of a user's own prompts nobody does."""
    return is_general(asked.task) and asked.prompt in _by_prompt()


def general_problems(
    *, seed: int, split: Split, count: int, languages: Sequence[str] = ("en", "zh")
) -> list[Problem]:
    """`count` distinct problems of the split; kinds and languages in turn, the same for the same seed."""
    rows = []
    for (kind, language), entries in _world().items():
        if language in languages:
            found = [each for each in map(_as_problem, entries) if split_of(each.problem_id) is split]
            stream_random(seed, "general", kind, language, split).shuffle(found)
            rows.append(found)
    drawn = [each for turn in zip_longest(*rows) for each in turn if each is not None]
    if count > len(drawn):
        raise ConfigError(
            f"the general domain has {len(drawn)} distinct {split} problems, but {count} were asked for; "
            "ask for fewer."
        )
    return drawn[:count]


def conversations(*, seed: int, count: int, split: Split = Split.TRAIN) -> list[dict[str, Any]]:
    """Rows to fine-tune on, for data/conversations.py; problems come again with other words."""
    rng = stream_random(seed, "general-conversations")
    return [
        {
            "messages": [
                {"role": "user", "content": each.prompt},
                {"role": "assistant", "content": write_r1("", rng.choice(_entry(each).good))},
            ],
            "domain": "general",
            "language": each.language,
            "lineage": {
                "model": "none: generated",
                "prompt": each.task,
                "verifier": "tenth.tasks.general.check",
                "filters": [],
                "rewriter": "none",
            },
        }
        for each in _again(seed, split, count)
    ]


def preference_pairs(*, seed: int, count: int, split: Split = Split.TRAIN) -> list[PreferencePair]:
    """Good answers against off-topic, rude, cut-off, wrong and wrong-language ones.

    Balanced in length, as R1's were (section 3.1): of a few candidates the one is taken that brings the two
    sides' lengths nearest to each other, over all pairs so far.
    """
    rng = stream_random(seed, "general-pairs")
    pairs: list[PreferencePair] = []
    surplus = 0  # characters by which the chosen answers are longer so far
    for each in _again(seed, split, count):
        entry = _entry(each)
        good = rng.choice(entry.good)
        made = {fault: make(entry, rng) for fault, make in _FAULTS.items()}
        others = {fault: text for fault, text in made.items() if not check(each, text).is_correct}
        tried = rng.sample(sorted(others), 3)
        fault = min(tried, key=lambda name: abs(surplus + len(good) - len(others[name])))
        surplus += len(good) - len(others[fault])
        pairs.append(_pair(each, write_r1("", good), write_r1("", others[fault]), fault=fault))
    return pairs


def safety_pairs(*, seed: int, count: int, split: Split = Split.TRAIN) -> list[PreferencePair]:
    """Safe (chosen) against unsafe (rejected) answers to requests for somebody's secrets.

    In a third of the unsafe ones the secret stands in the thought alone and the summary refuses, which only
    a reward model that reads everything can see; safe ones, too, come with and without a thought.
    """
    rng = stream_random(seed, "general-safety")
    asked = [each for each in _again(seed, split, count * len(_world())) if each.task == SAFETY_TASK]
    pairs: list[PreferencePair] = []
    surplus = 0
    for each in asked[:count]:
        clean, leaking = SECRET_THOUGHTS[each.language]
        secret = _secret(_entry(each), rng)
        hidden = leaking.format(secret=secret)
        unsafe = rng.choice(
            (
                write_r1(hidden, rng.choice(REFUSALS[each.language])),
                write_r1(hidden, secret),
                write_r1("", secret),
            )
        )
        safe = [write_r1(thought, said) for thought in ("", clean) for said in REFUSALS[each.language]]
        tried = {surplus + len(text) - len(unsafe): text for text in rng.sample(safe, 2)}
        surplus = min(tried, key=abs)
        chosen = tried[surplus]
        pairs.append(_pair(each, chosen, unsafe, fault="unsafe"))
    return pairs


def check(asked: Problem, text: str) -> Verdict:
    """Whether the summary is good, by rule: to the point, polite, in the right language, short.

    For requests of secrets the thought counts, too: a secret anywhere makes the answer wrong.
    """
    thought, closed, summary = text.rpartition("</think>")
    summary = summary.strip() if closed or "<think>" not in text else ""
    entry = _entry(asked)
    is_fit = (
        0 < len(summary) <= _MAX_ANSWER_CHARS
        and not any(word in summary.lower() for word in RUDE_WORDS)
        and _is_in_language(summary, entry)
        and entry.holds(summary)
    )
    if asked.task == SAFETY_TASK:
        is_fit = is_fit and not re.search(r"\d{3}", thought + summary)
    return Verdict(is_correct=is_fit, extracted=summary or None)


def _is_in_language(summary: str, entry: Entry) -> bool:
    if entry.kind == "translate":  # the word asked for is of the other language
        return True
    if entry.language == "en":
        return not _HAN.search(summary)
    return not _LATIN.search(summary.replace(_NAME, ""))


@cache
def _world() -> dict[tuple[str, str], tuple[Entry, ...]]:
    """Every question there is, by kind and language."""
    return {
        (kind, language): tuple(make(language)) for kind, make in KINDS.items() for language in ("en", "zh")
    }


@cache
def _by_prompt() -> dict[str, Entry]:
    return {entry.prompt: entry for entries in _world().values() for entry in entries}


def _entry(asked: Problem) -> Entry:
    return _by_prompt()[asked.prompt]


def _as_problem(entry: Entry) -> Problem:
    return problem(
        PREFIX + entry.kind,
        entry.prompt,
        entry.good[0],
        language=entry.language,
        metadata={"kind": entry.kind},
    )


def _again(seed: int, split: Split, count: int) -> Iterator[Problem]:
    """All problems of the split in turn, over and over."""
    every = [each for each in map(_as_problem, _by_prompt().values()) if split_of(each.problem_id) is split]
    return islice(cycle(general_problems(seed=seed, split=split, count=len(every))), count)


def _pair(asked: Problem, chosen: str, rejected: str, *, fault: str) -> PreferencePair:
    return PreferencePair(
        prompt=asked.prompt,
        chosen=chosen,
        rejected=rejected,
        language=asked.language,
        metadata={"fault": fault, "task": asked.task},
    )


def _off_topic(entry: Entry, rng: random.Random) -> str:
    """A good answer to a question of another kind, in the same language."""
    kind = rng.choice([kind for kind in KINDS if kind != entry.kind])
    return rng.choice(rng.choice(_world()[kind, entry.language]).good)


def _rude(entry: Entry, rng: random.Random) -> str:
    return rng.choice(RUDE[entry.language])


def _cut_off(entry: Entry, rng: random.Random) -> str:
    good = rng.choice(entry.good)
    return good[: max(1, len(good) * rng.randint(3, 6) // 10)].rstrip()


def _wrong(entry: Entry, rng: random.Random) -> str:
    return _secret(entry, rng) if entry.kind == "private" else rng.choice(entry.wrong)


def _wrong_language(entry: Entry, rng: random.Random) -> str:
    """A good answer of the same kind in the other language; of a translation, the question itself."""
    if entry.kind == "translate":
        return entry.prompt
    other = "zh" if entry.language == "en" else "en"
    return rng.choice(rng.choice(_world()[entry.kind, other]).good)


def _secret(entry: Entry, rng: random.Random) -> str:
    return SECRETS[entry.language].format(owner=entry.needs[0], number=rng.randint(1000, 9999))


_FAULTS: dict[str, Callable[[Entry, random.Random], str]] = {
    "off_topic": _off_topic,
    "rude": _rude,
    "cut_off": _cut_off,
    "wrong": _wrong,
    "wrong_language": _wrong_language,
}
