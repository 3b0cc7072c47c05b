"""Named random streams: (run seed, names...) -> integer seed.

Why: every draw comes from its own stream, so adding one draw never shifts another, and a run that is
continued at step N draws what an uninterrupted one would have drawn, without saving generator states.
"""

import hashlib
import random


def stream_seed(run_seed: int, *names: str | int) -> int:
    """A stable 63-bit seed for a named stream; the same on every machine and Python."""
    text = "/".join(map(str, (run_seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream_random(run_seed: int, *names: str | int) -> random.Random:
    """A Python generator on that stream."""
    return random.Random(stream_seed(run_seed, *names))
