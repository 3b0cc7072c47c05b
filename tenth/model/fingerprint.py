"""A name for what a network computes: equal for equal weights and configuration, different for any others.

Why: what was computed with some weights and kept on disk is worth something only with the very same ones.
In:  a network.  Out: 16 bytes, the same in every process and on every device.
Not here: what is kept under the name (engine/spill.py).
"""

import ctypes
from hashlib import blake2b

import torch

from tenth.model.lora import base_state_dict
from tenth.model.transformer import Transformer

_CHUNK = 1 << 24  # elements hashed at a time: bounds what is copied from another device


@torch.no_grad()
def weights_fingerprint(model: Transformer) -> bytes:
    """Exact: a hash over every byte of every parameter and saved buffer, their names, and `model.config`.
    Adapters are no part of it: what they change is named beside it.

    Cost: every weight is read once, at the speed of blake2b on one core (about 1 GB/s), without a copy of the
    model; a network of 500 million bfloat16 parameters takes about a second.
    """
    digest = blake2b(repr(model.config).encode(), digest_size=16)
    for name, tensor in base_state_dict(model).items():  # quantised codes and routers' biases are in there
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for piece in tensor.reshape(-1).split(_CHUNK):
            held = piece.cpu().contiguous()
            if held.numel():
                digest.update((ctypes.c_char * held.nbytes).from_address(held.data_ptr()))
    return digest.digest()
