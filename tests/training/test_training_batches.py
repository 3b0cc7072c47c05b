"""Collation by hand, and log-probabilities that do not know the layout."""

import pytest
import torch
from tiny_lm import VOCAB, TinyLm

from tenth.base.errors import DataError
from tenth.training.batches import Layout, TrainedSequence, collate
from tenth.training.logprobs import answer_logprobs

LONG = TrainedSequence(ids=(5, 6, 7, 8), trained=(False, False, True, True))
SHORT = TrainedSequence(ids=(1, 2), trained=(False, True))
GAPS = TrainedSequence(ids=(1, 2, 3, 4, 5), trained=(False, True, False, False, True))


def test_the_last_token_is_not_fed_and_padding_is_masked():
    batch = collate([LONG, SHORT], pad_id=9)
    assert batch.ids.tolist() == [[5, 6, 7], [1, 9, 9]]
    assert batch.token_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.positions is None
    assert batch.segment_ids is None


def test_trained_tokens_are_listed_by_sequence_and_time():
    # LONG trains 7 (predicted at column 1) and 8 (at column 2); SHORT trains 2 (at row 1, column 0)
    batch = collate([LONG, SHORT])
    assert batch.answer_index.tolist() == [1, 2, 3]
    assert batch.answer_ids.tolist() == [7, 8, 2]
    assert batch.to_rows(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_left_padding_keeps_positions_and_segments():
    batch = collate([LONG, SHORT], pad_id=9, layout=Layout.PAD_LEFT)
    assert batch.ids.tolist() == [[5, 6, 7], [9, 9, 1]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1], [0, 0, 2]]


def test_packing_puts_short_ones_into_one_row_as_separate_segments():
    batch = collate([SHORT, LONG, SHORT], pad_id=9, layout=Layout.PACKED)
    assert batch.ids.tolist() == [[5, 6, 7], [1, 1, 9]]
    assert batch.segment_ids.tolist() == [[2, 2, 2], [1, 3, 0]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.answer_ids.tolist() == [2, 7, 8, 2]


def test_equal_lengths_need_no_mask():
    assert collate([SHORT, SHORT]).token_mask is None


def test_a_mask_may_have_gaps():
    batch = collate([GAPS])
    assert batch.answer_ids.tolist() == [2, 5]
    assert batch.answer_index.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("ids", "trained", "words"),
    [
        ((1, 2), (False,), "mask entries"),
        ((1,), (False,), "nothing to predict"),
        ((1, 2), (True, True), "start with bos"),
    ],
)
def test_a_sequence_that_cannot_be_trained_is_refused(ids, trained, words):
    with pytest.raises(DataError, match=words):
        TrainedSequence(ids=ids, trained=trained)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("kept_chunks", [0, 99])
def test_answer_logprobs_equal_a_plain_forward_of_each_sequence(layout, kept_chunks):
    model, sequences = TinyLm(), [SHORT, GAPS, LONG]
    scored = answer_logprobs(
        model, collate(sequences, layout=layout), chunk_tokens=2, kept_chunks=kept_chunks
    )
    expected = []
    for sequence in sequences:
        logp = torch.log_softmax(model.logits(model(torch.tensor([sequence.ids]))), dim=-1)[0]
        expected += [logp[t - 1, token] for t, token in enumerate(sequence.ids) if sequence.trained[t]]
    torch.testing.assert_close(scored.logp, torch.stack(expected))
    gradients = torch.autograd.grad(scored.logp.sum(), list(model.parameters()))
    for mine, other in zip(
        gradients, torch.autograd.grad(sum(expected), list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_a_high_temperature_makes_every_token_equally_likely():
    scored = answer_logprobs(TinyLm(), collate([LONG]), temperature=1e9)
    torch.testing.assert_close(scored.entropy, torch.full((2,), VOCAB, dtype=torch.float64).log())
