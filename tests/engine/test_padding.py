"""Padding: which tokens are computed together, in which shape, and what fills the rest."""

import dataclasses
import itertools

import pytest
import torch
from runner_batches import LENGTHS, PROMPTS, WHOLE, batch

from tenth.engine.block_pool import BLOCK
from tenth.engine.padding import PaddedDecode, Shape


def planner(**settings):
    return PaddedDecode(**{"max_rows": 8, "max_blocks": 6, "scratch_block": 99, **settings})


def test_a_step_of_three_sequences_is_padded_to_four_rows_and_to_the_blocks_of_the_longest():
    (piece,) = planner().plan(batch((0, 150, 151), (1, 5, 6), (3, 64, 65)))
    assert piece.shape == Shape(4, 4)  # position 150 lies in the third block
    ids = [PROMPTS[0][150], PROMPTS[1][5], PROMPTS[3][64]]
    assert piece.inputs.tolist() == [
        [ids[0], 150, 0, 3, 2, 1, 0],
        [ids[1], 5, 0, 7, 6, 5, 4],
        [ids[2], 64, 0, 15, 14, 13, 12],
        [0, 0, 0, 99, 99, 99, 99],  # nobody's row: it writes to the scratch block
    ]


def test_a_table_shorter_than_its_bucket_is_filled_with_the_scratch_block():
    short = dataclasses.replace(batch((0, 150, 151)), tables=torch.tensor([[3, 2, 1]], dtype=torch.int32))
    (piece,) = planner().plan(short)
    assert piece.inputs[0, 3:].tolist() == [3, 2, 1, 99]


@pytest.mark.parametrize(("position", "bucket"), [(0, 1), (63, 1), (64, 2), (128, 4), (256, 6), (383, 6)])
def test_blocks_are_counted_in_powers_of_two_up_to_those_of_the_context(position, bucket):
    one = dataclasses.replace(batch((0, 0, 1)), positions=torch.tensor([position]))
    assert planner().plan(one)[0].shape == Shape(1, bucket)


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])])
def test_sizes_are_powers_of_two_and_the_largest(limit, sizes):
    assert planner(max_rows=limit).sizes == sizes


def test_more_tokens_than_the_largest_size_are_cut():
    pieces = planner(max_rows=2).plan(batch(*[(i % 4, 2, 3) for i in range(5)]))
    assert [(piece.tokens.tolist(), piece.shape) for piece in pieces] == [
        ([0, 1], Shape(2, 1)),
        ([2, 3], Shape(2, 1)),
        ([4], Shape(1, 1)),
    ]


def test_long_contexts_are_computed_fewer_at_a_time():
    wide = planner(max_rows=256, max_blocks=2048)
    one = batch((0, 0, 1))
    far = dataclasses.replace(
        one, ids=torch.zeros(5).long(), positions=torch.full((5,), 2047 * BLOCK), starts=torch.arange(6)
    )
    far = dataclasses.replace(far, tables=one.tables.expand(5, -1))
    assert [piece.shape for piece in wide.plan(far)] == [Shape(2, 2048), Shape(2, 2048), Shape(1, 2048)]


def test_a_chunk_of_a_prompt_is_not_cut_unless_shapes_are_fixed():
    chunk = batch((0, 0, 100), (1, 5, 6))
    assert not planner().takes(chunk)
    assert planner(fixed_rows=4).takes(chunk)
    assert planner().takes(batch((0, 100, 103), (1, 5, 6)))  # a token and two guesses


@pytest.mark.parametrize("fixed_rows", [None, 1, 4])
def test_every_token_is_in_one_piece_and_those_of_a_sequence_in_order(fixed_rows):
    pieces = planner(fixed_rows=fixed_rows).plan(batch(*WHOLE))
    order = torch.cat([piece.tokens for piece in pieces])
    assert order.sort().values.tolist() == list(range(sum(LENGTHS)))
    starts = batch(*WHOLE).starts
    for start, end in itertools.pairwise(starts.tolist()):
        own = order[(order >= start) & (order < end)]
        assert own.tolist() == sorted(own.tolist())


def test_with_fixed_rows_a_shape_depends_on_nothing_but_the_position():
    shapes = {}
    for pieces in ([(0, 0, 200)], [(0, 0, 5), (1, 0, 70)], WHOLE, [(0, 199, 200)]):
        asked = batch(*pieces)
        for piece in planner(fixed_rows=4).plan(asked):
            for position in asked.positions[piece.tokens].tolist():
                assert shapes.setdefault(position, piece.shape) == piece.shape
    assert set(shapes.values()) == {Shape(4, 1), Shape(4, 2), Shape(4, 4)}
