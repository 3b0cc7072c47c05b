"""Narration: a word per line, a mixture, and back into one language."""

import random

import pytest

from tenth.tasks.narration import WORDS, narrate, translate
from tenth.tasks.rewards import language_consistency

THINKING = "3+4\n7\nwait, 8"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_one_language_is_wholly_consistent_and_the_steps_stay(language):
    text = narrate("3+4\n7", language=language, rng=random.Random(1))
    assert language_consistency(text, language) == 1.0
    assert text.startswith(WORDS[language][0])
    assert [line[-1] for line in text.split("\n")] == ["4", "7"]


def test_a_mixture_is_mixed():
    rng = random.Random(2)
    shares = [language_consistency(narrate("1\n2\n3", language="zh", rng=rng, is_mixed=True), "zh")
              for _ in range(400)]  # fmt: skip
    assert 0.5 < sum(shares) / len(shares) < 0.75  # a Chinese word is two characters, so 2/3 of the words


@pytest.mark.parametrize("language", ["en", "zh"])
def test_translating_makes_any_mixture_consistent(language):
    rng = random.Random(3)
    for _ in range(50):
        mixed = narrate(THINKING, language="en", rng=rng, is_mixed=True)
        assert language_consistency(translate(mixed, language=language), language) == 1.0


def test_translating_there_and_back_changes_nothing():
    rng = random.Random(4)
    for _ in range(50):
        text = narrate(THINKING, language="en", rng=rng)
        assert translate(translate(text, language="zh"), language="en") == text


def test_what_is_no_narration_is_left_alone():
    assert translate("小明5\n小红5+3=8", language="zh") == "小明5\n小红5+3=8"
    assert translate("2 3: a c b\nat 4: e", language="en") == "2 3: a c b\nat 4: e"
    assert translate("sort 5 3", language="zh") == "sort 5 3"
