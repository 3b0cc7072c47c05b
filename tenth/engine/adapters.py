"""The adapters that an engine serves: their numbers as they were when read, and a name for exactly those.

Why: prefixes computed with an adapter serve requests with that adapter only, and only as long as it does not
learn; a name made of its content says both, in every process.
In:  a Transformer with adapters attached.  Out: `ServedAdapter` by name.
Not here: computing with them (torch_runner.py, native_adapters.py), training them (model/lora.py).
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from tenth.model.lora import LowRankPair, adapter_names, lora_pairs, require_servable
from tenth.model.transformer import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAdapter:
    """One adapter."""

    pairs: Mapping[str, LowRankPair]  # by module path
    fingerprint: bytes


def read_adapters(model: Transformer) -> dict[str, ServedAdapter]:
    """By name; an adapter's number is its place in here."""
    served = {}
    for name in adapter_names(model):
        require_servable(model, name)
        pairs = lora_pairs(model, name)
        served[name] = ServedAdapter(pairs=pairs, fingerprint=_fingerprint(pairs))
    return served


def _fingerprint(pairs: Mapping[str, LowRankPair]) -> bytes:
    """Equal for equal numbers in equal places; costs reading them once."""
    digest = blake2b(digest_size=16)
    for path, pair in pairs.items():
        for tensor in (pair.down, pair.up):
            held = tensor.cpu().contiguous()
            digest.update(f"\n{path} {tuple(held.shape)}\n".encode())
            digest.update((ctypes.c_char * held.nbytes).from_address(held.data_ptr()))
    return digest.digest()
