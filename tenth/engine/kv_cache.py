"""A cache of fixed slots: one row of positions per sequence, every layer; the first `KVCache`.

Why: a rollout batch is known in advance, so one buffer with a slot per sequence is all it needs.
In/out: see model/cache.py. Not here: paging, sharing, spilling.
"""

import torch
from torch import Tensor

from tenth.model.cache import Cached
from tenth.model.config import ModelConfig

# Shapes: L layers, S slots, P positions, W entry width, B prompts of T tokens, R sequences decoding


def entry_width(config: ModelConfig) -> int:
    """Numbers kept per position and layer: the latent and the rotary key, or keys and values."""
    if config.mla:
        return config.mla.kv_lora_rank + config.mla.qk_rope_head_dim
    assert config.gqa is not None
    return 2 * config.gqa.num_key_value_heads * config.gqa.head_dim


class SlotCache:
    """`slots` sequences of up to `positions` tokens."""

    def __init__(
        self, config: ModelConfig, *, slots: int, positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_hidden_layers, slots, positions, entry_width(config))
        self.buffer = torch.zeros(shape, dtype=dtype, device=device)  # (L, S, P, W)
        self._prompt_slots = torch.empty(0, dtype=torch.int64)
        self._slots = self._positions = self._lengths = self._prompt_slots

    def read_prompts_into(self, slots: Tensor) -> None:
        """The next prompts passed through the network belong to these slots (B,)."""
        self._prompt_slots = slots

    def step_at(self, slots: Tensor, positions: Tensor) -> None:
        """The next decode step writes position positions[r] of slots[r]. Both (R,)"""
        self._slots, self._positions, self._lengths = slots, positions, positions + 1

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Give the slots `target` (N,) what the slots `source` (N,) hold."""
        self.buffer[:, target] = self.buffer[:, source]

    def store_prompt(self, layer_id: int, entries: Tensor) -> None:
        self.buffer[layer_id, self._prompt_slots, : entries.shape[1]] = entries

    def store_token(self, layer_id: int, entries: Tensor) -> Cached:
        layer = self.buffer[layer_id]
        layer[self._slots, self._positions] = entries
        return Cached(buffer=layer, slots=self._slots, lengths=self._lengths)
