"""Guesses at the next tokens, from the MTP module or from the sequence itself, and when to make them.

Why the MTP module draws its guess with the very number that the token itself will be drawn with: where the
two distributions are alike the same number gives the same token, at any temperature.

The module's own cache entry of a token needs the network's hidden state one position before it, which is at
hand only in the step that computed it. So entries are made at the end of every step, for the token after each
computed one. A sequence that skips a step (drafting was off, a prefix came from the cache, a sample left the
prompt it shares) has a gap; what the module sees then starts anew behind the gap (`Batch.firsts`). That makes
its next guesses a little worse and changes nothing else.
Not here: checking guesses (engine.py), whether they pay (speculation.py).
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from tenth.engine.batcher import Batcher
from tenth.engine.block_pool import BLOCK, BlockPool
from tenth.engine.ledger import Advance
from tenth.engine.prompt_lookup import PromptLookup
from tenth.engine.runner import Runner
from tenth.engine.sampler import sample
from tenth.engine.sequence import Sample
from tenth.engine.track import TrackState, Work


class Drafter(Protocol):
    """Makes guesses."""

    keeps_entries: bool  # whether a step left out is a gap in what it knows

    def draft(self, advances: Sequence[Advance]) -> None:
        """Set `drafts` of every sample that generates."""


class MtpDrafter:
    """One guess per sequence by the MTP module."""

    keeps_entries = True

    def __init__(self, runner: Runner, batcher: Batcher, pool: BlockPool) -> None:
        self.runner, self.batcher, self.pool = runner, batcher, pool

    def draft(self, advances: Sequence[Advance]) -> None:
        """See `Drafter`."""
        works: list[Work] = []
        sources: list[int] = []
        firsts: list[int] = []
        for advance in advances:
            each, start, valid = advance.sample, advance.start, advance.valid
            if each.state is not TrackState.RUNNING or not self._has_room(each):
                continue
            if each.draft_next != start + 1:
                each.draft_from = start + 1
            each.draft_next = start + 1 + valid
            works.append(Work(each, start + 1, valid, 0))
            sources += range(advance.row, advance.row + valid)
            firsts.append(each.draft_from)
        if not works:
            return
        packed = self.batcher.pack(works, firsts=firsts)
        logits = self.runner.draft(packed.batch, torch.tensor(sources))
        if not packed.samples:
            return
        drawn = sample(logits, packed.uniforms.to(logits.device), packed.settings)
        for each, token in zip(packed.samples, drawn.ids.tolist(), strict=True):
            if token >= 0 and len(each.tokens) + 1 < each.limit and not each.siblings:
                each.drafts = [token]

    def _has_room(self, each: Sample) -> bool:
        """The newest token's entry may need a block that the network itself needs only in the next step."""
        if each.computed < len(each.blocks) * BLOCK:
            return True
        if self.pool.num_free:
            each.blocks.append(self.pool.allocate())
            return True
        return False


class LookupDrafter:
    """Guesses by looking back."""

    keeps_entries = False

    def __init__(self, draft_tokens: int) -> None:
        self.draft_tokens = draft_tokens

    def draft(self, advances: Sequence[Advance]) -> None:
        """See `Drafter`."""
        for advance in advances:
            each = advance.sample
            if each.siblings:  # the prompt they share ends in draws of their own
                continue
            room = min(self.draft_tokens, each.limit - len(each.tokens) - 1)
            if room > 0 and each.state is TrackState.RUNNING and each.computed + 1 == len(each.tokens):
                each.lookup = each.lookup or PromptLookup()
                each.drafts = each.lookup.guess(each.tokens, room)
