"""The paged cache: who wrote what where, in which type, and how wide an entry is."""

import dataclasses

import pytest
import torch
from engine_models import DEEPSEEK, QWEN

from tenth.engine.block_pool import BLOCK
from tenth.engine.paged_cache import PagedCache
from tenth.engine.runner import Batch
from tenth.engine.settings import CacheDtype
from tenth.model.cache import entry_width
from tenth.model.config import MlaConfig
from tenth.model.presets import preset


def build_cache(config=QWEN, *, cache_dtype=CacheDtype.AUTO, num_blocks=5):
    cache = PagedCache(
        config,
        num_blocks=num_blocks,
        dtype=torch.float32,
        device=torch.device("cpu"),
        cache_dtype=cache_dtype,
    )
    cache.entries.zero_()
    return cache


def batch(*sequences, tables):
    """Each sequence by the positions of its tokens."""
    counts = torch.tensor([0, *map(len, sequences)])
    positions = torch.tensor([p for each in sequences for p in each])
    return Batch(
        ids=torch.zeros_like(positions),
        positions=positions,
        starts=counts.cumsum(0).to(torch.int32),
        tables=torch.tensor(tables, dtype=torch.int32),
        outputs=torch.empty(0, dtype=torch.int64),
    )


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_an_entry_is_the_latent_and_one_rotary_key_or_all_keys_and_values():
    assert entry_width(DEEPSEEK) == 16 + 16
    assert entry_width(QWEN) == 2 * 2 * 16  # keys and values, 2 groups of 16
    assert entry_width(preset("v3-671b")) == 512 + 64
    wide = dataclasses.replace(
        DEEPSEEK,
        mla=MlaConfig(q_lora_rank=None, kv_lora_rank=7, qk_nope_head_dim=9, qk_rope_head_dim=4, v_head_dim=5),
    )
    assert entry_width(wide) == 7 + 4


def test_a_block_costs_64_entries_per_layer_and_the_mtp_module_counts_as_one():
    assert build_cache().block_bytes == 64 * 2 * 64 * 4  # positions, layers, numbers, bytes
    assert build_cache(DEEPSEEK).block_bytes == 64 * 4 * 32 * 4  # three layers and the module
    # one byte per number and four bytes for each of two scales
    assert build_cache(DEEPSEEK, cache_dtype=CacheDtype.INT8).block_bytes == 64 * 4 * (32 + 2 * 4)


def test_tokens_land_in_their_sequences_blocks_and_nowhere_else():
    cache = build_cache()
    cache.step(batch([BLOCK - 1, BLOCK], [3], tables=[[4, 2], [1, 0]]))
    entries = draw(3, 64)
    cached = cache.store_token(1, entries)
    assert torch.equal(cached.buffer[4, BLOCK - 1], entries[0])
    assert torch.equal(cached.buffer[2, 0], entries[1])
    assert torch.equal(cached.buffer[1, 3], entries[2])
    assert cached.ends.tolist() == [BLOCK, BLOCK + 1, 4]  # each sees itself
    assert int((cache.entries != 0).any(-1).sum()) == 3


def test_sequences_that_bring_equally_many_tokens_are_handled_together():
    cache = build_cache()
    cache.step(batch([7], [0, 1], [BLOCK + 1], tables=[[0, 0], [1, 0], [2, 3]]))
    single, double = cache.store_token(0, draw(4, 64)).rows
    assert (single.sequences.tolist(), single.tokens.tolist(), single.num_blocks) == ([0, 2], [[0], [3]], 2)
    assert (double.sequences.tolist(), double.tokens.tolist(), double.num_blocks) == ([1], [[1, 2]], 1)


@pytest.mark.parametrize("config", [QWEN, DEEPSEEK], ids=["qwen", "deepseek"])
def test_eight_bits_keep_every_part_to_half_a_step_of_its_own_largest_number(config):
    cache = build_cache(config, cache_dtype=CacheDtype.INT8)
    cache.step(batch([0, 1], [5], tables=[[3], [1]]))
    entries = draw(3, sum(cache.parts))
    entries[:, : cache.parts[0]] *= 1000  # one part's size is no other's business
    cached = cache.store_token(0, entries)
    found = torch.stack([cached.buffer[0, 0], cached.buffer[0, 1], cached.buffer[1, 5]])  # by sequence
    for kept, wanted in zip(found.split(cache.parts, -1), entries.split(cache.parts, -1), strict=True):
        step = wanted.abs().amax(-1, keepdim=True) / 127
        assert bool(((kept - wanted).abs() <= 0.51 * step).all())


@pytest.mark.parametrize("cache_dtype", list(CacheDtype))
def test_a_block_can_be_copied_read_and_written_back(cache_dtype):
    cache = build_cache(DEEPSEEK, cache_dtype=cache_dtype)
    cache.entries.copy_(100 * draw(*cache.entries.shape))
    cache.scales.copy_(draw(*cache.scales.shape))
    before = cache.entries.clone(), cache.scales.clone()
    cache.copy_blocks([(1, 3), (3, 4)])
    data = cache.read_block(4)
    assert len(data) == cache.block_bytes
    cache.write_block(0, data)
    for tensor, old in zip((cache.entries, cache.scales), before, strict=True):
        for block in (0, 3, 4):
            assert torch.equal(tensor[:, block], old[:, 1])
        assert torch.equal(tensor[:, 2], old[:, 2])
