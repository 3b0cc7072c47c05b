"""Logic and state: truth values, a hidden order, cups that change places.

Working: the formula rewritten one operator at a time; the order from its smallest member upward; the row of
cups after each swap.
"""

import itertools
import random
import re
from functools import partial

from tenth.base.records import Problem
from tenth.tasks.answers import read_choice
from tenth.tasks.generated.traced import Steps, TracedFamily, other

CUPS = tuple("abcde")
PEOPLE = "abcdefghijklmnop"


class Boolean(TracedFamily):
    """`Left to right: T and F or not T?`; level = number of operators; T and F are equally likely."""

    name = "boolean"
    levels = (2, 8)

    def draw(self, rng: random.Random, level: int) -> str:
        wanted = rng.choice("TF")
        while True:
            words = _formula(rng, level)
            prompt = f"Left to right: {' '.join(words)}?"
            if self.solve(prompt, Steps(rng)) == wanted:
                return prompt

    def solve(self, prompt: str, steps: Steps) -> str:
        words = prompt.removeprefix("Left to right: ").removesuffix("?").split()
        steps.note(" ".join(words))
        while len(words) > 1:
            start, end = _next_reduction(words)
            right = _truth(words[start:end])
            wrong = "F" if right == "T" else "T"
            value = steps.take(right, wrong, partial(_rewritten, words[:start], words[end:]))
            words = [*words[:start], value, *words[end:]]
        return words[0]

    def read(self, text: str) -> str | None:
        return read_choice(text, choices=("T", "F"))

    def chance(self, problem: Problem) -> float:  # noqa: ARG002
        return 0.5


def _formula(rng: random.Random, num_operators: int) -> list[str]:
    """Truth values joined by and/or, some with a `not` before them, `num_operators` words in all."""
    num_nots = rng.randint(0, num_operators // 2)
    num_joins = num_operators - num_nots
    negated = set(rng.sample(range(num_joins + 1), num_nots))
    words: list[str] = []
    for index in range(num_joins + 1):
        words += [rng.choice(("and", "or"))] if index else []
        words += ["not"] if index in negated else []
        words.append(rng.choice("TF"))
    return words


def _next_reduction(words: list[str]) -> tuple[int, int]:
    """The slice to replace next: a leading `not X`, a `not X` after the first operator, else `X op Y`."""
    if words[0] == "not":
        return 0, 2
    return (2, 4) if words[2] == "not" else (0, 3)


def _truth(words: list[str]) -> str:
    if len(words) == 2:
        return "F" if words[1] == "T" else "T"
    values = (words[0] == "T", words[2] == "T")
    return "T" if (all(values) if words[1] == "and" else any(values)) else "F"


def _rewritten(before: list[str], after: list[str], value: str) -> str:
    return " ".join([*before, value, *after])


class Ordering(TracedFamily):
    """`Small to big: a<c, b<a. Who is at 2?`; level = how many; working climbs from the smallest."""

    name = "ordering"
    levels = (3, 7)

    def draw(self, rng: random.Random, level: int) -> str:
        order = rng.sample(PEOPLE, level)
        facts = [f"{small}<{big}" for small, big in itertools.pairwise(order)]
        rng.shuffle(facts)
        return f"Small to big: {', '.join(facts)}. Who is at {rng.randint(1, level)}?"

    def solve(self, prompt: str, steps: Steps) -> str:
        next_of = dict(re.findall(r"([a-p])<([a-p])", prompt))
        people = sorted(set(next_of) | set(next_of.values()))
        smallest = next(person for person in next_of if person not in next_of.values())
        person = smallest
        for place in range(1, int(prompt[-2]) + 1):
            right = smallest if place == 1 else next_of.get(person, smallest)
            person = steps.take(right, other(steps.rng, right, people), partial(_place_line, place))
        return person

    def read(self, text: str) -> str | None:
        return read_choice(text, choices=tuple(PEOPLE))

    def chance(self, problem: Problem) -> float:
        return 1 / (problem.prompt.count("<") + 1)


def _place_line(place: int, person: str) -> str:
    return f"{place} {person}"


class Swaps(TracedFamily):
    """`Cups a b c d e. Swap 1 3, 2 5. Which cup is at 2?`; level = number of swaps."""

    name = "swaps"
    levels = (2, 10)

    def draw(self, rng: random.Random, level: int) -> str:
        pairs = (sorted(rng.sample(range(1, 6), 2)) for _ in range(level))
        text = ", ".join(f"{first} {second}" for first, second in pairs)
        return f"Cups a b c d e. Swap {text}. Which cup is at {rng.randint(1, 5)}?"

    def solve(self, prompt: str, steps: Steps) -> str:
        cups: tuple[str, ...] = CUPS
        for first, second in re.findall(r"([1-5]) ([1-5])", prompt):
            right = _swapped(cups, int(first), int(second))
            slipped = sorted(steps.rng.sample(range(1, 6), 2))
            if slipped == [int(first), int(second)]:
                slipped = [1, 2] if slipped != [1, 2] else [1, 3]
            wrong = _swapped(cups, *slipped)
            cups = steps.take(right, wrong, partial(_cups_line, f"{first} {second}"))
        cup = cups[int(prompt[-2]) - 1]
        return steps.take(cup, other(steps.rng, cup, CUPS), partial(_cups_line, f"at {prompt[-2]}"))

    def read(self, text: str) -> str | None:
        return read_choice(text, choices=CUPS)

    def chance(self, problem: Problem) -> float:  # noqa: ARG002
        return 1 / len(CUPS)


def _swapped(cups: tuple[str, ...], first: int, second: int) -> tuple[str, ...]:
    row = list(cups)
    row[first - 1], row[second - 1] = row[second - 1], row[first - 1]
    return tuple(row)


def _cups_line(head: str, cups: tuple[str, ...] | str) -> str:
    return f"{head}: {' '.join(cups)}"
