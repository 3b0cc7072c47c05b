import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import DataError
from tenth.data.packing import best_fit


@given(st.lists(st.integers(0, 20), max_size=60))
def test_every_item_is_packed_once_and_no_row_runs_over(lengths):
    rows = best_fit(lengths, capacity=20)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 20 for row in rows)
    assert all(rows)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_no_two_rows_could_have_been_one(lengths):
    filled = sorted(sum(lengths[index] for index in row) for row in best_fit(lengths, capacity=20))
    assert len(filled) == 1 or filled[0] + filled[1] > 20


def test_an_item_goes_into_the_fullest_row_that_holds_it():
    # 6 and 5 open rows with 4 and 5 left; 4 fits the first exactly, 3 then the second
    assert best_fit([6, 5, 4, 3], capacity=10) == [[0, 2], [1, 3]]


def test_an_item_longer_than_a_row_is_named():
    with pytest.raises(DataError, match="example 1 has 11 tokens, but a row holds 10"):
        best_fit([3, 11], capacity=10)
