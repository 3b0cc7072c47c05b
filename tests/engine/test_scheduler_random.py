"""The scheduler under random schedules: whatever happens, no block leaks, nobody reads what is not there, and
everybody ends once. What is checked in each step stands in scheduler_world.py."""

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from scheduler_world import World

from tenth.base.errors import QueueFull
from tenth.engine.block_pool import BLOCK

LENGTHS = (1, 2, 63, 64, 65, 100, 127, 128, 129, 192, 200)


class Schedules(RuleBasedStateMachine):
    @initialize(
        blocks=st.integers(4, 8),
        sequences=st.integers(1, 6),
        budget=st.sampled_from((1, 5, 64, 150, 512)),
        queue=st.integers(1, 6),
        kept=st.sampled_from(("nowhere", "in memory", "in memory and on disk")),
    )
    def build(self, *, kept, **settings):
        self.world = World(**settings, caching=kept != "nowhere", spilling="disk" in kept)
        self.count = 0

    @rule(
        times=st.integers(1, 4),
        length=st.sampled_from(LENGTHS),
        differs_at=st.sampled_from((0, 70, 1000)),  # from the first token on, in the second block, nowhere
        new=st.sampled_from((1, 2, 3, 20, 64, 70)),
        n=st.sampled_from((1, 1, 2, 4)),
        priority=st.sampled_from((0, 0, 1, -1)),
    )
    def submit(self, times, length, differs_at, new, n, priority):
        scheduler = self.world.scheduler
        length = min(length, self.world.pool.num_blocks * BLOCK - new)
        for _ in range(times):
            self.count += 1
            prompt = [5] * length
            prompt[differs_at:] = [self.count % 3] * len(prompt[differs_at:])
            is_full = scheduler.num_waiting >= scheduler.max_waiting
            try:
                self.world.submit(f"r{self.count}", prompt, new=new, n=n, priority=priority)
            except QueueFull:
                assert is_full
            else:
                assert not is_full

    @precondition(lambda self: self.world.samples)
    @rule(seed=st.integers(0, 999), times=st.sampled_from((1, 3, 30)))
    def step(self, seed, times):
        random = Random(seed)
        for _ in range(times):
            self.world.step(random)

    @precondition(lambda self: self.world.samples)
    @rule(data=st.data(), seed=st.integers(0, 999))
    def abort_during_a_step(self, data, seed):
        keys = st.lists(st.sampled_from(sorted(self.world.samples, key=str)), unique=True, max_size=3)
        self.world.step(Random(seed), aborted=data.draw(keys))

    @precondition(lambda self: self.world.samples)
    @rule(data=st.data())
    def abort(self, data):
        self.world.abort(data.draw(st.sampled_from(sorted(self.world.samples, key=str))))
        self.world.check_blocks()

    @rule()
    def change_weights(self):
        self.world.change_weights()
        self.world.check_blocks()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.drain(Random(1))


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(stateful_step_count=40)


@pytest.mark.parametrize("seed", range(6))
def test_a_long_and_crowded_day_ends_with_every_block_free(seed):
    random = Random(seed)
    world = World(
        blocks=random.randint(8, 40),
        sequences=random.randint(2, 16),
        budget=random.choice((8, 64, 512)),
        queue=40,
        caching=random.random() < 0.8,
        spilling=random.random() < 0.5,
    )
    for number in range(100):
        prompt = [random.randrange(2)] * random.randint(1, 130) + [number] * random.randint(0, 60)
        try:
            n = random.choice((1, 1, 8))
            world.submit(f"r{number}", prompt, new=random.randint(1, 150), n=n, priority=random.randint(0, 2))
        except QueueFull:
            world.step(random)
        for _ in range(random.choice((0, 0, 5))):
            unlucky = sorted(world.samples, key=str)[:1] if random.random() < 0.1 else []
            world.step(random, aborted=unlucky)
    world.drain(random)
    assert world.ends
