"""The block pool: reference counts, what stays findable, and in which order it is given up."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenth.engine.block_pool import BlockPool, NoBlock


def test_blocks_run_out_and_come_back():
    pool = BlockPool(2)
    assert {pool.allocate(), pool.allocate()} == {0, 1}
    with pytest.raises(NoBlock):
        pool.allocate()
    pool.release(1)
    assert pool.num_free == 1
    assert pool.allocate() == 1


def test_a_shared_block_is_free_when_its_last_user_has_gone():
    pool = BlockPool(1)
    block = pool.allocate()
    pool.share(block)
    pool.release(block)
    assert (pool.num_free, pool.references(block)) == (0, 1)
    pool.release(block)
    assert (pool.num_free, pool.references(block)) == (1, 0)


def test_a_free_block_can_be_found_until_it_is_given_away():
    pool = BlockPool(1)
    block = pool.allocate()
    pool.register(block, b"name")
    pool.release(block)
    assert pool.find(b"name") == block
    assert pool.num_free == 0  # whoever finds it uses it
    pool.release(block)
    pool.allocate()
    assert pool.find(b"name") is None


def test_blocks_of_no_use_go_first_then_the_ones_unused_for_longest():
    evicted = []
    pool = BlockPool(3, on_evict=lambda block, name: evicted.append((block, name)))
    blocks = [pool.allocate() for _ in range(3)]
    pool.register(blocks[0], b"zero")
    pool.register(blocks[1], b"one")
    for block in blocks:
        pool.release(block)
    pool.release(pool.find(b"zero"))  # used again, so block 1 is now the older
    assert [pool.allocate() for _ in range(3)] == [blocks[2], blocks[1], blocks[0]]
    assert evicted == [(blocks[1], b"one"), (blocks[0], b"zero")]


def test_eviction_is_told_while_the_name_still_stands():
    pool = BlockPool(1)
    found = []
    pool.on_evict = lambda block, name: found.append(pool.references(block))
    pool.register(pool.allocate(), b"name")
    pool.release(0)
    pool.allocate()
    assert found == [0]  # told before it belongs to somebody else


def test_the_first_block_of_a_name_keeps_it():
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    pool.register(first, b"name")
    pool.register(second, b"name")
    pool.release(second)
    assert pool.find(b"name") == first
    assert pool.allocate() == second  # it was blank: nothing of worth is lost


def test_what_would_be_missed_least_is_named_first():
    pool = BlockPool(6)
    blocks = [pool.allocate() for _ in range(5)]
    for block, name in zip(blocks, (b"a", b"b", b"c", b"d"), strict=False):
        pool.register(block, name)
    for block in (blocks[1], blocks[0], blocks[4]):  # c and d remain in use, the last one has no name
        pool.release(block)
    assert [name for _, name in pool.named()] == [b"b", b"a", b"d", b"c"]
    assert all(pool.find(name) == block for block, name in pool.named())


def test_after_forgetting_nothing_is_found_and_nothing_is_told_of():
    pool = BlockPool(2, on_evict=lambda block, name: pytest.fail("nothing here is worth keeping"))
    held, free = pool.allocate(), pool.allocate()
    pool.register(held, b"held")
    pool.register(free, b"free")
    pool.release(free)
    pool.forget()
    assert (pool.find(b"held"), pool.find(b"free"), pool.num_free) == (None, None, 1)
    pool.release(held)
    assert {pool.allocate(), pool.allocate()} == {0, 1}


@pytest.mark.parametrize("act", [BlockPool.release, BlockPool.share, lambda p, b: p.register(b, b"x")])
def test_a_free_block_can_be_neither_released_nor_shared_nor_named(act):
    with pytest.raises(ValueError, match="block 0 is free"):
        act(BlockPool(1), 0)


class Pool(RuleBasedStateMachine):
    """The pool beside a plain account of who holds what."""

    @initialize(size=st.integers(1, 6))
    def build(self, size):
        self.size, self.held, self.names = size, [], {}
        self.pool = BlockPool(size, on_evict=self.evict)

    def evict(self, block, name):
        assert block not in self.held
        assert self.names.pop(name) == block

    @rule()
    def allocate(self):
        if len(set(self.held)) == self.size:
            with pytest.raises(NoBlock):
                self.pool.allocate()
        else:
            block = self.pool.allocate()
            assert block not in self.held
            assert block not in self.names.values()
            self.held.append(block)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def share(self, data):
        block = data.draw(st.sampled_from(self.held))
        self.pool.share(block)
        self.held.append(block)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        block = data.draw(st.sampled_from(self.held))
        self.pool.release(block)
        self.held.remove(block)

    @precondition(lambda self: set(self.held) - set(self.names.values()))
    @rule(data=st.data(), name=st.sampled_from([b"a", b"b", b"c"]))
    def register(self, data, name):
        block = data.draw(st.sampled_from(sorted(set(self.held) - set(self.names.values()))))
        self.pool.register(block, name)
        self.names.setdefault(name, block)

    @rule(name=st.sampled_from([b"a", b"b", b"c"]))
    def find(self, name):
        block = self.pool.find(name)
        assert block == self.names.get(name)
        if block is not None:
            self.held.append(block)

    @rule()
    def forget(self):
        self.pool.forget()
        self.names.clear()

    @invariant()
    def every_block_is_either_held_or_free(self):
        assert self.pool.num_free == self.size - len(set(self.held))
        assert [self.pool.references(b) for b in range(self.size)] == [
            self.held.count(b) for b in range(self.size)
        ]


TestPool = Pool.TestCase
