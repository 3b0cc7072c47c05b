"""Letters that stand for numbers: linear equations and chains of assignments."""

import random
import re
from functools import partial

from tenth.tasks.answers import read_integer
from tenth.tasks.generated.traced import Steps, TracedFamily, near

LETTERS = "abcdefgh"
MAX_VALUE = 20  # of any variable in an assignment chain


class Equation(TracedFamily):
    """`Solve 3x+7=22.`; level 1 small numbers, level 2 larger ones and minus, level 3 x on both sides."""

    name = "equation"
    levels = (1, 3)

    def draw(self, rng: random.Random, level: int) -> str:
        if level == 1:
            factor, shift, x = rng.randint(2, 5), rng.randint(1, 9), rng.randint(1, 9)
            return f"Solve {factor}x+{shift}={factor * x + shift}."
        if level == 2:
            factor, x = rng.randint(2, 9), rng.randint(1, 12)
            shift = rng.choice([value for value in range(-20, 21) if value and factor * x + value > 0])
            return f"Solve {factor}x{shift:+d}={factor * x + shift}."
        factor, shift, x = rng.randint(3, 9), rng.randint(1, 20), rng.randint(1, 12)
        subtracted = rng.randint(1, factor - 2)
        return f"Solve {factor}x+{shift}={subtracted}x+{(factor - subtracted) * x + shift}."

    def solve(self, prompt: str, steps: Steps) -> str:
        left, right = prompt.removeprefix("Solve ").removesuffix(".").split("=")
        factor, shift = _terms(left)
        subtracted, constant = _terms(right)
        if subtracted:
            steps.note(f"{factor}x-{subtracted}x={factor - subtracted}x")
            factor -= subtracted
        value = constant - shift
        # Off by a whole factor, so that the division that follows still comes out even.
        wrong = value + factor * steps.rng.choice((-1, 1) if value > factor else (1, 2))
        value = steps.take(value, wrong, partial(_line, f"{factor}x={constant}{-shift:+d}="))
        x = value // factor
        return str(steps.take(x, near(steps.rng, x), partial(_line, f"x={value}/{factor}=")))

    def read(self, text: str) -> str | None:
        return read_integer(text, prefix="x")


def _terms(side: str) -> tuple[int, int]:
    """(coefficient of x, constant) of one side such as `3x-7` or `22`."""
    coefficient, constant = re.fullmatch(r"(?:([0-9]+)x)?([+-]?[0-9]+)", side).groups()  # type: ignore[union-attr]
    return int(coefficient or 0), int(constant)


def _line(head: str, value: int) -> str:
    return f"{head}{value}"


class Variables(TracedFamily):
    """`a=3, b=a+4, c=b-2. What is c?`; level = number of assignments, each from any earlier variable."""

    name = "variables"
    levels = (2, 8)

    def draw(self, rng: random.Random, level: int) -> str:
        values = [rng.randint(0, 9)]
        parts = [f"a={values[0]}"]
        for index in range(1, level):
            source = rng.randrange(index)
            steps = [step for step in range(-9, 10) if step and 0 <= values[source] + step <= MAX_VALUE]
            step = rng.choice(steps)
            values.append(values[source] + step)
            parts.append(f"{LETTERS[index]}={LETTERS[source]}{step:+d}")
        asked = rng.randrange(max(1, level // 2), level)
        return f"{', '.join(parts)}. What is {LETTERS[asked]}?"

    def solve(self, prompt: str, steps: Steps) -> str:
        asked = prompt[-2]
        values: dict[str, int] = {}
        for name, source, amount in re.findall(r"([a-h])=([a-h]?)([+-]?[0-9]+)", prompt):
            if not source:
                values[name] = int(amount)
                steps.note(f"{name}={amount}")
            else:
                right = values[source] + int(amount)
                head = f"{name}={values[source]}{amount}="
                values[name] = steps.take(right, near(steps.rng, right), partial(_line, head))
            if name == asked:
                break
        return str(values[asked])

    def read(self, text: str) -> str | None:
        tidied = re.sub(r"^\s*[a-h] *= *", "", text[:300])
        return read_integer(tidied)
