"""Who is being served and what has come of it: draws become tokens, tokens become news, samples end.

Why: everything that changes a sample after a step is here, so that each ends exactly once, whatever happens:
a stop id, its length, an error of its own, an abort at any moment.
In:  works and their draws.  Out: `Outcome` for whoever guesses next; `Update`s for the caller.
Not here: what is computed next (scheduler.py), guesses (speculator.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tenth.base.records import Finish
from tenth.engine.batcher import Batcher, Packed
from tenth.engine.draw import Draws
from tenth.engine.request import Update
from tenth.engine.runner import Runner
from tenth.engine.scheduler import Scheduler
from tenth.engine.sequence import Sample
from tenth.engine.track import Work

_BROKEN = "the network's scores for token {number} hold NaN or infinity; are the weights sound?"


@dataclass(slots=True)
class Advance:
    """What a step computed of a sample: positions from `start` on, in the batch's rows from `row` on."""

    sample: Sample
    start: int
    valid: int  # positions
    row: int


@dataclass(slots=True)
class Outcome:
    """One step, for whoever guesses the next tokens."""

    advances: list[Advance] = field(default_factory=list)  # empty where nobody guesses
    width: int = 0  # sequences that generate
    tokens: int = 0  # that they got
    drafted: int = 0
    accepted: int = 0
    has_prompts: bool = False  # its time says nothing about steps that only generate


class Ledger:
    """All samples that have not ended, and the news of them."""

    def __init__(self, scheduler: Scheduler, batcher: Batcher, runner: Runner) -> None:
        self.scheduler, self.batcher, self.runner = scheduler, batcher, runner
        self.requests: dict[str, list[Sample]] = {}
        self.updates: list[Update] = []
        self.version = 0  # of the weights
        self.prompt_tokens = self.cached_tokens = self.new_tokens = 0

    def record(self, works: Sequence[Work], packed: Packed, draws: Draws, *, wants_advances: bool) -> Outcome:
        """Write down what a step brought."""
        outcome = Outcome(width=len(works))
        ids, logprobs, scheduler, before = draws.ids, draws.logprobs, self.scheduler, self.new_tokens
        row = 0  # the next draw
        for number, work in enumerate(works):
            sample: Sample = work.track  # type: ignore[assignment]
            tokens, valid = sample.tokens, work.count - work.num_drafts
            if work.start + valid < len(tokens):
                scheduler.computed(work, valid)
                outcome.has_prompts = True
            elif sample.siblings:
                children = self._branch(work, row, draws)
                row += 1 + len(children)
                last = packed.starts[number] + valid - 1
                outcome.advances += [Advance(child, work.start + valid - 1, 1, last) for child in children]
                outcome.has_prompts = True
            elif not sample.logprobs or sample.is_adjusted or work.num_drafts or ids[row] < 0:
                valid = self._take_all(work, row, draws, outcome)
                row += 1 + work.num_drafts
            else:  # the usual case, in as few steps as possible
                token = ids[row]
                tokens.append(token)
                sample.logprobs.append(logprobs[row])
                row += 1
                self.new_tokens += 1
                scheduler.computed(work, valid)
                if token in sample.stop_ids:
                    self.end(sample, Finish.STOP)
                elif len(tokens) >= sample.limit:
                    self.end(sample, Finish.LENGTH)
                if not sample.is_quiet:
                    self.updates.append(sample.news(1))
            if wants_advances:
                outcome.advances.append(Advance(sample, work.start, valid, packed.starts[number]))
        outcome.tokens = self.new_tokens - before
        return outcome

    def _take_all(self, work: Work, row: int, draws: Draws, outcome: Outcome) -> int:
        """Draws of one sample, one after the other as long as the guesses were right. -> valid positions"""
        sample: Sample = work.track  # type: ignore[assignment]
        self._count_prompt(sample)
        drafts, before, right = sample.drafts, len(sample.tokens), 0
        self._take(sample, row, draws)
        while not sample.finish and right < work.num_drafts and sample.tokens[-1] == drafts[right]:
            right += 1
            self._take(sample, row + right, draws)
        valid = work.count - work.num_drafts + right
        self.scheduler.computed(work, valid)
        outcome.drafted += work.num_drafts
        outcome.accepted += right
        outcome.has_prompts = outcome.has_prompts or work.count - work.num_drafts > 1
        if sample.finish:
            self.end(sample, sample.finish)
        self._tell(sample, len(sample.tokens) - before)
        return valid

    def _branch(self, work: Work, row: int, draws: Draws) -> list[Sample]:
        """A prompt has been read: its samples draw their first tokens and part. -> all but the first"""
        parent: Sample = work.track  # type: ignore[assignment]
        self._count_prompt(parent)
        children, parent.siblings = parent.siblings, []
        prompt = parent.tokens[:]
        self.scheduler.computed(work, work.count)
        living = [sample for sample in (parent, *children) if not sample.finish]
        for number, sample in enumerate((parent, *children)):
            if number:
                sample.tokens = prompt[:]
            if not sample.finish:
                self._take(sample, row + number, draws)
        copies = self.scheduler.fork(parent, [child for child in children if not child.finish])
        if copies:
            self.runner.copy_blocks(copies)
        if parent.finish:
            self.end(parent, parent.finish)
        for sample in living:
            if sample.finish:
                self.end(sample, sample.finish)
            self._tell(sample, len(sample.logprobs))
        return children

    def _take(self, sample: Sample, row: int, draws: Draws) -> None:
        token = draws.ids[row]
        if token < 0:
            sample.finish = Finish.ERROR
            sample.error = draws.errors.get(row) or _BROKEN.format(number=len(sample.logprobs))
            return
        sample.tokens.append(token)
        sample.logprobs.append(draws.logprobs[row])
        self.new_tokens += 1
        if row in draws.top_logprobs:
            sample.top_logprobs.append(draws.top_logprobs[row])
        if token in sample.stop_ids:
            sample.finish = Finish.STOP
        elif len(sample.tokens) >= sample.limit:
            sample.finish = Finish.LENGTH

    def _count_prompt(self, sample: Sample) -> None:
        if not sample.logprobs:
            self.prompt_tokens += sample.prompt_len
            self.cached_tokens += sample.cached

    def abort(self, sample: Sample, *, error: str | None = None) -> None:
        """End it now, in whatever state it is; `error` says what went wrong, if anything did."""
        if sample.finish:
            return
        family = self.requests[sample.request_id]
        sample.finish, sample.error = Finish.ERROR if error else Finish.ABORTED, error
        if not family[0].siblings:
            self.end(sample, sample.finish)
        elif all(each.finish for each in family):  # else the rest needs the prompt that the first one reads
            self.end(family[0], family[0].finish or sample.finish)
        self._tell(sample, 0)

    def end(self, sample: Sample, finish: Finish) -> None:
        """It leaves the scheduler, and with the last of its request the request leaves too."""
        sample.finish, sample.version = finish, self.version
        self.scheduler.abort(sample)
        self.batcher.drop([sample])
        if all(each.finish for each in self.requests.get(sample.request_id, ())):
            self.requests.pop(sample.request_id, None)

    def _tell(self, sample: Sample, count: int) -> None:
        if not sample.is_quiet:
            self.updates.append(sample.news(count))
