"""Guessing by looking back: the longest known suffix decides, and its latest occurrence."""

from hypothesis import given
from hypothesis import strategies as st

from tenth.engine.prompt_lookup import PromptLookup


def guess(tokens, count=3):
    return PromptLookup().guess(tokens, count)


def test_what_followed_the_same_two_tokens_is_guessed():
    assert guess([7, 1, 2, 3, 4, 9, 1, 2]) == [3, 4, 9]


def test_one_token_alone_says_too_little():
    assert guess([1, 2, 3, 1]) == []


def test_the_longest_suffix_decides():
    #       1 2 after 5 was followed by 3, the later 1 2 by 4
    assert guess([5, 1, 2, 3, 1, 2, 4, 5, 1, 2]) == [3, 1, 2]


def test_of_equal_suffixes_the_latest_decides():
    assert guess([1, 2, 3, 8, 1, 2, 4, 8, 0, 1, 2]) == [4, 8, 0]


def test_a_guess_may_run_into_the_suffix_itself_but_not_past_the_end():
    assert guess([6, 6, 6], count=5) == [6]  # 6 6 was followed by the last 6


def test_nothing_known_nothing_guessed():
    assert guess([1, 2, 3, 4, 5]) == []
    assert guess([1]) == []


def by_hand(tokens, count):
    for length in (4, 3, 2):
        suffix = tokens[-length:]
        for end in range(len(tokens) - 1, length - 1, -1):
            if len(suffix) == length and tokens[end - length : end] == suffix:
                return tokens[end : end + count]
    return []


@given(
    tokens=st.lists(st.integers(0, 3), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    count=st.integers(1, 5),
)
def test_it_guesses_what_a_search_from_the_end_finds_however_the_tokens_came(tokens, cuts, count):
    lookup = PromptLookup()
    for cut in sorted(cuts):
        assert lookup.guess(tokens[:cut], count) == by_hand(tokens[:cut], count)
    assert lookup.guess(tokens, count) == by_hand(tokens, count)
