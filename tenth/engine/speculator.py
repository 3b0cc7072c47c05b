"""Speculation as a whole: guesses where they pay, and how many were right.

In:  the outcome of each step and how long it took.  Out: `drafts` on the samples for the next step.
Not here: making guesses (drafts.py), judging whether they pay (speculation.py), checking them (ledger.py).
"""

from collections.abc import Callable

from tenth.engine.drafts import Drafter
from tenth.engine.ledger import Outcome
from tenth.engine.speculation import SpeculationGate


class Speculator:
    """Asks the drafter after every step, if the gate lets it."""

    def __init__(self, drafter: Drafter | None, clock: Callable[[], float]) -> None:
        self.drafter, self.clock = drafter, clock
        self.gate = SpeculationGate()
        self.is_on = drafter is not None  # whether the next step should tell what it advanced
        self.drafted = self.accepted = 0

    def step_done(self, outcome: Outcome, *, began: float) -> None:
        """A step that began at that time is over; guess for the next one."""
        if self.drafter is None or not outcome.width:
            return
        computed = self.clock()
        self.drafted += outcome.drafted
        self.accepted += outcome.accepted
        should_draft = self.gate.should_draft(outcome.width)
        if outcome.advances and (should_draft or self.drafter.keeps_entries):
            self.drafter.draft(outcome.advances)
            if not should_draft:  # a trial without: the guesses were made for the sake of the entries
                for advance in outcome.advances:
                    advance.sample.drafts = []
        if not outcome.has_prompts:
            # Who checks guesses has paid for making them; in a trial without, the making does not count.
            ended = self.clock() if outcome.drafted else computed
            self.gate.record(
                outcome.width,
                is_drafted=outcome.drafted > 0,
                tokens=outcome.tokens,
                seconds=ended - began,
            )
        self.is_on = self.gate.should_draft(outcome.width) or self.gate.pays(outcome.width)
