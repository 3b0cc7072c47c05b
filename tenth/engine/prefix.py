"""Names for prefixes: one hash per full block, over the block's tokens and everything before them.

Why: two sequences may share a block only if all tokens up to its end are the same and the same weights
wrote it. A chained hash says so in 16 bytes, enough that tokens need not be compared again: one expects the
first clash among 2^64 blocks. Names mean the same in every process, so spilled blocks survive a restart.
In:  token ids, a salt naming weights and cache layout.  Out: one name per full block.
Not here: which block holds a name (block_pool.py).
"""

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from tenth.engine.block_pool import BLOCK


def block_hashes(tokens: Sequence[int], *, salt: bytes, known: list[bytes]) -> list[bytes]:
    """The names of all full blocks of `tokens`; `known` are those of the first blocks, worked out before."""
    hashes = list(known)
    for start in range(len(hashes) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
        before = hashes[-1] if hashes else blake2b(salt, digest_size=16).digest()
        ids = array("q", tokens[start : start + BLOCK]).tobytes()
        hashes.append(blake2b(before + ids, digest_size=16).digest())
    return hashes
