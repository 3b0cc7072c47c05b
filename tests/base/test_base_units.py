import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base import units
from tenth.base.errors import ConfigError


def test_the_examples_in_the_file_are_true():
    assert doctest.testmod(units).failed == 0


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("2000", 2000), ("1.5k", 1500), ("3M", 3_000_000), ("2b", 2 * 10**9)]
)
def test_counts_are_read_as_people_write_them(text, value):
    assert units.parse_count(text) == value


@pytest.mark.parametrize("text", ["", "k", "many", "1.5", "infk", "nanM", "1e999k"])
def test_what_is_no_count_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="is not a count; write it like 2000, 2k or"):
        units.parse_count(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (12_345, "12.3k"),
        (999_999, "1M"),
        (999_400, "999k"),
        (-2e6, "-2M"),
    ],
)
def test_counts_are_shown_in_three_digits(value, shown):
    assert units.show_count(value) == shown


@given(st.floats(1, 9.99e14))
def test_a_shown_count_never_needs_an_exponent_and_is_right_to_half_a_percent(value):
    shown = units.show_count(value)
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(shown[-1], 1.0)
    number = shown.rstrip("kMBT")
    assert "e" not in number
    assert float(number) * scale == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB"), (2**41, "2.0 TiB")],
)
def test_bytes_are_shown_in_binary_units(value, shown):
    assert units.show_bytes(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0.0s"), (59.94, "59.9s"), (59.96, "1m00s"), (60, "1m00s"), (3599.7, "1h00m"), (7260, "2h01m")],
)
def test_durations_are_shown_as_people_say_them(value, shown):
    assert units.show_seconds(value) == shown
