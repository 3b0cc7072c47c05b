"""What the scheduler and the engine hand each other: a sequence on its way, and what one step computes of it.

Why: these three are made or touched once per sequence and step, so they are plain classes with slots.
Not here: decisions (scheduler.py); text, parameters and log-probabilities (the engine keeps those by `key`).
"""

from collections.abc import Hashable, Iterable
from enum import Enum


class TrackState(Enum):
    NEW = "new"
    WAITING = "waiting"  # holds no block
    RUNNING = "running"  # holds the blocks of all its tokens
    ENDED = "ended"


class Track:
    """One sequence being generated. The engine appends to `tokens` and sets `drafts`; the rest is the
    scheduler's."""

    __slots__ = (
        "arrival",
        "blocks",
        "cached",
        "computed",
        "drafts",
        "hashes",
        "key",
        "preemptions",
        "priority",
        "prompt_len",
        "registered",
        "salt",
        "state",
        "tokens",
    )

    def __init__(self, key: Hashable, tokens: Iterable[int], *, prompt_len: int, priority: int = 0) -> None:
        self.key = key
        self.tokens = list(tokens)  # prompt and generated ones; only ever appended to
        self.prompt_len = prompt_len
        self.priority = priority  # lower runs first
        self.arrival = 0  # given by Scheduler.add; samples of one prompt share it
        self.state = TrackState.NEW
        self.computed = 0  # the first so many tokens have cache entries
        self.blocks: list[int] = []  # blocks[i] holds positions BLOCK * i and following
        self.salt = b""  # what its entries depend on beside its tokens and the weights of all
        self.hashes: list[bytes] = []  # names of its full blocks, as far as they were needed
        self.registered = 0  # the first so many blocks can be found by others
        self.cached = 0  # tokens that the prefix cache had at first admission
        self.drafts: list[int] = []  # guesses at what follows `tokens`
        self.preemptions = 0


class Work:
    """Compute `count` positions of a track from `start` on; the last `num_drafts` are its drafts."""

    __slots__ = ("count", "num_drafts", "start", "track")

    def __init__(self, track: Track, start: int, count: int, num_drafts: int) -> None:
        self.track = track
        self.start = start
        self.count = count
        self.num_drafts = num_drafts


class Plan:
    """One step. To be carried out in this order: loads, copies, works."""

    __slots__ = ("copies", "loads", "preempted", "works")

    def __init__(self) -> None:
        self.loads: list[tuple[bytes, int]] = []  # fill the block with what the spill store has of this name
        self.copies: list[tuple[int, int]] = []  # source -> target, one after the other
        self.works: list[Work] = []
        self.preempted: list[Track] = []  # back to waiting; none of them is in `works`
