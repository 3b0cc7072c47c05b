"""The scheduler's promises, one by one. Random schedules: test_scheduler_random.py."""

import subprocess
import sys

import pytest
from scheduler_world import World

from tenth.base.errors import QueueFull, TenthError
from tenth.engine.block_pool import BLOCK, NoBlock
from tenth.engine.track import Track, TrackState


def works(plan):
    """(key, start, count) of each work."""
    return [(work.track.key, work.start, work.count) for work in plan.works]


# one step


def test_a_prompt_is_read_in_chunks_of_the_budget_and_then_gives_a_token_per_step():
    world = World(budget=64)
    world.submit("a", range(150), new=3)
    assert [works(world.step()) for _ in range(5)] == [
        [("a", 0, 64)],
        [("a", 64, 64)],
        [("a", 128, 22)],  # 150 - 128; the first token is drawn here
        [("a", 150, 1)],
        [("a", 151, 1)],
    ]
    assert not world.scheduler.has_work


def test_those_who_generate_come_first_and_a_prompt_gets_what_is_left():
    world = World(budget=10)
    world.submit("a", [1] * 3, new=5)
    world.step()
    world.submit("b", [2] * 30, new=1)
    assert works(world.step()) == [("a", 3, 1), ("b", 0, 9)]
    assert works(world.step()) == [("a", 4, 1), ("b", 9, 9)]


def test_no_more_run_at_once_than_was_asked_for():
    world = World(sequences=2)
    for key in "abc":
        world.submit(key, [1], new=2)
    assert [key for key, *_ in works(world.step())] == ["a", "b"]
    assert (world.scheduler.num_running, world.scheduler.num_waiting) == (2, 1)


def test_a_budget_smaller_than_the_batch_serves_the_first_ones():
    world = World(budget=2, sequences=3)
    for key in "abc":
        world.submit(key, [1], new=3)
    assert [works(world.step()) for _ in range(4)] == [
        [("a", 0, 1), ("b", 0, 1)],
        [("a", 1, 1), ("b", 1, 1)],
        [("a", 2, 1), ("b", 2, 1)],
        [("c", 0, 1)],
    ]


def test_an_empty_scheduler_plans_nothing():
    plan = World().step()
    assert (plan.works, plan.copies, plan.loads, plan.preempted) == ([], [], [], [])


# who is next


def test_equal_priorities_are_served_in_the_order_of_arrival():
    world = World(sequences=1)
    for key in "cab":
        world.submit(key, [1], new=1)
    assert [works(world.step())[0][0] for _ in range(3)] == ["c", "a", "b"]


def test_a_waiting_request_of_high_priority_overtakes():
    world = World(sequences=1)
    world.submit("a", [1], new=2)
    world.step()
    world.submit("b", [1], new=1)
    world.submit("urgent", [1], new=1, priority=-1)
    assert [works(world.step())[0][0] for _ in range(3)] == ["a", "urgent", "b"]


def test_an_urgent_prompt_is_read_before_the_rest_of_a_long_one():
    world = World(budget=64)
    world.submit("long", [1] * 200, new=1)
    world.step()
    world.submit("urgent", [2] * 40, new=1, priority=-1)
    assert works(world.step()) == [("urgent", 0, 40), ("long", 64, 24)]


def test_a_small_request_does_not_overtake_a_large_one_that_finds_no_room():
    world = World(blocks=4)
    world.submit("a", [1] * 100, new=5)
    world.submit("large", [2] * 200, new=1)
    world.submit("small", [3], new=1)
    world.step()
    assert works(world.step()) == [("a", 64, 36)]  # two blocks are free, large needs four
    world.drain()


# bounds


def test_the_queue_is_bounded_and_says_so():
    world = World(queue=2)
    world.submit("a", [1], new=1)
    world.submit("b", [1], new=1)
    with pytest.raises(QueueFull, match=r"2 requests are waiting.*max_waiting = 2.*try again"):
        world.scheduler.add(Track("c", [1], prompt_len=1))
    world.step()
    world.submit("c", [1], new=1)
    assert issubclass(QueueFull, TenthError)


def test_what_can_never_fit_is_refused_at_once():
    world = World(blocks=2)
    world.scheduler.add(Track("just", [1] * 2 * BLOCK, prompt_len=2 * BLOCK))
    with pytest.raises(ValueError, match="can never fit into 2 blocks"):
        world.scheduler.add(Track("over", [1] * (2 * BLOCK + 1), prompt_len=2 * BLOCK + 1))


def test_a_track_that_outgrows_the_whole_pool_is_a_fault_and_not_an_endless_wait():
    world = World(blocks=1)
    world.submit("a", [1] * 60, new=10)
    with pytest.raises(NoBlock, match="a alone has outgrown 1 blocks"):
        world.drain()


def test_a_track_is_added_once_and_ends_once():
    world = World()
    track = world.submit("a", [1], new=2)
    with pytest.raises(ValueError, match="added before"):
        world.scheduler.add(track)
    world.scheduler.finish(track)
    with pytest.raises(ValueError, match="ended before"):
        world.scheduler.finish(track)
    world.scheduler.abort(track)  # whoever aborts cannot know that it has just ended


# preemption


def test_the_last_of_the_lowest_priority_gives_way_and_keeps_its_tokens():
    world = World(blocks=4, caching=False)
    low = [world.submit(key, [3] * 10, new=60, priority=1) for key in ("low 1", "low 2")]
    high = [world.submit(key, [length] * length, new=9) for key, length in (("high 1", 63), ("high 2", 10))]
    world.step()
    world.step()
    tokens = list(low[1].tokens)
    plan = world.step()  # "high 1" is at position 64
    assert plan.preempted == [low[1]]
    assert [key for key, *_ in works(plan)] == ["high 1", "high 2", "low 1"]
    assert low[1].tokens == tokens
    assert world.scheduler.waiting == [low[1]]
    world.drain()
    assert [track.preemptions for track in (*high, *low)] == [0, 0, 0, 1]


def test_who_was_preempted_comes_back_before_those_who_never_ran():
    world = World(blocks=2, caching=False)
    world.submit("a", [1] * 63, new=10)
    preempted = world.submit("b", [2] * 5, new=30)
    world.step()
    never = world.submit("c", [3] * 5, new=5)
    world.step()
    assert world.step().preempted == [preempted]
    assert world.scheduler.waiting == [preempted, never]


def test_the_last_in_rank_waits_for_a_block_and_keeps_what_it_has():
    world = World(blocks=2, budget=512, caching=False)
    world.submit("a", [1] * 10, new=20)
    last = world.submit("b", [2] * 62, new=20)
    world.step()
    for _ in range(3):
        plan = world.step()
    assert [key for key, *_ in works(plan)] == ["a"]  # b has filled its block
    assert (last.state, last.preemptions, last.computed) == (TrackState.RUNNING, 0, 64)
    world.drain()
    assert last.preemptions == 0  # nothing was computed twice


def test_nobody_is_let_in_while_those_who_run_want_for_blocks():
    world = World(blocks=2, budget=512, caching=False, sequences=3)
    world.submit("a", [1] * 10, new=20)
    world.submit("b", [2] * 62, new=20)
    world.step()
    world.submit("c", [3] * 5, new=1)
    assert all("c" not in [key for key, *_ in works(world.step())] for _ in range(10))
    world.drain()


# drafts


def draft(world, track, drafts):
    track.drafts = list(drafts)
    return works(world.scheduler.schedule())


def generating(world, *, length, new=100):
    track = world.submit("a", [1] * length, new=new)
    world.step()
    return track


def test_drafts_are_computed_after_the_newest_token():
    world = World()
    track = generating(world, length=10)
    assert draft(world, track, [7, 8]) == [("a", 10, 3)]


def test_drafts_that_need_a_block_get_a_free_one():
    world = World(blocks=3)
    track = generating(world, length=62)
    assert draft(world, track, [7, 8, 9]) == [("a", 62, 4)]  # positions 62 to 65
    assert len(track.blocks) == 2


def test_drafts_are_cut_where_they_would_need_a_block_that_others_may_need():
    world = World(blocks=2)
    track = generating(world, length=62)
    assert draft(world, track, [7, 8, 9]) == [("a", 62, 2)]  # one of two blocks is free, one track runs
    assert track.drafts == [7]


def test_drafts_take_nobodys_token():
    world = World(budget=4, sequences=3)
    for key in "ab":
        world.submit(key, [1], new=9)
    world.step()
    for sample in world.samples.values():
        sample.track.drafts = [7, 7, 7]
    assert works(world.scheduler.schedule()) == [("a", 1, 3), ("b", 1, 1)]


def test_rejected_drafts_leave_no_entry():
    world = World()
    track = generating(world, length=10)
    track.drafts = [7, 8]
    (work,) = world.scheduler.schedule().works
    track.tokens.append(5)
    world.scheduler.computed(work, 1)
    assert (track.computed, track.drafts) == (11, [])


# aborts


def test_an_abort_frees_the_blocks_in_every_state():
    world = World(budget=64, sequences=1)
    waiting, running = Track("w", [1], prompt_len=1), Track("r", [1] * 100, prompt_len=100)
    never = Track("n", [1], prompt_len=1)
    world.scheduler.add(running)
    world.scheduler.add(waiting)
    (work,) = world.scheduler.schedule().works  # half of the prompt is being read
    for track in (waiting, running, never, running):
        world.scheduler.abort(track)
        assert track.state is TrackState.ENDED
    world.scheduler.computed(work, work.count)
    assert not world.scheduler.has_work
    assert world.pool.num_free == world.pool.num_blocks


def test_scheduling_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import tenth.engine.scheduler"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
