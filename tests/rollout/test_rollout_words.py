"""Reflection words, per 1,000 tokens."""

import pytest

from tenth.rollout.words import count_reflection_words, reflection_per_1k


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("3+4=7", 0),
        ("Wait, that is wrong. Check again.", 4),
        ("waiter, checked, button", 0),  # whole words only
        ("等等,错了,重新检查", 4),
    ],
)
def test_reflection_words_are_counted(text, count):
    assert count_reflection_words(text) == count


def test_the_rate_is_per_thousand_tokens_of_all_texts():
    assert reflection_per_1k(["wait", "no, but", "fine"], num_tokens=500) == 4.0
    assert reflection_per_1k([], num_tokens=0) == 0.0
