"""The families' answers against something else: Python's own arithmetic, brute force, or a pencil."""

import itertools
import math
import random
import re

import pytest

from tenth.base.records import Problem
from tenth.tasks.generated import FAMILIES
from tenth.tasks.task import Work


def problems(name: str) -> list[Problem]:
    family = FAMILIES[name]
    rng = random.Random(name)
    levels = range(family.levels[0], family.levels[1] + 1)
    return [family.make(rng, level=level) for level in levels for _ in range(30)]


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


@pytest.mark.parametrize("name", ["chain_sum", "product"])
def test_arithmetic_agrees_with_python(name):
    for problem in problems(name):
        assert eval(problem.prompt[len("What is ") : -1]) == int(problem.answer)


def test_running_totals_of_a_chain_stay_within_0_and_99():
    for problem in problems("chain_sum"):
        terms = re.findall(r"[+-]?\d", problem.prompt)
        assert all(0 <= total <= 99 for total in itertools.accumulate(map(int, terms)))


def test_x_solves_its_equation():
    for problem in problems("equation"):
        left, right = problem.prompt[len("Solve ") : -1].replace("x", "*x").split("=")
        assert [x for x in range(0, 100) if eval(left) == eval(right)] == [int(problem.answer)]


def test_countdown_answers_use_each_number_once():
    for problem in problems("countdown"):
        target, *given = numbers(problem.prompt)
        assert eval(problem.answer) == target
        assert sorted(numbers(problem.answer)) == sorted(given)


@pytest.mark.parametrize(("name", "truth"), [("gcd", math.gcd), ("lcm", math.lcm)])
def test_divisors_and_multiples_agree_with_python(name, truth):
    for problem in problems(name):
        assert int(problem.answer) == truth(*numbers(problem.prompt))


def test_binary_agrees_with_python():
    for problem in problems("binary"):
        assert problem.answer == f"{numbers(problem.prompt)[0]:b}"
        assert len(problem.answer) == problem.level


def test_rows_agree_with_python():
    for problem in problems("sort"):
        assert numbers(problem.answer) == sorted(numbers(problem.prompt))
    for problem in problems("reverse"):
        assert problem.answer.split() == problem.prompt[len("Reverse ") : -1].split()[::-1]
    for problem in problems("letter_count"):
        wanted, row = re.findall(r"Count (.) in (.*)\.", problem.prompt)[0]
        assert int(problem.answer) == row.count(wanted)
    for problem in problems("word_shift"):
        row, amount = re.findall(r"Shift (.*) by (\d)\.", problem.prompt)[0]
        assert problem.answer == "".join(
            chr((ord(char) - 97 + int(amount)) % 26 + 97) if char != " " else " " for char in row
        )


def test_truth_values_agree_with_python_bracketed_from_the_left():
    for problem in problems("boolean"):
        words = problem.prompt[len("Left to right: ") : -1]
        operands = re.split(r" (?:and|or) ", words)
        text = operands[0]
        for operator, operand in zip(re.findall(r" (and|or) ", words), operands[1:], strict=True):
            text = f"({text}) {operator} ({operand})"
        assert eval(text, {"T": True, "F": False}) == (problem.answer == "T")
        assert len(re.findall("and|or|not", words)) == problem.level


def test_an_order_is_the_only_one_that_fits_the_facts():
    for problem in problems("ordering"):
        if problem.level > 5:
            continue  # 120 orders are enough to try
        facts = re.findall(r"(\w)<(\w)", problem.prompt)
        people = sorted({person for fact in facts for person in fact})
        fits = [
            order
            for order in itertools.permutations(people)
            if all(order.index(a) < order.index(b) for a, b in facts)
        ]
        assert [order[int(problem.prompt[-2]) - 1] for order in fits] == [problem.answer]


def test_following_one_cup_through_the_swaps_finds_it():
    for problem in problems("swaps"):
        place = int(problem.prompt[-2])
        for first, second in reversed(re.findall(r"(\d) (\d)", problem.prompt)):
            place = {int(first): int(second), int(second): int(first)}.get(place, place)
        assert problem.answer == "abcde"[place - 1]


def test_assignments_agree_with_python():
    for problem in problems("variables"):
        names: dict[str, int] = {}
        exec(problem.prompt.partition(".")[0].replace(", ", "\n"), {}, names)
        assert names[problem.prompt[-2]] == int(problem.answer)
        assert all(0 <= value <= 20 for value in names.values())


def test_the_last_digit_agrees_with_python_without_reducing_on_the_way():
    for problem in problems("modular"):
        start, operations = re.findall(r"Start at (\d)\. (.*), mod", problem.prompt)[0]
        value = int(start)
        for operation in operations.split():
            value = eval(f"{value}{operation}")
        assert value % 10 == int(problem.answer)


def test_shopping_adds_up():
    assert solve("shopping_zh", "小明有3个苹果，买了5个，吃了2个，还剩几个？") == ("3+5=8\n8-2=6", "6")
    for problem in problems("shopping_zh"):
        signed = re.findall(r"(有|买了|收到|吃了|送出)(\d+)", problem.prompt)
        total = sum(int(amount) * (-1 if verb in ("吃了", "送出") else 1) for verb, amount in signed)
        assert total == int(problem.answer)


def test_ages_fit_the_comparisons():
    for problem in problems("compare_zh"):
        first, *facts = problem.prompt.split("，")[:-1]
        ages = {first[:2]: numbers(first)[0]}
        for fact in facts:
            name, than, is_older, years = fact[:2], fact[3:5], fact[5] == "大", numbers(fact)[0]
            ages[name] = ages[than] + (years if is_older else -years)
        assert len(set(ages.values())) == len(ages)
        assert ages[problem.answer] == (max if "最大" in problem.prompt else min)(ages.values())


def solve(name: str, prompt: str) -> tuple[str, str]:
    problem = Problem(problem_id="x", task=name, prompt=prompt, answer="")
    solution = FAMILIES[name].work(problem, random.Random(0), kind=Work.CLEAN)
    return solution.thinking, solution.answer


@pytest.mark.parametrize(
    ("name", "prompt", "thinking", "answer"),
    [
        ("chain_sum", "What is 3+5-2+9?", "3+5-2+9\n8-2+9\n6+9\n15", "15"),
        ("product", "What is 347*6?", "7*6=42 2\n4*6+4=28 82\n3*6+2=20 2082", "2082"),
        ("product", "What is 7*6?", "7*6=42 42", "42"),
        ("equation", "Solve 3x+7=22.", "3x=22-7=15\nx=15/3=5", "5"),
        ("equation", "Solve 2x-5=9.", "2x=9+5=14\nx=14/2=7", "7"),
        ("equation", "Solve 7x+3=4x+18.", "7x-4x=3x\n3x=18-3=15\nx=15/3=5", "5"),
        ("sort", "Sort 5 3 9 1 7.", "1,5397\n3,597\n5,97\n7,9\n9\n1 3 5 7 9", "1 3 5 7 9"),
        ("sort", "Sort 2 2 1.", "1,22\n2,2\n2\n1 2 2", "1 2 2"),
        ("gcd", "What is gcd(84,36)?", "84%36=12\n36%12=0", "12"),
        ("lcm", "What is lcm(12,18)?", "18%12=6\n12%6=0\n12/6=2\n2*18=36", "36"),
        ("binary", "Write 6 in base 2.", "6=3*2+0 0\n3=1*2+1 10\n1=0*2+1 110", "110"),
        ("reverse", "Reverse b k a.", "b k , a\nb , a k\na k b", "a k b"),
        ("letter_count", "Count b in a b b.", "a 0\nb 1\nb 2", "2"),
        ("word_shift", "Shift b y z by 2.", "b d\ny a\nz b\nd a b", "d a b"),
        ("boolean", "Left to right: T and not F or F?", "T and not F or F\nT and T or F\nT or F\nT", "T"),
        ("ordering", "Small to big: a<c, b<a, c<d. Who is at 3?", "1 b\n2 a\n3 c", "c"),
        ("swaps", "Cups a b c d e. Swap 1 3, 2 5. Which cup is at 2?",
         "1 3: c b a d e\n2 5: c e a d b\nat 2: e", "e"),
        ("variables", "a=3, b=a+4, c=b-2, d=a+1. What is c?", "a=3\nb=3+4=7\nc=7-2=5", "5"),
        ("modular", "Start at 7. +4 *3 -5, mod 10?", "7+4=1\n1*3=3\n3-5=8", "8"),
        ("compare_zh", "小明5岁，小红比小明大3岁，小刚比小红小2岁，谁最大？",
         "小明5\n小红5+3=8\n小刚8-2=6\n最大：小红", "小红"),
    ],
)  # fmt: skip
def test_working_as_done_by_hand(name, prompt, thinking, answer):
    assert solve(name, prompt) == (thinking, answer)


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "text", "is_correct"),
    [
        ("equation", "Solve 3x+7=22.", "5", "x = 5", True),
        ("equation", "Solve 3x+7=22.", "5", "y=5", False),
        ("variables", "a=3, b=a+4. What is b?", "7", "b=7.", True),
        ("chain_sum", "What is 3+5?", "8", "+8", True),
        ("chain_sum", "What is 3+5?", "8", "3+5", False),
        ("chain_sum", "What is 3+5?", "8", "8.0", False),
        ("sort", "Sort 5 3 9.", "3 5 9", "3, 5, 9", True),
        ("sort", "Sort 5 3 9.", "3 5 9", "3 9 5", False),
        ("sort", "Sort 5 3 9.", "3 5 9", "3 5", False),
        ("sort", "Sort 5 3 9.", "3 5 9", "359", False),
        ("binary", "Write 6 in base 2.", "110", "0b110", True),
        ("binary", "Write 6 in base 2.", "110", "6", False),
        ("boolean", "Left to right: T and T?", "T", "T or F", False),
        ("shopping_zh", "小明有3个苹果，买了5个，还剩几个？", "8", "8个。", True),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "8+(3+5)", True),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "3+5+8=16", True),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "3+5+8=17", False),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "16", False),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "8*2", False),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "3+5+8+8-8", False),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "8+8", False),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "32/2", False),
        ("countdown", "Make 8 from 2 3 with + - *.", "2*3", "2**3", False),
        ("countdown", "Make 16 from 3 5 8 with + - *.", "3+5+8", "3+5+8 if 1 else 0", False),
    ],
)  # fmt: skip
def test_what_a_checker_forgives_and_what_not(name, prompt, answer, text, is_correct):
    problem = Problem(problem_id="x", task=name, prompt=prompt, answer=answer)
    assert FAMILIES[name].check(problem, text).is_correct is is_correct
