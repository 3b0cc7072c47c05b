import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.llm.stop_strings import StopStrings


def streamed(pieces, stops, *, include_stop=False):
    """What came out, and the stop string that was found."""
    watch = StopStrings(stops, include_stop=include_stop).watch()
    text = "".join(watch.feed(piece) for piece in pieces)
    return text + watch.flush(), watch.found


def found_in_whole(text, stops):
    """The same from `str.find` on the whole text: complete first, then longest."""
    places = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if not places:
        return text, None
    end, _, stop = min(places)
    return text[: end - len(stop)], stop


FEW_LETTERS = st.text("ab\n", max_size=30)  # few letters, so that strings overlap
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=6)


@given(FEW_LETTERS, STOPS, st.lists(st.integers(0, 30), max_size=6))
def test_however_the_text_is_cut_the_answer_ends_where_str_find_says(text, stops, cuts):
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[i:j] for i, j in itertools.pairwise(places)]
    assert streamed(pieces, stops) == found_in_whole(text, stops)


@given(FEW_LETTERS, STOPS)
def test_nothing_waits_that_cannot_be_the_beginning_of_a_stop_string(text, stops):
    watch = StopStrings(stops).watch()
    out = ""
    for place, char in enumerate(text, start=1):
        out += watch.feed(char)
        if watch.found:
            return
        seen = text[:place]
        waiting = seen[len(out) :]
        beginnings = {stop[:size] for stop in stops for size in range(1, len(stop))}
        longest = max((each for each in beginnings if seen.endswith(each)), key=len, default="")
        assert waiting == longest


def test_a_stop_string_over_several_pieces_is_cut_off():
    assert streamed(["so </an", "sw", "er> and"], ["</answer>"]) == ("so ", "</answer>")


def test_the_stop_string_is_kept_on_request_and_what_follows_it_is_not():
    assert streamed(["so </an", "swer> and"], ["</answer>"], include_stop=True) == (
        "so </answer>",
        "</answer>",
    )


def test_a_beginning_that_leads_nowhere_comes_out_at_the_end():
    assert streamed(["x </answ"], ["</answer>"]) == ("x </answ", None)


def test_the_first_string_that_is_complete_wins_and_of_two_the_longer():
    assert streamed(["xabcd"], ["abcd", "bc"]) == ("xa", "bc")
    assert streamed(["xabc"], ["bc", "abc"]) == ("x", "abc")


def test_without_stop_strings_text_passes_through():
    assert streamed(["a", "b"], []) == ("ab", None)


@pytest.mark.parametrize(
    ("stops", "message"),
    [
        (["x"] * 65, "stop has 65 strings; give at most 64"),
        (["x" * 257], "a stop string has 257 characters; give strings of 1 to 256"),
        ([""], "a stop string has 0 characters"),
        ([7], "a stop string has the type int"),
        ("END", r"stop = 'END' is one string; give a list of strings: \['END'\]"),
    ],
)
def test_stop_strings_beyond_reason_are_one_sentence(stops, message):
    with pytest.raises(ConfigError, match=message):
        StopStrings(stops)


def test_sixty_four_long_strings_are_followed_at_once():
    stops = [f"{'a' * 250}{number:02d}" for number in range(64)]
    assert streamed(["a" * 600 + "63!"], stops) == ("a" * 350, stops[63])
