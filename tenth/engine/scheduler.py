"""Who computes what in the next step: continuous batching, chunked prefill, priorities, preemption.

Why: all of it is bookkeeping over integers, so it holds no tensors and is tested with random schedules.
In:  tracks (`add`, `fork`, `abort`, `finish`) and how each planned work went (`computed`).
Out: a `Plan` per step.
Not here: drawing tokens, stop conditions, the cache's tensors (engine.py, runner.py).

Two rules keep it simple. A track that runs owns the blocks of all its tokens: it gets them in one go when it
is admitted, so only a track that generates ever needs a further block. And `running` is kept in order of
rank (priority, then arrival), and the last gives way first: the first always moves on, hence everybody ends.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from tenth.base.errors import QueueFull
from tenth.engine.block_pool import BLOCK, BlockPool, NoBlock
from tenth.engine.prefix import block_hashes
from tenth.engine.track import Plan, Track, TrackState, Work

_rank = attrgetter("priority", "arrival")


class Scheduler:
    """Plans steps over the blocks of one pool, all of which are its own.

    A caller must not let a track grow beyond `pool.num_blocks * BLOCK` tokens. `spilled(name)` is a promise:
    it may say yes only when the block's data has been read and checked. Every yes is a load of the same plan.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_sequences: int,
        max_batch_tokens: int,
        max_waiting: int,
        prefix_caching: bool,
        salt: bytes,
        spilled: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.pool = pool
        self.max_sequences = max_sequences
        self.max_batch_tokens = max_batch_tokens
        self.max_waiting = max_waiting
        self.prefix_caching = prefix_caching
        self.salt = salt
        self.spilled = spilled
        self.running: list[Track] = []  # by rank
        self.waiting: list[Track] = []  # by rank
        self._arrivals = 0
        self._sources: list[int] = []  # blocks that this step copies from, held until it is done

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def num_running(self) -> int:
        return len(self.running)

    @property
    def num_waiting(self) -> int:
        return len(self.waiting)

    # coming and going

    def add(self, track: Track) -> None:
        """Into the queue. Preempted tracks and samples of admitted prompts wait there too, uncounted."""
        if len(self.waiting) >= self.max_waiting:
            raise QueueFull(
                f"{len(self.waiting)} requests are waiting, the most that max_waiting = {self.max_waiting} "
                "allows; try again later."
            )
        if track.state is not TrackState.NEW or not track.tokens:
            raise ValueError(f"track {track.key} is empty or was added before")
        if _blocks_for(len(track.tokens)) > self.pool.num_blocks:
            raise ValueError(f"track {track.key} can never fit into {self.pool.num_blocks} blocks")
        track.arrival = self._arrivals
        self._arrivals += 1
        self._enqueue(track)

    def finish(self, track: Track) -> None:
        """This track has ended; its blocks are free, and findable as far as they were full."""
        if track.state is TrackState.ENDED:
            raise ValueError(f"track {track.key} has ended before")
        if track.state is TrackState.RUNNING:
            self.running.remove(track)
            self._release_blocks(track)
        elif track.state is TrackState.WAITING:
            self.waiting.remove(track)
        track.state = TrackState.ENDED

    def abort(self, track: Track) -> None:
        """End it in whatever state it is, even between schedule() and computed(), even twice."""
        if track.state is not TrackState.ENDED:
            self.finish(track)

    def fork(self, parent: Track, children: Sequence[Track]) -> list[tuple[int, int]]:
        """Start further samples of the parent's prompt. -> block copies, to be made before the next call

        All have one token that has no cache entry yet, as the parent has. A child for which there is no room
        waits, and is admitted like any other.
        """
        copies: list[tuple[int, int]] = []
        for child in children:
            if child.state is not TrackState.NEW or len(child.tokens) != parent.computed + 1:
                raise ValueError(f"track {child.key} is no new sample of track {parent.key}")
            child.priority, child.arrival, child.cached = parent.priority, parent.arrival, parent.cached
            is_room = len(self.running) < self.max_sequences and self.pool.num_free
            if is_room and parent.state is TrackState.RUNNING:
                self._share_prompt(parent, child, copies)
            else:
                self._enqueue(child)
        return copies

    def reset(self, *, salt: bytes | None = None) -> None:
        """No cache entry is valid any more: everybody starts over, under a new salt where one is given."""
        self._release_sources()
        while self.running:
            self._preempt_last()
        for track in self.waiting:
            track.hashes = []
        self.pool.forget()
        if salt is not None:
            self.salt = salt

    def renew(self, track: Track, *, salt: bytes) -> None:
        """The entries of this one alone are not valid any more: it starts over, under a salt of its own."""
        track.salt, track.hashes = salt, []
        if track.state is TrackState.RUNNING:
            self.running.remove(track)
            self._send_back(track)

    # a step

    def schedule(self) -> Plan:
        """The next step: one token (and drafts) for all who generate, then prompts while the budget lasts."""
        self._release_sources()
        plan = Plan()
        works = plan.works
        budget = self.max_batch_tokens
        spare = budget - len(self.running)  # drafts take nobody's one token
        prefilling: list[Track] = []
        is_short = False
        for track in self.running:  # it may lose tracks at its end meanwhile, never the current one
            start = track.computed
            if start + 1 != len(track.tokens):
                prefilling.append(track)
                continue
            if not budget:
                break
            if start >= len(track.blocks) * BLOCK:
                is_short = is_short or not self.pool.num_free
                if not self._grow(track, plan):
                    continue
            num_drafts = 0
            if track.drafts:
                num_drafts = self._fit_drafts(track, spare)
                spare -= num_drafts
            works.append(Work(track, start, 1 + num_drafts, num_drafts))
            budget -= 1 + num_drafts
        self._plan_prefill(plan, prefilling, budget, may_admit=not is_short)
        return plan

    def computed(self, work: Work, kept: int) -> None:
        """The step is done: the first `kept` positions of this work have valid cache entries.

        Accepted drafts are best appended to the track's tokens before; else their blocks are found later.
        """
        if self._sources:
            self._release_sources()
        track = work.track
        if track.state is not TrackState.RUNNING:  # aborted or reset meanwhile
            return
        track.computed = work.start + kept
        if track.drafts:
            track.drafts = []
        if self.prefix_caching and track.computed - BLOCK * track.registered >= BLOCK:
            self._register(track)

    def _plan_prefill(self, plan: Plan, prefilling: list[Track], budget: int, *, may_admit: bool) -> None:
        """Chunks of prompts in order of rank, whether they were begun before or begin now."""
        begun = 0
        while budget:
            track = prefilling[begun] if begun < len(prefilling) else None
            if may_admit and self.waiting and len(self.running) < self.max_sequences:
                head = self.waiting[0]
                if track is None or _rank(head) < _rank(track):
                    may_admit = self._admit(head, plan)  # nobody overtakes a head that finds no room
                    track = head if may_admit else track
            if track is None:
                return
            if begun < len(prefilling) and track is prefilling[begun]:
                begun += 1
            count = min(budget, len(track.tokens) - track.computed)
            plan.works.append(Work(track, track.computed, count, 0))
            budget -= count

    def _grow(self, track: Track, plan: Plan) -> bool:
        """The next block of a track that generates; the last in rank give way, and it waits if it is last."""
        while not self.pool.num_free:
            if self.running[-1] is track:
                if len(self.running) == 1:
                    raise NoBlock(f"track {track.key} alone has outgrown {self.pool.num_blocks} blocks")
                return False
            plan.preempted.append(self._preempt_last())
        track.blocks.append(self.pool.allocate())
        return True

    def _fit_drafts(self, track: Track, spare: int) -> int:
        """As many drafts as budget and free blocks allow; nobody gives way for a guess. Cuts track.drafts."""
        wanted = max(0, min(len(track.drafts), spare))
        end = track.computed + 1 + wanted
        # Everybody may want a block for the one certain token; only what is free beyond that is for guesses.
        while end > len(track.blocks) * BLOCK and self.pool.num_free > len(self.running):
            track.blocks.append(self.pool.allocate())
        wanted = min(wanted, len(track.blocks) * BLOCK - track.computed - 1)
        del track.drafts[wanted:]
        return wanted

    # admission

    def _admit(self, track: Track, plan: Plan) -> bool:
        """All blocks of a waiting track, as many as possible from the cache; or none at all."""
        # A quarter of those who run want a block within 16 steps; who takes the last ones is soon sent away.
        reserve = len(self.running) // 4
        if self.pool.num_free <= reserve:
            return False
        sibling = self._running_sibling(track)
        if sibling is not None:
            self.waiting.remove(track)
            self._share_prompt(sibling, track, plan.copies)
            return True
        total = _blocks_for(len(track.tokens))
        found = self._look_up(track)
        if self.pool.num_free < total - len(found) + reserve:
            self._release(reversed(found))
            return False
        track.blocks = found
        self._load_spilled(track, plan)
        source = self._find_source(track)
        num_found = len(track.blocks)
        missing = total - num_found
        if source is not None and self.pool.num_free < missing + reserve:
            self.pool.release(source)  # not copied from, it may itself be given up
            source = None
        track.registered = num_found
        track.computed = num_found * BLOCK
        track.blocks += [self.pool.allocate() for _ in range(missing)]
        if source is not None:
            plan.copies.append((source, track.blocks[-1]))
            self._sources.append(source)
            track.computed = len(track.tokens) - 1
        if not track.preemptions:
            track.cached = track.computed
        self.waiting.remove(track)
        self._run(track)
        return True

    def _running_sibling(self, track: Track) -> Track | None:
        """For a sample that waited since its prompt was read: another, whose cache still has the prompt."""
        length = len(track.tokens) - 1
        if track.preemptions or length < track.prompt_len:
            return None
        siblings = (t for t in self.running if t.arrival == track.arrival and t.computed >= length)
        return next(siblings, None)

    def _share_prompt(self, parent: Track, child: Track, copies: list[tuple[int, int]]) -> None:
        """Start a child with the parent's blocks for all but its newest token, the partial one as a copy."""
        child.computed = len(child.tokens) - 1
        full, rest = divmod(child.computed, BLOCK)
        child.blocks, child.hashes = parent.blocks[:full], parent.hashes[:full]
        child.registered = min(parent.registered, full)
        for block in child.blocks:
            self.pool.share(block)
        child.blocks.append(self.pool.allocate())
        if rest:
            copies.append((parent.blocks[full], child.blocks[full]))
        self._run(child)

    def _run(self, track: Track) -> None:
        track.state = TrackState.RUNNING
        insort(self.running, track, key=_rank)

    def _look_up(self, track: Track) -> list[int]:
        """The first blocks of a track, as far as memory has them; references taken."""
        found: list[int] = []
        if not self.prefix_caching:
            return found
        track.hashes = block_hashes(track.tokens, salt=self.salt + track.salt, known=track.hashes)
        for name in track.hashes[: _whole(track)]:
            block = self.pool.find(name)
            if block is None:
                break
            found.append(block)
        return found

    def _load_spilled(self, track: Track, plan: Plan) -> None:
        """What comes behind the blocks that were found, as far as memory or the spill store has it.

        Only now that it is sure to be admitted: what has been read from disk must not be waited with.
        """
        if self.spilled is None:
            return
        for name in track.hashes[len(track.blocks) : _whole(track)]:
            block = self.pool.find(name)
            if block is None:
                if not self.spilled(name):
                    return
                block = self.pool.allocate()
                plan.loads.append((name, block))
                self.pool.register(block, name)  # found by others at once: loads come first in a plan
            track.blocks.append(block)

    def _find_source(self, track: Track) -> int | None:
        """A block to copy from when only the last token is missing: that one's logits are always needed."""
        whole = _whole(track)
        if len(track.blocks) < whole or len(track.hashes) <= whole:
            return None
        return self.pool.find(track.hashes[whole])

    def _enqueue(self, track: Track) -> None:
        track.state = TrackState.WAITING
        insort(self.waiting, track, key=_rank)

    def _preempt_last(self) -> Track:
        """The last in rank keeps its tokens only, and waits in front of all who never ran."""
        track = self.running.pop()
        self._send_back(track)
        return track

    def _send_back(self, track: Track) -> None:
        self._release_blocks(track)
        track.computed = 0
        track.drafts = []
        track.preemptions += 1
        self._enqueue(track)

    # blocks

    def _register(self, track: Track) -> None:
        """Make its full blocks findable. Only here: before, somebody might read what is not yet written."""
        full = min(track.computed, len(track.tokens)) // BLOCK
        track.hashes = block_hashes(track.tokens, salt=self.salt + track.salt, known=track.hashes)
        for i in range(track.registered, full):
            self.pool.register(track.blocks[i], track.hashes[i])
        track.registered = full

    def _release_blocks(self, track: Track) -> None:
        # The last block first, so that it goes first: without the one before it cannot be found.
        self._release(reversed(track.blocks))
        track.blocks = []
        track.registered = 0

    def _release(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self.pool.release(block)

    def _release_sources(self) -> None:
        self._release(self._sources)
        self._sources.clear()


def _whole(track: Track) -> int:
    """How many of its blocks are full without its last token."""
    return (len(track.tokens) - 1) // BLOCK


def _blocks_for(num_tokens: int) -> int:
    return (num_tokens + BLOCK - 1) // BLOCK
