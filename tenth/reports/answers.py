"""The section of the report that shows what the models wrote.

Why: nothing convinces, or warns, like the answers themselves: the same problem before and after.
In:  `Facts`.  Out: `Html`; every character of model text is escaped.
Not here: which answers are chosen (pairs.py).
"""

import re

from tenth.reports.facts import Facts
from tenth.reports.markup import Html, element, join
from tenth.reports.pairs import Pair, pairs_of_run, rollouts_along_the_way
from tenth.reports.runs import TUNED_BY_REWARD, ZERO

PAIRS_PER_FAMILY = 1
ROLLOUTS_SHOWN = 6

_TAGS = re.compile(r"(</?(?:think|answer)>)")


def answers_section(facts: Facts) -> Html | None:
    """The same problems before and after, and rollouts along the way."""
    pairs = pairs_of_run(facts.run, per_family=PAIRS_PER_FAMILY)
    way = _rollouts(facts)
    if not pairs and way is None:
        return None
    note = (
        "One problem per family, the first in the order of content hashes, and its first stored sample: "
        "chosen without looking at who was right."
    )
    return join(
        [
            element("h2", "Before and after"),
            element("p", note, class_="note") if pairs else None,
            *(_pair(pair) for pair in pairs),
            way,
        ]
    )


def show_text(text: str) -> Html:
    """Model text as it is, thinking dimmed; everything is escaped."""
    pieces, is_thinking = [], False
    for piece in _TAGS.split(text):
        if _TAGS.fullmatch(piece):
            is_thinking = piece == "<think>" or (is_thinking and piece != "</think>")
            pieces.append(element("span", piece, class_="tag"))
        elif piece:
            pieces.append(element("span", piece, class_="think") if is_thinking else element("span", piece))
    return element("pre", *pieces)


def _pair(pair: Pair) -> Html:
    sides = [
        element(
            "div",
            element("div", element("span", who), mark(sample.is_correct), class_="who"),
            show_text(sample.text),
            class_="side",
        )
        for who, sample in (("base, sampled", pair.before), ("R1-Zero", pair.after))
    ]
    asked = f"{pair.before.family}, level {pair.before.level} · a right answer: {pair.before.answer}"
    prompt = element("div", element("div", asked, class_="note"), pair.before.prompt, class_="prompt")
    return element("div", prompt, element("div", *sides, class_="sides"), class_="pair")


def _rollouts(facts: Facts) -> Html | None:
    stage = facts.run.stage(ZERO) or facts.run.stage(TUNED_BY_REWARD)
    rollouts = rollouts_along_the_way(stage.rollout_files(), count=ROLLOUTS_SHOWN) if stage else []
    if not rollouts:
        return None
    shown = [
        element(
            "div",
            element(
                "div",
                element(
                    "div",
                    f"step {r.policy_step} · {r.task}, level {r.level} · reward {r.reward:.2f}",
                    class_="note",
                ),
                r.prompt,
                class_="prompt",
            ),
            element("div", show_text(r.text), class_="side"),
            class_="pair",
        )
        for r in rollouts
    ]
    return element(
        "details", element("summary", "Rollouts along the way: the first one stored in some steps"), *shown
    )


def mark(is_correct: bool) -> Html:
    """Right or wrong, in a word."""
    return element("span", "right" if is_correct else "wrong", class_="good" if is_correct else "bad")
