"""Countdown: reach a target with each number exactly once and + - *.

Working: a few tries that miss, then the one that hits. The checker parses an expression with `ast` and adds
it up itself: only small numbers, + - * and brackets exist for it.
"""

import ast
import random
import re
from collections import Counter
from collections.abc import Sequence
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
            target = _value(numbers, rng.choices("+-*", k=level - 1))
            if 1 <= target <= MAX_TARGET:
                rng.shuffle(numbers)
                return f"Make {target} from {' '.join(map(str, numbers))} with + - *."

    def solve(self, prompt: str, steps: Steps) -> str:
        target, *numbers = (int(digits) for digits in re.findall(r"[0-9]+", prompt))
        hit, misses = _search(numbers, target, steps.rng)
        for expression, value in misses[: steps.rng.randint(1, MAX_MISSES)]:
            if steps.take(value, target, partial(_line, expression)) == target:
                return expression  # the slip: a miss taken for a hit
        steps.take(target, near(steps.rng, target), partial(_line, hit))
        return hit

    def read(self, text: str) -> str | None:
        return tidy(text)

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        target, *numbers = (int(digits) for digits in re.findall(r"[0-9]+", problem.prompt))
        tidied = self.read(answer_text)
        if tidied is None:
            return Verdict(is_correct=False)
        expression = re.sub(rf"\s*=\s*{target}$", "", tidied)
        reading = parse_expression(expression)
        if reading is None:
            return Verdict(is_correct=False)
        value, used = reading
        return Verdict(is_correct=value == target and used == Counter(numbers), extracted=expression)


def _search(numbers: list[int], target: int, rng: random.Random) -> tuple[str, list[tuple[str, int]]]:
    """Random tries until one hits: (the hit, the different misses on the way, at least one).

    It ends: the prompt was made from a hit, and a+b and a-b are never both the target.
    """
    hit = None
    misses: dict[str, int] = {}
    while hit is None or not misses:
        rng.shuffle(numbers)
        operators = rng.choices("+-*", k=len(numbers) - 1)
        value = _value(numbers, operators)
        if value == target or len(misses) < MAX_MISSES:
            tail = zip(operators, map(str, numbers[1:]), strict=True)
            expression = str(numbers[0]) + "".join(map("".join, tail))
            if value == target:
                hit = hit or expression
            else:
                misses[expression] = value
    return hit, list(misses.items())


def _line(expression: str, value: int) -> str:
    return f"{expression}={value}"


def _value(numbers: Sequence[int], operators: Sequence[str]) -> int:
    """The value with the usual precedence: products first."""
    total, product = 0, numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        if operator == "*":
            product *= number
        else:
            total, product = total + product, number if operator == "+" else -number
    return total + product


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
