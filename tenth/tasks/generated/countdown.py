"""Countdown: reach a target with each number exactly once and + - *.

Working: a few tries that miss, then the one that hits. The checker parses an expression with `ast` and adds it
up itself: only small numbers, + - * and brackets exist for it.
"""

import ast
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

from tenth.base.records import Problem, Verdict
from tenth.tasks.answers import tidy
from tenth.tasks.generated.traced import Steps, TracedFamily, near

MAX_TARGET = 99
MAX_EXPRESSION_CHARS = 60
MAX_MISSES = 3


class Countdown(TracedFamily):
    """`Make 16 from 3 5 8 with + - *.`; level = how many numbers."""

    name = "countdown"
    levels = (2, 4)

    def draw(self, rng: random.Random, level: int) -> str:
        while True:
            numbers = [rng.randint(1, 9) for _ in range(level)]
            target = _value(tuple(numbers), tuple(rng.choice("+-*") for _ in range(level - 1)))
            if 1 <= target <= MAX_TARGET:
                rng.shuffle(numbers)
                return f"Make {target} from {' '.join(map(str, numbers))} with + - *."

    def solve(self, prompt: str, steps: Steps) -> str:
        target, *numbers = (int(digits) for digits in re.findall(r"[0-9]+", prompt))
        hits: list[str] = []
        misses: dict[str, int] = {}
        for expression, value in _all_expressions(numbers):
            if value == target:
                hits.append(expression)
            else:
                misses[expression] = value
        # Two different values always exist (a+b and a-b), so there is at least one miss.
        num_misses = min(len(misses), steps.rng.randint(1, MAX_MISSES))
        for expression in steps.rng.sample(list(misses), num_misses):
            value = misses[expression]
            if steps.take(value, target, partial(_line, expression)) == target:
                return expression  # the slip: a miss taken for a hit
        hit = steps.rng.choice(hits)
        steps.take(target, near(steps.rng, target), partial(_line, hit))
        return hit

    def read(self, text: str) -> str | None:
        tidied = tidy(text)
        return re.sub(r"\s*=\s*[0-9]{1,4}$", "", tidied) if tidied is not None else None

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        target, *numbers = (int(digits) for digits in re.findall(r"[0-9]+", problem.prompt))
        expression = self.read(answer_text)
        reading = parse_expression(expression) if expression is not None else None
        if reading is None:
            return Verdict(is_correct=False)
        value, used = reading
        return Verdict(is_correct=value == target and used == Counter(numbers), extracted=expression)


def _line(expression: str, value: int) -> str:
    return f"{expression}={value}"


def _value(numbers: tuple[int, ...], operators: tuple[str, ...]) -> int:
    """The value with the usual precedence: products first."""
    total, product = 0, numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        if operator == "*":
            product *= number
        else:
            total, product = total + product, number if operator == "+" else -number
    return total + product


def _all_expressions(numbers: list[int]) -> Iterator[tuple[str, int]]:
    """Every bracket-free expression over every order of the numbers, with its value."""
    for order in sorted(set(itertools.permutations(numbers))):
        for operators in itertools.product("+-*", repeat=len(numbers) - 1):
            tail = "".join(
                f"{operator}{number}" for operator, number in zip(operators, order[1:], strict=True)
            )
            yield f"{order[0]}{tail}", _value(order, operators)


def parse_expression(text: str) -> tuple[int, Counter[int]] | None:
    """(value, numbers used) of an expression of small numbers, + - * and brackets; None for anything else."""
    if len(text) > MAX_EXPRESSION_CHARS or not re.fullmatch(r"[0-9+\-* ()]+", text) or "**" in text:
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    used: Counter[int] = Counter()
    value = _evaluate(tree.body, used)
    return None if value is None else (value, used)


def _evaluate(node: ast.expr, used: Counter[int]) -> int | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value < 10_000:
        used[node.value] += 1
        return node.value
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _evaluate(node.left, used), _evaluate(node.right, used)
    if left is None or right is None:
        return None
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
    return None
