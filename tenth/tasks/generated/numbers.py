"""Number theory in small: greatest common divisor, least common multiple, base two.

Working: Euclid's remainders; halving, with the bits so far behind each line.
"""

import random
import re
from functools import partial

from tenth.tasks.answers import read_integer, tidy
from tenth.tasks.generated.traced import Steps, TracedFamily, near

GCD_LIMIT = {1: 20, 2: 50, 3: 100, 4: 200}  # level -> largest number
LCM_LIMIT = {1: 12, 2: 20, 3: 30}


def _line(head: str, value: int) -> str:
    return f"{head}={value}"


def _euclid(larger: int, smaller: int, steps: Steps) -> int:
    while smaller:
        right = larger % smaller
        wrong = near(steps.rng, right, high=max(smaller - 1, right + 1))
        larger, smaller = smaller, steps.take(right, wrong, partial(_line, f"{larger}%{smaller}"))
    return larger


class Gcd(TracedFamily):
    """`What is gcd(84,36)?`; level = size. Pairs are drawn as multiples, so that few answers are 1."""

    name = "gcd"
    levels = (1, 4)

    def draw(self, rng: random.Random, level: int) -> str:
        limit = GCD_LIMIT[level]
        common = rng.randint(1, limit // 3)
        larger = rng.randint(3, limit // common)
        smaller = rng.randint(2, larger - 1)
        return f"What is gcd({larger * common},{smaller * common})?"

    def solve(self, prompt: str, steps: Steps) -> str:
        larger, smaller = (int(digits) for digits in re.findall(r"[0-9]+", prompt))
        return str(_euclid(larger, smaller, steps))

    def read(self, text: str) -> str | None:
        return read_integer(text)


class Lcm(TracedFamily):
    """`What is lcm(12,18)?`; level = size. Working: the gcd, one number divided by it, times the other."""

    name = "lcm"
    levels = (1, 3)

    def draw(self, rng: random.Random, level: int) -> str:
        first, second = rng.sample(range(2, LCM_LIMIT[level] + 1), 2)
        return f"What is lcm({first},{second})?"

    def solve(self, prompt: str, steps: Steps) -> str:
        smaller, larger = sorted(int(digits) for digits in re.findall(r"[0-9]+", prompt))
        common = _euclid(larger, smaller, steps)
        share = smaller // common
        share = steps.take(share, near(steps.rng, share, low=1), partial(_line, f"{smaller}/{common}"))
        result = share * larger
        return str(steps.take(result, near(steps.rng, result, low=1), partial(_line, f"{share}*{larger}")))

    def read(self, text: str) -> str | None:
        return read_integer(text)


class Binary(TracedFamily):
    """`Write 37 in base 2.`; level = number of bits."""

    name = "binary"
    levels = (3, 10)

    def draw(self, rng: random.Random, level: int) -> str:
        return f"Write {rng.randint(2 ** (level - 1), 2**level - 1)} in base 2."

    def solve(self, prompt: str, steps: Steps) -> str:
        value = int(prompt.split()[1])
        bits = ""
        while value:
            half, bit = divmod(value, 2)
            wrong = steps.rng.choice([(half, 1 - bit), (half + 1, bit)] if value > 3 else [(half, 1 - bit)])
            line = partial(_halving_line, value, bits)
            value, bit = steps.take((half, bit), wrong, line)
            bits = f"{bit}{bits}"
        return bits

    def read(self, text: str) -> str | None:
        tidied = tidy(text)
        if tidied is None or not re.fullmatch(r"(?:0b)?[01]{1,64}", tidied):
            return None
        return f"{int(tidied.removeprefix('0b'), 2):b}"


def _halving_line(value: int, bits: str, halved: tuple[int, int]) -> str:
    half, bit = halved
    return f"{value}={half}*2+{bit} {bit}{bits}"
