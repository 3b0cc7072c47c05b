"""Arithmetic families: chains of one-digit terms, long multiplication, chains of operations modulo ten.

Working: chain_sum rewrites what is left of the expression; product multiplies digit by digit from the right
(product with carry, then the digits so far); modular keeps only the last digit.
"""

import random
import re
from functools import partial

from tenth.base.records import Problem
from tenth.tasks.answers import read_integer
from tenth.tasks.generated.traced import Steps, TracedFamily, near, other


class _Integer(TracedFamily):
    def read(self, text: str) -> str | None:
        return read_integer(text)


class ChainSum(_Integer):
    """`What is 3+5-2+9?`; level = number of terms; every running total stays in 0..99."""

    name = "chain_sum"
    levels = (2, 12)

    def draw(self, rng: random.Random, level: int) -> str:
        total = rng.randint(0, 9)
        text = str(total)
        for _ in range(level - 1):
            term = rng.randint(0, 9)
            signs = [sign for sign in (1, -1) if 0 <= total + sign * term <= 99]
            sign = rng.choice(signs)
            total += sign * term
            text += ("+" if sign > 0 else "-") + str(term)
        return f"What is {text}?"

    def solve(self, prompt: str, steps: Steps) -> str:
        expression = prompt.removeprefix("What is ").removesuffix("?")
        first, *rest = re.findall(r"[+-]?[0-9]", expression)
        total = int(first)
        steps.note(expression)
        for position, term in enumerate(rest, start=1):
            right = total + int(term)
            total = steps.take(right, near(steps.rng, right), partial(_before, "".join(rest[position:])))
        return str(total)


def _before(rest: str, total: int) -> str:
    return f"{total}{rest}"


class Product(_Integer):
    """`What is 347*6?`; level = digits of the left factor."""

    name = "product"
    levels = (1, 4)

    def draw(self, rng: random.Random, level: int) -> str:
        return f"What is {rng.randint(10 ** (level - 1), 10**level - 1)}*{rng.randint(2, 9)}?"

    def solve(self, prompt: str, steps: Steps) -> str:
        left, factor = re.findall(r"[0-9]+", prompt)
        low, carry = "", 0
        for place, digit in enumerate(reversed(left)):
            is_last = place == len(left) - 1
            head = f"{digit}*{factor}" + (f"+{carry}" if place else "")
            right = int(digit) * int(factor) + carry
            line = partial(_multiplication_line, head, low, is_last)
            total = steps.take(right, near(steps.rng, right, low=1, high=99), line)
            low = _digits_so_far(total, low, is_last)
            carry = total // 10
        return low


def _digits_so_far(total: int, low: str, is_last: bool) -> str:
    return f"{total if is_last else total % 10}{low}"


def _multiplication_line(head: str, low: str, is_last: bool, total: int) -> str:
    return f"{head}={total} {_digits_so_far(total, low, is_last)}"


class Modular(_Integer):
    """`Start at 7. +4 *3 -5, mod 10?`; level = number of operations.

    Factors are 3, 7 and 9, which no power of two or five divides: every operation is then a permutation of
    the ten digits, so the answer is uniform and a mistake can never be forgotten by a later step.
    """

    name = "modular"
    levels = (2, 10)

    def draw(self, rng: random.Random, level: int) -> str:
        operations = []
        for _ in range(level):
            sign = rng.choice("+-*")
            operations.append(sign + str(rng.choice((3, 7, 9)) if sign == "*" else rng.randint(1, 9)))
        return f"Start at {rng.randint(0, 9)}. {' '.join(operations)}, mod 10?"

    def solve(self, prompt: str, steps: Steps) -> str:
        start, operations = re.findall(r"Start at ([0-9])\. (.*), mod 10", prompt)[0]
        value = int(start)
        for operation in operations.split():
            amount = int(operation[1:])
            outcomes = {"+": value + amount, "-": value - amount, "*": value * amount}
            right = outcomes[operation[0]] % 10
            wrong = other(steps.rng, right, tuple(range(10)))
            value = steps.take(right, wrong, partial(_equals, f"{value}{operation}"))
        return str(value)

    def chance(self, problem: Problem) -> float:  # noqa: ARG002
        return 0.1


def _equals(head: str, value: int) -> str:
    return f"{head}={value}"
