"""Judge a response by its instructions: strict and loose, per instruction and per prompt.

IFEval (Zhou et al., arXiv:2311.07911, section 2.2): strict takes the response as it is; loose also takes it
without markdown's asterisks, without its first or last line ("Sure, here it is:"), and any combination.
In:  a problem whose metadata has `instruction_id_list` and `kwargs`, and a response's text, no thinking.
Out: `Followed`, or a Verdict that is right where every instruction was followed strictly.
Not here: the kinds (kinds.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenth.base.records import Problem, Record, Verdict
from tenth.tasks.ifeval.kinds import KINDS, problem_with

INSTRUCTIONS, VALUES = "instruction_id_list", "kwargs"
MAX_CHARS = 200_000  # no response to such a prompt is a tenth as long
MAX_INSTRUCTIONS = 25  # the benchmark has up to three


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed(Record):
    """Which of a prompt's instructions were followed, in the prompt's order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def judge_instructions(problem: Problem, response: str) -> Followed:
    """Every instruction of a problem, both ways. An empty or enormous response follows none."""
    kinds: Sequence[str] = problem.metadata[INSTRUCTIONS]
    values = [_given(each) for each in problem.metadata[VALUES]]
    texts = [response, *_looser(response)] if len(response) <= MAX_CHARS else [""]
    strict, loose = [], []
    for kind, given in zip(kinds, values, strict=True):
        strict.append(_follows(texts[0], kind, given))
        loose.append(strict[-1] or any(_follows(text, kind, given) for text in texts[1:]))
    return Followed(strict=tuple(strict), loose=tuple(loose))


def check_instructions(problem: Problem, response: str) -> Verdict:
    """Right where all instructions were followed strictly."""
    followed = judge_instructions(problem, response).strict
    return Verdict(is_correct=all(followed), extracted=f"{sum(followed)} of {len(followed)} followed")


def problem_with_instructions(metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with the instructions of a row; None where they can be judged."""
    kinds, values = metadata.get(INSTRUCTIONS), metadata.get(VALUES)
    if not isinstance(kinds, list) or not 0 < len(kinds) <= MAX_INSTRUCTIONS:
        return f"'{INSTRUCTIONS}' is no list of 1 to {MAX_INSTRUCTIONS} instructions"
    if not isinstance(values, list) or len(values) != len(kinds):
        return f"'{VALUES}' is no list of {len(kinds)} objects, one for each instruction"
    if not all(isinstance(each, Mapping) for each in values):
        return f"'{VALUES}' holds something that is no object"
    found = (problem_with(kind, _given(each)) for kind, each in zip(kinds, values, strict=True))
    return next((each for each in found if each is not None), None)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the empty columns of those copies of the file that give every row all of them."""
    return {name: value for name, value in values.items() if value is not None}


def _follows(text: str, kind: str, given: Mapping[str, Any]) -> bool:
    wanted = KINDS[kind].values
    return bool(text.strip()) and KINDS[kind].follows(text, **{name: given[name] for name in wanted})


def _looser(response: str) -> list[str]:
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut[1:], *(text.replace("*", "") for text in cut)]
