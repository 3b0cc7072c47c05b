"""Rows of digits and letters: sort, reverse, count, shift.

Working copies the row and changes one item per line. Digits stand without spaces (the tokenizer splits them
anyway), letters with a space before each, so that one letter is one token wherever it stands.
"""

import random
import re
import string
from functools import partial

from tenth.base.records import Problem
from tenth.tasks.answers import read_integer, read_items
from tenth.tasks.generated.traced import Steps, TracedFamily, near, other

ALPHABET = string.ascii_lowercase


class Sort(TracedFamily):
    """`Sort 5 3 9 1 7.`; level = how many digits. Working: the smallest, then what is left."""

    name = "sort"
    levels = (3, 12)

    def draw(self, rng: random.Random, level: int) -> str:
        return f"Sort {' '.join(str(rng.randint(0, 9)) for _ in range(level))}."

    def solve(self, prompt: str, steps: Steps) -> str:
        left = re.findall(r"[0-9]", prompt)
        picked: list[str] = []
        while left:
            smallest = min(left)
            not_smallest = [digit for digit in left if digit != smallest]
            wrong = steps.rng.choice(not_smallest) if not_smallest else str((int(smallest) + 1) % 10)
            pick = steps.take(smallest, wrong, partial(_selection_line, left))
            left = _without(left, pick)
            picked.append(pick)
        steps.note(" ".join(picked))
        return " ".join(picked)

    def read(self, text: str) -> str | None:
        return read_items(text)


def _without(left: list[str], pick: str) -> list[str]:
    index = left.index(pick) if pick in left else 0
    return left[:index] + left[index + 1 :]


def _selection_line(left: list[str], pick: str) -> str:
    rest = "".join(_without(left, pick))
    return f"{pick},{rest}" if rest else pick


class Reverse(TracedFamily):
    """`Reverse b k a e.`; level = letters, all different. Working: the last letter moves over."""

    name = "reverse"
    levels = (3, 10)

    def draw(self, rng: random.Random, level: int) -> str:
        return f"Reverse {' '.join(rng.sample(ALPHABET, level))}."

    def solve(self, prompt: str, steps: Steps) -> str:
        letters = prompt.removeprefix("Reverse ").removesuffix(".").split()
        moved: list[str] = []
        for end in range(len(letters) - 1, -1, -1):
            line = partial(_moving_line, letters[:end], moved)
            moved = [*moved, steps.take(letters[end], other(steps.rng, letters[end], letters), line)]
        return " ".join(moved)

    def read(self, text: str) -> str | None:
        return read_items(text)


def _moving_line(left: list[str], moved: list[str], letter: str) -> str:
    return " ".join([*left, ",", *moved, letter]) if left else " ".join([*moved, letter])


class LetterCount(TracedFamily):
    """`Count b in a b b c.`; level = letters. Every count from none to all is equally likely."""

    name = "letter_count"
    levels = (3, 12)

    def draw(self, rng: random.Random, level: int) -> str:
        wanted, *others = rng.sample(ALPHABET[:8], 4)
        count = rng.randint(0, level)
        row = [wanted] * count + [rng.choice(others) for _ in range(level - count)]
        rng.shuffle(row)
        return f"Count {wanted} in {' '.join(row)}."

    def solve(self, prompt: str, steps: Steps) -> str:
        _, wanted, _, *row = prompt.removesuffix(".").split()
        count = 0
        for letter in row:
            right = count + (letter == wanted)
            count = steps.take(right, near(steps.rng, right), partial(_pair_line, letter))
        return str(count)

    def read(self, text: str) -> str | None:
        return read_integer(text)

    def chance(self, problem: Problem) -> float:
        return 1 / (len(problem.prompt.split()) - 2)


def _pair_line(letter: str, value: object) -> str:
    return f"{letter} {value}"


class WordShift(TracedFamily):
    """`Shift b k a by 2.`; level = letters, all different; z is followed by a."""

    name = "word_shift"
    levels = (3, 10)

    def draw(self, rng: random.Random, level: int) -> str:
        return f"Shift {' '.join(rng.sample(ALPHABET, level))} by {rng.randint(1, 3)}."

    def solve(self, prompt: str, steps: Steps) -> str:
        _, *letters, _, amount = prompt.removesuffix(".").split()
        shifted = []
        for letter in letters:
            place = ALPHABET.index(letter)
            right = ALPHABET[(place + int(amount)) % 26]
            wrong = ALPHABET[(place + int(amount) + steps.rng.choice((-1, 1))) % 26]
            shifted.append(steps.take(right, wrong, partial(_pair_line, letter)))
        steps.note(" ".join(shifted))
        return " ".join(shifted)

    def read(self, text: str) -> str | None:
        return read_items(text)
