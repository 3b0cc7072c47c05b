"""Answers -> preference pairs that a model judged: what a helpful reward model learns from.

Why: DeepSeek-R1 (arXiv:2501.12948v2) B.3.1 makes its pairs so: four judgments each, averaged, kept where the
margin is larger than 1, and the chosen answers about as long as the rejected ones, or "longer is better" is
what is learnt.
In:  rows with `prompt` and `answers` (each is compared with the next one), `first` and `second`, or `chosen`
and `rejected`, to be judged anew; a `Responder` that judges.
Out: PAIRS.jsonl as data/preferences.py reads it, with `margin` and `lineage`; PAIRS.card.json: how many were
asked, kept and dropped why, how long they are, what they cost.
What a helpful reward model sees is what is judged: the final summary (reward_scorer.py), not the thinking.
Not here: one judgment (rollout/llm_judge.py), learning from them (reward_run.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any

from tenth.base.errors import BudgetExceeded, ConfigError, DataError, RunError
from tenth.base.files import file_hash, read_lines, text_hash, write_json, write_lines
from tenth.base.records import AskParams, Message, PreferencePair, Reply
from tenth.base.seeds import stream_random
from tenth.data.conversations import last_text, prompt_messages
from tenth.data.preferences import pair_of, unusable
from tenth.data.rows import Row, read_rows
from tenth.rollout.llm_judge import Comparison, JudgedPair, judge_pairs, preference_pairs
from tenth.rollout.responder import Responder
from tenth.tokenizer.chat import split_thinking

_LOCAL_PAIRS = 64  # of one part of a local judge's work, which is kept whole
_REPEATED, _NO_VERDICT, _BALANCE = "the same pair again", "no verdict", "balance of lengths"
_SHOWN_CHARS = 80
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """Which pairs are kept."""

    min_margin: float = 1.0  # points of 10; the paper's
    judgments: int = 4  # of a pair, half in each order; the paper's
    is_balanced: bool = True  # the longer answer wins as often as the shorter one

    def __post_init__(self) -> None:
        if not 0 <= self.min_margin < 9:
            raise ConfigError(
                f"--margin {self.min_margin:g} must be from 0 to below 9, the largest there is."
            )
        if not 2 <= self.judgments <= 64 or self.judgments % 2:
            raise ConfigError(
                f"--judgments {self.judgments} must be an even number from 2 to 64: half of them see the "
                "answers in the other order."
            )

    @property
    def margin_rule(self) -> str:
        """Its name in the card."""
        return f"margin of {self.min_margin:g} or less"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Two answers as the file has them, and as the judge sees them."""

    pair: PreferencePair
    comparison: Comparison
    model: str  # who wrote the answers, as far as the row says


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a file has to compare, and how many pairs it has that nobody needs to be asked about."""

    path: Path
    candidates: tuple[Candidate, ...]
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A pair with its better answer as `chosen`."""

    pair: PreferencePair
    lengths: tuple[int, int]  # characters of the summaries: chosen, rejected
    is_first: bool  # the better one stood first in the file

    @property
    def longer_by(self) -> int:
        """The chosen one."""
        return self.lengths[0] - self.lengths[1]


class _Metered:
    """A responder that remembers what its replies cost, now or when they were first given."""

    def __init__(self, responder: Responder) -> None:
        self.name, self._responder = responder.name, responder
        self.usd = 0.0

    def respond(self, conversations: Sequence[Sequence[Message]], params: AskParams) -> list[list[Reply]]:
        """The same."""
        groups = self._responder.respond(conversations, params)
        self.usd += sum(reply.usd for group in groups for reply in group)
        return groups


def card_path(out: Path) -> Path:
    """Beside the pairs."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.card.json")


def require_own(out: Path) -> None:
    """Refuse to write over a file that is not the result of this command."""
    if out.suffix != ".jsonl":
        raise ConfigError(f"--out {out} becomes JSON lines; give it a name that ends with .jsonl.")
    if out.exists() and not card_path(out).exists():
        raise ConfigError(f"{out} exists and was not written by `tenth judge-pairs`; choose another --out.")


def make_pairs(
    answers: Answers,
    responder: Responder,
    settings: PairSettings,
    *,
    out: Path,
    identity: str,
    keep: Path | None,
    at_once: int,
    tell: Tell = lambda _done, _total: None,
) -> dict[str, Any]:
    """Judge, choose, write; the card. `keep`: where judgments of a judge that costs time, not money, stay."""
    dropped, judge = Counter(answers.dropped), _Metered(responder)
    judged = _judge(answers, judge, settings, identity=identity, keep=keep, at_once=at_once, tell=tell)
    preferred = _choose(answers, judged, settings, dropped, judge_name=responder.name)
    kept = _balanced(preferred) if settings.is_balanced else preferred
    dropped[_BALANCE] += len(preferred) - len(kept)
    if not kept:
        raise _nothing_left(answers, dropped, judged, judge_name=responder.name)
    card = {
        "answers": {"file": answers.path.name, "hash": file_hash(answers.path)},
        "judge": {"name": responder.name, "identity": identity, "usd": judge.usd},
        "settings": {
            "margin": settings.min_margin,
            "judgments": settings.judgments,
            "balance_length": settings.is_balanced,
        },
        "pairs": len(answers.candidates) + sum(answers.dropped.values()),
        "asked": len(answers.candidates),
        "kept": len(kept),
        "dropped": {rule: count for rule, count in dropped.most_common() if count},
        "longer_wins_before_balance": _longer_wins(preferred),
        "longer_wins": _longer_wins(kept),
        "mean_chosen_chars": fmean(one.lengths[0] for one in kept),
        "mean_rejected_chars": fmean(one.lengths[1] for one in kept),
        "first_or_chosen_wins": fmean(one.is_first for one in preferred),
    }
    write_json(card_path(out), card)  # first, so that no pairs are without one
    write_lines(out, (_row(one.pair, settings) for one in kept))
    return card


def read_answers(path: Path) -> Answers:
    """Every comparison of the file that can be judged; the others are counted."""
    found: dict[tuple[str, frozenset[str]], Candidate] = {}
    dropped: Counter[str] = Counter()
    for writer, pair in ((_writer(row), pair) for row in read_rows(path) for pair in _pairs(row)):
        first, second = (split_thinking(text).answer.strip() for text in (pair.chosen, pair.rejected))
        rule = unusable(replace(pair, chosen=first, rejected=second))
        key = (pair.prompt, frozenset((first, second)))
        if rule or key in found:
            dropped[rule or _REPEATED] += 1
            continue
        comparison = Comparison(prompt=pair.prompt, first=first, second=second, language=pair.language)
        found[key] = Candidate(pair=pair, comparison=comparison, model=writer)
    if not found:
        why = ", ".join(f"{rule} {count:,}" for rule, count in dropped.most_common())
        raise DataError(
            f"{path} holds no two answers to compare ({why or 'it has no row'}); each row needs prompt, and "
            "answers (two or more), first and second, or chosen and rejected."
        )
    return Answers(path=path, candidates=tuple(found.values()), dropped=dropped)


def _pairs(row: Row) -> Iterator[PreferencePair]:
    """Each answer with the next one; those of an existing pair as they stand."""
    values = row.values
    if values.get("answers") is not None:
        given = values["answers"]
        if not isinstance(given, list) or len(given) < 2:
            raise row.error("'answers' must be a list of two or more; mend or remove the row.")
        named = {f"answers[{number}]": each for number, each in enumerate(given)}
    elif values.get("first") is not None or values.get("second") is not None:
        named = {name: values.get(name) for name in ("first", "second")}
    elif values.get("chosen") is not None or values.get("rejected") is not None:
        yield pair_of(row)
        return
    else:
        raise row.error(
            f"no answers to compare (fields: {sorted(values)}); a row needs answers (two or more), first and "
            "second, or chosen and rejected: rename the columns."
        )
    prompt_messages(row)  # says what is missing
    texts = [last_text(Row(place=row.place, values=named), field=name) for name in named]
    for first, second in pairwise(texts):
        yield pair_of(Row(place=row.place, values={**values, "chosen": first, "rejected": second}))


def _writer(row: Row) -> str:
    lineage = row.values.get("lineage")
    known = lineage.get("model") if isinstance(lineage, dict) else None
    return str(known or row.values.get("model") or "unknown")[:_SHOWN_CHARS]


def _judge(
    answers: Answers,
    judge: _Metered,
    settings: PairSettings,
    *,
    identity: str,
    keep: Path | None,
    at_once: int,
    tell: Tell,
) -> list[JudgedPair]:
    """All of them, part by part."""
    found: list[JudgedPair] = []
    candidates = answers.candidates
    size = at_once if keep is None else _LOCAL_PAIRS
    tell(0, len(candidates))
    for start in range(0, len(candidates), size):
        asked = [each.comparison for each in candidates[start : start + size]]
        texts = [text for each in asked for text in (each.prompt, each.first, each.second)]
        key = text_hash(identity, str(settings.judgments), *texts)
        path = None if keep is None else keep / f"{key}.jsonl"
        if path is not None and path.exists():
            found += _kept_part(path, asked)
        else:
            try:
                part = judge_pairs(judge, asked, judgments_per_order=settings.judgments // 2)
            except BudgetExceeded as error:
                raise RunError(
                    f"the budget is spent with about {len(found):,} of {len(candidates):,} pairs judged, and "
                    "nothing is written yet; all replies are kept: repeat the command with a larger --budget."
                ) from error
            if path is not None:
                write_lines(path, ((each.margin, each.num_judgments, each.error) for each in part))
            found += part
        tell(len(found), len(candidates))
    return found


def _kept_part(path: Path, asked: Sequence[Comparison]) -> list[JudgedPair]:
    rows = [row for _, row in read_lines(path)]
    if len(rows) != len(asked) or not all(map(_is_judgment, rows)):
        raise RunError(f"{path} is damaged; remove it, and its {len(asked)} pairs are judged again.")
    return [
        JudgedPair(comparison=each, margin=row[0], num_judgments=row[1], error=row[2])
        for each, row in zip(asked, rows, strict=True)
    ]


def _is_judgment(row: Any) -> bool:
    kinds = ((float, NoneType), (int,), (str, NoneType))
    return (
        isinstance(row, list)
        and [type(each) in kind for each, kind in zip(row, kinds, strict=False)] == [True] * 3
    )


def _choose(
    answers: Answers,
    judged: Sequence[JudgedPair],
    settings: PairSettings,
    dropped: Counter[str],
    *,
    judge_name: str,
) -> list[_Kept]:
    """Those with a large enough margin, their better answer chosen; the others are counted."""
    found = []
    for each, verdict in zip(answers.candidates, judged, strict=True):
        lineage = {"model": each.model}
        made = preference_pairs([verdict], judge=judge_name, lineage=lineage, min_margin=settings.min_margin)
        if not made:
            dropped[_NO_VERDICT if verdict.margin is None else settings.margin_rule] += 1
            continue
        is_first = made[0].chosen == each.comparison.first
        whole = (each.pair.chosen, each.pair.rejected)  # with their thinking
        chosen, rejected = whole if is_first else whole[::-1]
        pair = replace(
            each.pair, chosen=chosen, rejected=rejected, metadata={**each.pair.metadata, **made[0].metadata}
        )
        found.append(
            _Kept(pair=pair, lengths=(len(made[0].chosen), len(made[0].rejected)), is_first=is_first)
        )
    return found


def _balanced(pairs: Sequence[_Kept]) -> list[_Kept]:
    """As many whose longer answer won as whose shorter one did: the surplus goes, drawn at random."""
    longer, shorter = (
        [place for place, one in enumerate(pairs) if sign * one.longer_by > 0] for sign in (1, -1)
    )
    more, fewer = (longer, shorter) if len(longer) > len(shorter) else (shorter, longer)
    surplus = set(stream_random(0, "balance-length").sample(more, len(more) - len(fewer)))
    return [one for place, one in enumerate(pairs) if place not in surplus]


def _longer_wins(pairs: Sequence[_Kept]) -> float | None:
    """How often, among answers of unequal length."""
    unequal = [one.longer_by > 0 for one in pairs if one.longer_by]
    return fmean(unequal) if unequal else None


def _row(pair: PreferencePair, settings: PairSettings) -> dict[str, Any]:
    """A conversation of several turns is written as one."""
    lineage = pair.metadata["lineage"]
    filters = [*lineage["filters"], *([_BALANCE] if settings.is_balanced else [])]
    return {
        "prompt": pair.metadata.get("messages", pair.prompt),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "margin": pair.metadata["margin"],
        "lineage": {**lineage, "filters": filters},
    }


def _nothing_left(
    answers: Answers, dropped: Counter[str], judged: Sequence[JudgedPair], *, judge_name: str
) -> RunError:
    """Which rule dropped how many, and what may be done about the one that dropped most."""
    rules = [(rule, count) for rule, count in dropped.most_common() if count]
    why = next((each.error for each in judged if each.margin is None and each.error), "").rstrip(".")
    advice = {
        _NO_VERDICT: f"of {judge_name} is said: {why}; mend that, or choose another --judge",
        _BALANCE: "all longer or all shorter answers won; --no-balance-length keeps them",
    }.get(rules[0][0], "give more pairs, or a smaller --margin")
    listed = ", ".join(f"{rule} {count:,}" for rule, count in rules)
    return RunError(
        f"no pair of the {dropped.total():,} in {answers.path} is left (dropped: {listed}): {advice}."
    )
