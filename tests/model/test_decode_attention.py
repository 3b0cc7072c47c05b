"""Tokens over cached entries: equal to plain softmax in float64, whatever lies beside the entries."""

import pytest
import torch
from twins import distance, draw

from tenth.model.cache import Cached, Rows, decode_attention

# Shapes: C blocks of 8 positions, S sequences, N tokens, H heads, G kv heads
BLOCK = 8
ENDS = [[1], [9, 10, 11], [17], [3, 4, 5]]  # of each token, by sequence
TABLES = torch.tensor([[4, 0, 0], [2, 9, 0], [7, 1, 8], [5, 0, 0]], dtype=torch.int32)


def cached(buffer, *, firsts=None):
    """The four sequences above; the second and the last have three tokens each."""
    ends = torch.tensor([end for each in ENDS for end in each])
    single = Rows(sequences=torch.tensor([0, 2]), tokens=torch.tensor([[0], [4]]), num_blocks=3)
    triple = Rows(sequences=torch.tensor([1, 3]), tokens=torch.tensor([[1, 2, 3], [5, 6, 7]]), num_blocks=2)
    return Cached(buffer=buffer, tables=TABLES, ends=ends, firsts=firsts, rows=(single, triple))


def by_hand(q, keys, values, *, scale, firsts=(0, 0, 0, 0)):
    """One token, one head, one position at a time."""
    heads, groups, outs = q.shape[1], keys.shape[2], []
    sequences = [(s, end) for s, each in enumerate(ENDS) for end in each]
    for n, (s, end) in enumerate(sequences):
        places = [(TABLES[s, p // BLOCK], p % BLOCK) for p in range(firsts[s], end)]
        for h in range(heads):
            g = h // (heads // groups)
            weights = torch.stack([q[n, h] @ keys[*place, g] * scale for place in places]).softmax(0)
            outs.append(sum(w * values[*place, g] for w, place in zip(weights, places, strict=True)))
    return torch.stack(outs).unflatten(0, (-1, heads))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 1), (6, 2), (3, 3)])
def test_attention_equals_a_softmax_by_hand(heads, groups, dtype, tolerance):
    buffer = draw(10, BLOCK, 2 * groups * 5, dtype=dtype)
    keys, values = buffer.unflatten(-1, (2 * groups, 5)).split(groups, dim=2)  # as GQA caches them
    q = draw(8, heads, 5, seed=1, dtype=dtype)
    found = decode_attention(q, keys, values, cached(buffer), scale=0.3)
    assert found.dtype == dtype
    assert distance(found, by_hand(q.double(), keys.double(), values.double(), scale=0.3)) < tolerance


def test_values_may_be_the_first_columns_of_the_keys():
    buffer = draw(10, BLOCK, 12).double()  # MLA: [latent 8, rotary 4]
    entries = buffer.unsqueeze(2)
    q = draw(8, 3, 12, seed=1).double()
    found = decode_attention(q, entries, entries[..., :8], cached(buffer), scale=0.5)
    assert distance(found, by_hand(q, entries, entries[..., :8], scale=0.5)) < 1e-14


def test_positions_before_the_first_are_not_seen():
    buffer = draw(10, BLOCK, 12).double()
    entries = buffer.unsqueeze(2)
    q = draw(8, 3, 12, seed=1).double()
    firsts = (0, 8, 3, 2)
    found = decode_attention(q, entries, entries, cached(buffer, firsts=torch.tensor(firsts)), scale=0.5)
    assert distance(found, by_hand(q, entries, entries, scale=0.5, firsts=firsts)) < 1e-14


@pytest.mark.parametrize("rubbish", [1e4, float("nan"), float("inf")])
def test_what_others_left_in_a_block_does_not_matter(rubbish):
    clean = draw(10, BLOCK, 12)
    dirty = torch.full_like(clean, rubbish)
    for s, each in enumerate(ENDS):
        for p in range(each[-1]):
            place = (TABLES[s, p // BLOCK], p % BLOCK)
            dirty[place] = clean[place]
    q = draw(8, 3, 12, seed=1)
    outs = [
        decode_attention(q, b.unsqueeze(2), b.unsqueeze(2)[..., :8], cached(b), scale=0.5)
        for b in (clean, dirty)
    ]
    assert torch.equal(*outs)
