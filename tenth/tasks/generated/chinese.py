"""Questions in Chinese: shopping (a running total) and ages (who is oldest or youngest)."""

import random
import re
from functools import partial

from tenth.base.records import Problem
from tenth.tasks.answers import read_choice, read_integer
from tenth.tasks.generated.traced import Steps, TracedFamily, near, other

NAMES = ("小明", "小红", "小刚", "小丽", "小华", "小军", "小芳")
OBJECTS = ("苹果", "梨", "橘子", "鸡蛋", "包子")
GAINS = ("买了", "收到")
LOSSES = ("吃了", "送出")
MAX_TOTAL = 30
MAX_AGE = 20


class Shopping(TracedFamily):
    """`小明有3个苹果，买了5个，吃了2个，还剩几个？`; level = number of events."""

    name = "shopping_zh"
    language = "zh"
    levels = (2, 8)

    def draw(self, rng: random.Random, level: int) -> str:
        total = rng.randint(1, 9)
        parts = [f"{rng.choice(NAMES)}有{total}个{rng.choice(OBJECTS)}"]
        for _ in range(level):
            changes = [change for change in range(-9, 10) if change and 0 <= total + change <= MAX_TOTAL]
            change = rng.choice(changes)
            total += change
            parts.append(f"{rng.choice(GAINS if change > 0 else LOSSES)}{abs(change)}个")
        return f"{'，'.join(parts)}，还剩几个？"

    def solve(self, prompt: str, steps: Steps) -> str:
        total = int(re.findall(r"有([0-9]+)个", prompt)[0])
        for verb, amount in re.findall(rf"({'|'.join(GAINS + LOSSES)})([0-9]+)个", prompt):
            change = int(amount) if verb in GAINS else -int(amount)
            right = total + change
            total = steps.take(right, near(steps.rng, right), partial(_sum_line, f"{total}{change:+d}"))
        return str(total)

    def read(self, text: str) -> str | None:
        return read_integer(text, suffixes=("个",))


def _sum_line(head: str, total: int) -> str:
    return f"{head}={total}"


class Ages(TracedFamily):
    """`小明5岁，小红比小明大3岁，小刚比小红小2岁，谁最大？`; level = number of comparisons."""

    name = "compare_zh"
    language = "zh"
    levels = (2, 6)

    def draw(self, rng: random.Random, level: int) -> str:
        names = rng.sample(NAMES, level + 1)
        ages = [rng.randint(3, 12)]
        parts = [f"{names[0]}{ages[0]}岁"]
        for index in range(1, level + 1):
            source = rng.randrange(index)
            gaps = [gap for gap in range(-9, 10) if 1 <= ages[source] + gap <= MAX_AGE]
            gap = rng.choice([gap for gap in gaps if ages[source] + gap not in ages])
            ages.append(ages[source] + gap)
            parts.append(f"{names[index]}比{names[source]}{'大' if gap > 0 else '小'}{abs(gap)}岁")
        return f"{'，'.join(parts)}，谁最{rng.choice('大小')}？"

    def solve(self, prompt: str, steps: Steps) -> str:
        ages: dict[str, int] = {}
        for fact in prompt.split("，")[:-1]:
            name, source, direction, amount = re.findall(r"(小.)(?:比(小.)([大小]))?([0-9]+)岁", fact)[0]
            if not source:
                ages[name] = int(amount)
                steps.note(f"{name}{amount}")
                continue
            change = int(amount) if direction == "大" else -int(amount)
            right = ages[source] + change
            head = f"{name}{ages[source]}{change:+d}="
            ages[name] = steps.take(right, near(steps.rng, right, low=1), partial(_append, head))
        extreme = max if prompt[-2] == "大" else min
        chosen = extreme(ages, key=lambda name: ages[name])
        return steps.take(
            chosen, other(steps.rng, chosen, tuple(ages)), partial(_append, f"最{prompt[-2]}：")
        )

    def read(self, text: str) -> str | None:
        return read_choice(text, choices=NAMES)

    def chance(self, problem: Problem) -> float:
        return 1 / (problem.prompt.count("比") + 1)


def _append(head: str, value: object) -> str:
    return f"{head}{value}"
