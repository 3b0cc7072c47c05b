"""One query per sequence over cached entries: equal to float64, whatever lies beside the entries."""

import pytest
import torch
from twins import TOLERANCE, distance, draw

from tenth.model.cache import Cached, decode_attention, decode_attention_reference

# Shapes: S slots, P positions, R sequences, H heads, G kv heads
LENGTHS = torch.tensor([1, 31, 33, 70, 70])
SLOTS = torch.tensor([4, 0, 6, 2, 1])
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def compare(q, keys, values, cached):
    found = decode_attention(q, keys, values, cached, scale=0.3)
    wanted = decode_attention_reference(q.double(), keys.double(), values.double(), cached, scale=0.3)
    assert found.dtype == q.dtype
    assert distance(found, wanted) < TOLERANCE[q.dtype]


@BOTH
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 1), (6, 2), (3, 3)])
@pytest.mark.parametrize("width", [5, 16, 40])
def test_decoding_equals_float64(heads, groups, width, dtype):
    buffer = draw(7, 70, 2 * groups * width, dtype=dtype)
    keys, values = buffer.unflatten(-1, (2 * groups, width)).split(groups, dim=2)  # as GQA caches them
    cached = Cached(buffer=buffer, slots=SLOTS, lengths=LENGTHS)
    compare(draw(5, heads, width, seed=1, dtype=dtype), keys, values, cached)


@BOTH
def test_values_may_be_the_first_columns_of_the_keys(dtype):
    buffer = draw(7, 70, 24, dtype=dtype)  # MLA: [latent 16, rotary 8]
    entries = buffer.unsqueeze(2)
    cached = Cached(buffer=buffer, slots=SLOTS, lengths=LENGTHS)
    compare(draw(5, 4, 24, seed=1, dtype=dtype), entries, entries[..., :16], cached)


def test_queries_may_be_strided():
    buffer = draw(7, 70, 24)
    entries = buffer.unsqueeze(2)
    cached = Cached(buffer=buffer, slots=SLOTS, lengths=LENGTHS)
    q = draw(5, 3, 4, 24, seed=1)[:, 1]
    compare(q, entries, entries[..., :16], cached)
    compare(q.transpose(0, 1).contiguous().transpose(0, 1), entries, entries[..., :16], cached)


def test_positions_past_the_length_and_foreign_slots_do_not_matter():
    clean, dirty = draw(7, 70, 24), draw(7, 70, 24)
    for slot in range(7):
        rows = [r for r in range(5) if SLOTS[r] == slot]
        dirty[slot, LENGTHS[rows[0]] if rows else 0 :] = 1e4
    q = draw(5, 4, 24, seed=1)
    outs = [
        decode_attention(
            q,
            buffer.unsqueeze(2),
            buffer.unsqueeze(2)[..., :16],
            Cached(buffer=buffer, slots=SLOTS, lengths=LENGTHS),
            scale=0.3,
        )
        for buffer in (clean, dirty)
    ]
    assert torch.equal(*outs)


def test_one_cached_position_is_the_answer():
    buffer = draw(1, 3, 24)
    cached = Cached(buffer=buffer, slots=torch.tensor([0]), lengths=torch.tensor([1]))
    entries = buffer.unsqueeze(2)
    out = decode_attention(draw(1, 2, 24, seed=1), entries, entries[..., :16], cached, scale=5.0)
    torch.testing.assert_close(out, buffer[:, :1, :16].expand(1, 2, 16))
