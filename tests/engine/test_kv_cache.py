"""The slot cache: who wrote what where, and how wide an entry is."""

import dataclasses

import pytest
import torch
from engine_models import DEEPSEEK, QWEN

from tenth.engine.kv_cache import SlotCache, entry_width
from tenth.model.config import MlaConfig
from tenth.model.presets import preset


def build_cache(*, slots=4, positions=8):
    return SlotCache(QWEN, slots=slots, positions=positions, dtype=torch.float32, device=torch.device("cpu"))


def test_an_entry_is_the_latent_and_one_rotary_key_or_all_keys_and_values():
    assert entry_width(DEEPSEEK) == 16 + 16
    assert entry_width(QWEN) == 2 * 2 * 16  # keys and values, 2 groups of 16
    assert entry_width(preset("v3-671b")) == 512 + 64
    wide = dataclasses.replace(
        DEEPSEEK,
        mla=MlaConfig(q_lora_rank=None, kv_lora_rank=7, qk_nope_head_dim=9, qk_rope_head_dim=4, v_head_dim=5),
    )
    assert entry_width(wide) == 7 + 4


def test_prompts_land_in_the_slots_named():
    cache = build_cache()
    cache.read_prompts_into(torch.tensor([2, 0]))
    entries = torch.arange(2 * 3 * 64).float().view(2, 3, 64)
    cache.store_prompt(1, entries)
    assert torch.equal(cache.buffer[1, 2, :3], entries[0])
    assert torch.equal(cache.buffer[1, 0, :3], entries[1])
    assert not cache.buffer[0].any()  # the other layer
    assert not cache.buffer[1, :, 3:].any()  # later positions
    assert not cache.buffer[1, [1, 3]].any()  # other slots


def test_a_token_lands_at_its_sequences_position_and_is_seen_at_once():
    cache = build_cache()
    cache.step_at(torch.tensor([3, 1]), torch.tensor([0, 5]))
    entries = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    cached = cache.store_token(0, entries)
    assert torch.equal(cached.buffer[3, 0], entries[0])
    assert torch.equal(cached.buffer[1, 5], entries[1])
    assert cached.slots.tolist() == [3, 1]
    assert cached.lengths.tolist() == [1, 6]  # the newest included
    assert int((cache.buffer != 0).any(-1).sum()) == 2  # nothing else was touched


def test_every_layer_of_a_step_writes_the_same_place():
    cache = build_cache()
    cache.step_at(torch.tensor([2]), torch.tensor([4]))
    for layer in range(2):
        cache.store_token(layer, torch.full((1, 64), float(layer + 1)))
    assert cache.buffer[:, 2, 4, 0].tolist() == [1.0, 2.0]


def test_a_prompt_is_copied_to_all_its_samples_in_all_layers():
    cache = build_cache()
    cache.buffer.copy_(torch.randn(cache.buffer.shape, generator=torch.Generator().manual_seed(0)))
    before = cache.buffer.clone()
    cache.copy(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 2, 3]))  # as for two prompts, two samples each
    for target, source in enumerate([0, 0, 2, 2]):
        assert torch.equal(cache.buffer[:, target], before[:, source])


def test_a_position_past_the_end_raises_instead_of_writing_elsewhere():
    cache = build_cache(positions=8)
    cache.step_at(torch.tensor([0]), torch.tensor([8]))
    with pytest.raises(IndexError):
        cache.store_token(0, torch.ones(1, 64))
