"""Do all sides compute the same function? Logits on random prompts, pair by pair, before any time is taken.

Why: a peer that was given wrong weights or wrong metadata would be slow or fast for nothing.
In:  shapes.  Out: the largest difference between each side's logits and the reference's, beside their scale.
The reference is transformers in float32; llama.cpp runs from a float32 file where the shape is small enough,
and then only float32 rounding may remain; bf16 sides differ by bf16 rounding.
"""

import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_cases import LLAMA, STARTS, TENTH, TRANSFORMERS
from benchmarks.engine_files import our_directory, peer_file, wide_file
from benchmarks.engine_side import ask_logits
from benchmarks.workers import Worker
from tenth.base.seeds import stream_seed
from tenth.model.counts import count
from tenth.model.presets import preset

TOKENS = 96
WIDE_BELOW = 100_000_000  # parameters; a float32 file of more is not written for a check
MOST_WIDE, MOST_BF16 = 1e-3, 0.2  # of the largest difference, and of the typical one


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One side against the reference, in standard deviations of the reference's logits."""

    largest: float
    typical: float  # root of the mean square of a token's differences, median over the tokens
    same_top_share: float
    is_wide: bool

    @property
    def holds(self) -> bool:
        """Whether rounding can explain it; in bf16 a router that flips moves a whole token, so the median."""
        return self.largest < MOST_WIDE if self.is_wide else self.typical < MOST_BF16


def sides(root: Path, shape: str, *, has_wide: bool) -> Mapping[str, tuple[str, Mapping[str, Any], bool]]:
    """label -> (side, options, whether it computes in float32); the first is the reference."""
    directory = str(our_directory(root, shape, "bf16"))
    theirs = {"directory": directory, "attention": "eager", "cache": "dynamic", "is_compiled": False}
    native = {"threads": 1, "flash": False, "ubatch": 512, "unified": False, "repack": True}
    found: dict[str, tuple[str, Mapping[str, Any], bool]] = {
        f"{TRANSFORMERS} float32": ("engine_transformers.transformers", {**theirs, "dtype": "fp32"}, True),
        f"{TENTH} bf16": ("engine_sides.tenth_logits", {"directory": directory}, False),
        f"{TRANSFORMERS} bf16": ("engine_transformers.transformers", {**theirs, "dtype": "bf16"}, False),
        f"{LLAMA} bf16": (
            "engine_llama.llama",
            {"path": str(peer_file(root, shape, "bf16")), **STARTS[LLAMA], "threads": 1},
            False,
        ),
    }
    if has_wide:
        path = str(wide_file(root, shape))
        found[f"{LLAMA} float32"] = ("engine_llama.llama", {"path": path, **native, "cache": "f32"}, True)
    return found


def check(root: Path, shape: str) -> dict[str, Agreement]:
    """Every side against the reference."""
    config = preset(shape)
    rng = random.Random(stream_seed(0, "check", shape))
    ids = [rng.randrange(config.vocab_size) for _ in range(TOKENS)]
    has_wide = count(config).total_parameters < WIDE_BELOW
    found, reference = {}, None
    with tempfile.TemporaryDirectory() as folder:
        for label, (side, options, is_wide) in sides(root, shape, has_wide=has_wide).items():
            worker = Worker(f"benchmarks.{side}", options, keeps_memory=False)
            try:
                logits = ask_logits(worker, ids, Path(folder) / "logits.npy")
            finally:
                worker.close()
            if reference is None:
                reference = logits
                continue
            difference = np.abs(logits - reference) / reference.std()
            found[label] = Agreement(
                largest=float(difference.max()),
                typical=float(np.median(np.sqrt((difference**2).mean(-1)))),
                same_top_share=float((logits.argmax(-1) == reference.argmax(-1)).mean()),
                is_wide=is_wide,
            )
            print(f"  {shape}, {label}: {found[label]}", flush=True)
    return found
