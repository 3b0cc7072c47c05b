"""Biases, penalties, a mask and a least length change the scores as defined; numbers by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.engine.penalties import adjust
from tenth.engine.request import SamplingParams

SCORES = torch.tensor([2.0, -1.0, 0.5, 3.0])
NEVER = -float("inf")


def adjusted(generated=(), prompt_ids=(), *, scores=SCORES, **how):
    return adjust(scores, generated, prompt_ids, SamplingParams(max_new_tokens=8, **how)).tolist()


def test_presence_is_taken_once_however_often_an_id_came():
    assert adjusted([0, 3, 0, 0], presence_penalty=0.5) == [1.5, -1.0, 0.5, 2.5]


def test_frequency_is_taken_as_often_as_an_id_came():
    assert adjusted([0, 3, 0, 0], frequency_penalty=0.5) == [0.5, -1.0, 0.5, 2.5]


def test_presence_and_frequency_add_up():
    # 2 - 3 * 0.5 - 1 = -0.5; 3 - 0.5 - 1 = 1.5
    assert adjusted([0, 3, 0, 0], frequency_penalty=0.5, presence_penalty=1.0) == [-0.5, -1.0, 0.5, 1.5]


def test_presence_and_frequency_overlook_the_prompt():
    assert adjusted([], [0, 1, 2], frequency_penalty=1.0, presence_penalty=1.0) == SCORES.tolist()


def test_a_negative_penalty_invites_repetition():
    assert adjusted([1, 1], frequency_penalty=-0.5, presence_penalty=-1.0) == [2.0, 1.0, 0.5, 3.0]


def test_repetition_divides_what_is_positive_and_multiplies_what_is_negative():
    assert adjusted([0], [1], repetition_penalty=2.0) == [1.0, -2.0, 0.5, 3.0]


def test_repetition_counts_once_in_prompt_and_answer_together():
    assert adjusted([0, 0], [0, 1, 1], repetition_penalty=2.0) == [1.0, -2.0, 0.5, 3.0]


def test_the_prompt_may_come_as_a_tensor():
    assert adjusted([0], torch.tensor([1, 1]), repetition_penalty=2.0) == [1.0, -2.0, 0.5, 3.0]


def test_a_bias_is_added_to_its_id_before_the_penalties():
    assert adjusted(logit_bias={1: 1.5, 3: -100.0}) == [2.0, 0.5, 0.5, -97.0]
    assert adjusted([1], logit_bias={1: 3.0}, repetition_penalty=2.0) == [2.0, 1.0, 0.5, 3.0]  # (-1 + 3) / 2


def test_no_stop_id_may_come_before_the_least_length():
    how = {"stop_ids": (0, 3), "min_new_tokens": 2}
    for generated in ([], [1]):
        assert adjusted(generated, **how) == [NEVER, -1.0, 0.5, NEVER]
    assert adjusted([1, 1], **how) == SCORES.tolist()


def test_a_mask_sees_the_answer_so_far_and_forbids_what_it_leaves_out():
    def alternate(generated):
        return torch.tensor([True, False, True, False]) if len(generated) % 2 else None

    assert adjusted([], logit_mask=alternate) == SCORES.tolist()
    assert adjusted([2], logit_mask=alternate) == [2.0, NEVER, 0.5, NEVER]


def test_what_is_forbidden_stays_forbidden_whatever_its_bias():
    mask = torch.tensor([True, True, True, False])
    assert adjusted([3], logit_bias={3: 1e30}, logit_mask=lambda ids: mask)[3] == NEVER


@pytest.mark.parametrize("mask", [torch.ones(3, dtype=torch.bool), torch.ones(4)], ids=["short", "floats"])
def test_a_mask_of_another_kind_is_refused(mask):
    with pytest.raises(ConfigError, match=r"a logit_mask gave .* it must give one bool per id, 4 in all"):
        adjusted(logit_mask=lambda ids: mask)


@given(
    generated=st.lists(st.integers(0, 3), max_size=6),
    repetition=st.floats(0.5, 2.0),
    frequency=st.floats(-2, 2),
)
def test_the_scores_that_came_are_never_changed(generated, repetition, frequency):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        scores = SCORES.to(dtype)
        adjusted(
            generated, [1], scores=scores, repetition_penalty=repetition, frequency_penalty=frequency,
            logit_bias={0: 1.0}, min_new_tokens=3, stop_ids=(2,), logit_mask=lambda ids: SCORES > 0,
        )  # fmt: skip
        assert scores.tolist() == SCORES.tolist()


def test_bfloat16_scores_are_adjusted_in_float32():
    # 2 / 1.1 = 1.818182 needs more than bfloat16's eight bits
    assert adjusted([0], scores=SCORES.bfloat16(), repetition_penalty=1.1)[0] == pytest.approx(
        1.818182, abs=1e-6
    )
