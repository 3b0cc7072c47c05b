import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.data.pretrain_stream import PretrainStream, epoch_order
from tenth.data.shards import TokenIndex, TokenSet


def counting_tokens(directory, num_tokens):
    """Tokens 0, 1, 2, ...: a window shows where it was cut."""
    np.arange(num_tokens, dtype=np.uint16).tofile(directory / "tokens.bin")
    index = TokenIndex(
        num_tokens=num_tokens, num_documents=1, num_text_bytes=num_tokens, dtype="uint16",
        vocab_size=300, tokenizer="", content_hash="",
    )  # fmt: skip
    return TokenSet(directory=directory, index=index)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return counting_tokens(tmp_path_factory.mktemp("tokens"), 103)


def test_a_window_is_the_sequence_its_next_token_and_the_extra_targets(tokens):
    batch = PretrainStream(tokens, sequence_length=10, seed=0, extra_tokens=2).batch(0, 4)
    assert batch.shape == (4, 13)
    assert batch.dtype == np.int64
    for row in batch:
        assert row.tolist() == list(range(row[0], row[0] + 13))


def test_an_epoch_shows_every_window_once(tokens):
    stream = PretrainStream(tokens, sequence_length=10, seed=0)
    assert stream.sequences_per_epoch == 10  # (103 - 1) // 10
    for epoch in range(3):
        assert sorted(stream.batch(10 * epoch, 10)[:, 0]) == list(range(0, 100, 10))


def test_the_tokens_that_fit_exactly_are_all_used(tmp_path):
    # 21 tokens are two windows of ten, each with its next token; one more extra target leaves one
    exact = counting_tokens(tmp_path, 21)
    assert PretrainStream(exact, sequence_length=10, seed=0).sequences_per_epoch == 2
    assert PretrainStream(exact, sequence_length=10, seed=0, extra_tokens=1).sequences_per_epoch == 1


def test_epochs_and_seeds_have_orders_of_their_own(tokens):
    stream = PretrainStream(tokens, sequence_length=10, seed=0)
    other = PretrainStream(tokens, sequence_length=10, seed=1)
    first = stream.batch(0, 10)[:, 0].tolist()
    assert first != stream.batch(10, 10)[:, 0].tolist()
    assert first != other.batch(0, 10)[:, 0].tolist()


@given(st.integers(0, 40), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_cut_into_batches_gives_the_same_sequences(tokens, first, sizes):
    whole = PretrainStream(tokens, sequence_length=10, seed=3).batch(first, sum(sizes))
    rows, cursor = [], first
    for size in sizes:  # a new stream each time, as after a restart
        rows.append(PretrainStream(tokens, sequence_length=10, seed=3).batch(cursor, size))
        cursor += size
    np.testing.assert_array_equal(np.concatenate(rows), whole)


@given(st.integers(0, 30), st.integers(1, 3), st.integers(1, 4))
def test_the_ranks_together_hold_the_whole_batch(tokens, first, per_rank, world_size):
    whole = PretrainStream(tokens, sequence_length=10, seed=3).batch(first, per_rank * world_size)
    for rank in range(world_size):
        stream = PretrainStream(tokens, sequence_length=10, seed=3, rank=rank, world_size=world_size)
        np.testing.assert_array_equal(stream.batch(first, per_rank * world_size), whole[rank::world_size])


def test_the_epochs_read_are_counted(tokens):
    assert PretrainStream(tokens, sequence_length=10, seed=0).epochs(25) == 2.5


@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_order_is_a_permutation(size, seed, epoch):
    assert sorted(epoch_order(size, seed=seed, epoch=epoch)) == list(range(size))


def test_an_epoch_order_never_changes_between_versions():
    # written down once: a change would make every continued run differ from an uninterrupted one
    assert epoch_order(8, seed=0, epoch=0).tolist() == [5, 2, 0, 3, 4, 1, 7, 6]


def test_a_corpus_shorter_than_one_window_is_refused(tokens):
    with pytest.raises(ConfigError, match=r"has 103 tokens, but one window needs 104"):
        PretrainStream(tokens, sequence_length=103, seed=0)


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused(tokens):
    with pytest.raises(ConfigError, match="a batch of 5 sequences does not divide among 2 ranks"):
        PretrainStream(tokens, sequence_length=10, seed=0, rank=1, world_size=2).batch(0, 5)


def test_a_rank_outside_the_world_is_refused(tokens):
    with pytest.raises(ConfigError, match="rank 2 is not among the 2 ranks"):
        PretrainStream(tokens, sequence_length=10, seed=0, rank=2, world_size=2)
