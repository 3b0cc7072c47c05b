"""A world for the scheduler to live in: an engine without a network that knows what every slot should hold.

The "entry" of a position is a number that depends on the weights' version and all tokens up to it, so a block
that was overwritten, shared too early, copied from the wrong place or kept over a change of weights is
noticed by the first work that would have attended to it.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

from tenth.engine.block_pool import BLOCK, BlockPool
from tenth.engine.scheduler import Scheduler
from tenth.engine.track import Plan, Track, TrackState, Work


@dataclass(eq=False)
class Sample:
    """One track, and what it was promised."""

    track: Track
    goal: int  # tokens in all when it ends
    siblings: int = 0  # to be forked once the prompt has been read
    end: int | None = None  # the position after the last one computed
    num_computed: int = 0  # entries that were computed and kept


class World:
    def __init__(self, *, blocks=8, sequences=4, budget=64, queue=8, caching=True, spilling=False):
        self.version = 0
        self.cache: list[list[int | None]] = [[None] * BLOCK for _ in range(blocks)]
        self.store: dict[bytes, list[int | None]] = {}  # spilled blocks
        self.promised: list[bytes] = []  # what the scheduler was told it may load
        self.names: dict[int | None, bytes] = {}  # last entry of a spilled block -> its name
        self.pool = BlockPool(blocks, on_evict=self._evict if spilling else None)
        self.scheduler = Scheduler(
            self.pool,
            max_sequences=sequences,
            max_batch_tokens=budget,
            max_waiting=queue,
            prefix_caching=caching,
            salt=b"0",
            spilled=self._spilled if spilling else None,
        )
        self.samples: dict[object, Sample] = {}  # those alive
        self.ends: Counter[object] = Counter()
        self.num_steps = 0

    # what users do

    def submit(self, key, prompt, *, new, n=1, priority=0) -> Track:
        track = Track(key, prompt, prompt_len=len(prompt), priority=priority)
        self.scheduler.add(track)
        self.samples[key] = Sample(track, len(prompt) + new, siblings=n - 1)
        return track

    def abort(self, key) -> None:
        self.scheduler.abort(self.samples[key].track)
        self._end(key)

    def change_weights(self) -> None:
        self.version += 1
        # In memory, forgetting is enough; on disk, only the salt tells old entries from new ones.
        self.scheduler.reset(salt=str(self.version).encode() if self.pool.on_evict else None)
        for sample in self.samples.values():
            sample.end = None

    # a step

    def step(self, random: Random | None = None, *, aborted=()) -> Plan:
        """With a `random`, drafts are made up; `aborted` are aborted while the step is being computed."""
        self.num_steps += 1
        plan = self.scheduler.schedule()
        self._check_plan(plan)
        for name, block in plan.loads:
            self.cache[block] = list(self.store[name])
        self._copy(plan.copies)
        for work in plan.works:
            self._check_history(work)
        for work in plan.works:
            self._write(work)
        for work in plan.works:
            self._check_history(work)
        for key in aborted:
            self.abort(key)
        for work in plan.works:
            self._advance(work, random)
        self.check_blocks()
        return plan

    def drain(self, random: Random | None = None) -> None:
        """Until all have ended. In each step the first in rank of those who generate moves on for good, or,
        if nobody generates, the first in rank; it can be set back only by someone before it."""
        goals = sum(s.goal * (1 + s.siblings) for s in self.samples.values())
        bound = self.num_steps + goals * sum(1 + s.siblings for s in self.samples.values())
        while self.scheduler.has_work:
            self.step(random)
            assert self.num_steps <= bound, "somebody starves"
        assert not self.samples
        assert self.pool.num_free == self.pool.num_blocks
        assert set(self.ends.values()) <= {1}

    def _advance(self, work: Work, random: Random | None) -> None:
        """Draw, compare with the drafts, append, tell the scheduler: in either order."""
        track, sample = work.track, self.samples.get(work.track.key)
        if sample is None:  # aborted in this very step
            self.scheduler.computed(work, work.count)
            assert track.state is TrackState.ENDED
            return
        known = work.start + work.count - work.num_drafts
        new, kept = [], work.count
        if known == len(track.tokens):
            new = [self._draw(track.tokens, track.key)]
            for draft in track.drafts:
                if draft != new[-1]:
                    break
                new.append(self._draw(track.tokens + new, track.key))
            kept += len(new) - 1 - work.num_drafts
        sample.num_computed += kept
        sample.end = work.start + kept
        if random is None or random.random() < 0.5:
            track.tokens.extend(new)
            self.scheduler.computed(work, kept)
        else:
            self.scheduler.computed(work, kept)
            track.tokens.extend(new)
        assert (track.computed, track.drafts) == (sample.end, [])
        if new:
            self._go_on(sample, random)

    def _go_on(self, sample: Sample, random: Random | None) -> None:
        """A token was drawn: fork, end or guess what comes next."""
        track = sample.track
        if sample.siblings:
            self._fork(sample)
        left = sample.goal - len(track.tokens)
        if not left:
            self.scheduler.finish(track)
            self._end(track.key)
        elif random is not None and left > 1 and random.random() < 0.5:
            tokens = list(track.tokens)
            for _ in range(random.randint(1, min(5, left - 1))):
                tokens.append(self._draw(tokens, track.key) if random.random() < 0.8 else 99)
            track.drafts = tokens[len(track.tokens) :]

    def _fork(self, sample: Sample) -> None:
        parent = sample.track
        prompt = parent.tokens[: parent.prompt_len]
        children = []
        for number in range(1, sample.siblings + 1):
            child = Track((parent.key, number), prompt, prompt_len=len(prompt))
            child.tokens.append(self._draw(prompt, child.key))
            children.append(child)
            self.samples[child.key] = Sample(child, sample.goal)
        sample.siblings = 0
        self._copy(self.scheduler.fork(parent, children))
        for child in children:
            if len(child.tokens) == self.samples[child.key].goal:
                self.scheduler.finish(child)
                self._end(child.key)

    def _end(self, key) -> None:
        sample = self.samples.pop(key)
        self.ends[key] += 1
        assert sample.track.state is TrackState.ENDED
        assert not sample.track.blocks

    # the cache

    def _draw(self, tokens, key) -> int:
        """The next token: any function of what is before it and of whose it is."""
        return hash((len(tokens), tokens[-1], str(key)[-2:] == "1)")) % 7

    def _entries(self, tokens) -> list[int]:
        entries, entry = [], self.version
        for token in tokens:
            entry = hash((entry, token))
            entries.append(entry)
        return entries

    def _evict(self, block: int, name: bytes) -> None:
        assert None not in self.cache[block]
        assert self.names.setdefault(self.cache[block][-1], name) == name
        self.store[name] = list(self.cache[block])

    def _spilled(self, name: bytes) -> bool:
        if name in self.store:
            self.promised.append(name)
        return name in self.store

    def _copy(self, pairs) -> None:
        for source, target in pairs:
            assert self.pool.references(source)
            assert self.pool.references(target) == 1
            self.cache[target] = list(self.cache[source])

    def _write(self, work: Work) -> None:
        track = work.track
        entries = self._entries(track.tokens + track.drafts)
        for position in range(work.start, work.start + work.count):
            block = track.blocks[position // BLOCK]
            assert self.pool.references(block) == 1, "written while somebody else reads it"
            self.cache[block][position % BLOCK] = entries[position]

    # what must hold

    def _check_history(self, work: Work) -> None:
        track = work.track
        held = [entry for block in track.blocks for entry in self.cache[block]]
        assert held[: work.start] == self._entries(track.tokens[: work.start])

    def _check_plan(self, plan: Plan) -> None:
        assert plan.works or not self.scheduler.has_work, "nobody moves on"
        assert sum(work.count for work in plan.works) <= self.scheduler.max_batch_tokens
        assert len({work.track for work in plan.works}) == len(plan.works)
        assert [name for name, _ in plan.loads] == self.promised, "read from disk and not loaded"
        self.promised.clear()
        for work in plan.works:
            sample = self.samples[work.track.key]
            assert work.track.state is TrackState.RUNNING
            assert work.num_drafts == len(work.track.drafts)
            assert 1 <= work.count - work.num_drafts <= len(work.track.tokens) - work.start
            assert work.start == work.track.computed
            if sample.end is not None and not work.track.preemptions:
                assert work.start == sample.end, "computed twice, or not at all"
        for track in plan.preempted:
            assert track.state is TrackState.WAITING
            self.samples[track.key].end = None

    def check_blocks(self) -> None:
        scheduler, pool = self.scheduler, self.pool
        users = Counter(block for track in scheduler.running for block in track.blocks)
        assert [pool.references(b) for b in range(pool.num_blocks)] == [
            users[b] for b in range(pool.num_blocks)
        ]
        assert pool.num_free + len(users) == pool.num_blocks
        for track in scheduler.running:
            assert track.state is TrackState.RUNNING
            assert len(track.blocks) * BLOCK >= len(track.tokens) - 1
            for i, block in enumerate(track.blocks):
                if users[block] > 1:
                    assert (i + 1) * BLOCK <= track.computed, "shared before it was full"
                    assert i < track.registered or not scheduler.prefix_caching
        for track in scheduler.waiting:
            assert track.state is TrackState.WAITING
            assert (track.blocks, track.computed, track.drafts) == ([], 0, [])
        assert len(scheduler.running) <= scheduler.max_sequences
        alive = {sample.track for sample in self.samples.values()}
        assert {*scheduler.running, *scheduler.waiting} == alive
        assert len(scheduler.running) + len(scheduler.waiting) == len(alive)
