"""What tracks share: the prefix cache, spilled blocks, the samples of one prompt."""

import pytest
from scheduler_world import World

from tenth.engine.track import Track, TrackState


def works(plan):
    """(key, start, count) of each work."""
    return [(work.track.key, work.start, work.count) for work in plan.works]


def run_alone(world, key, prompt, *, new=1):
    track = world.submit(key, prompt, new=new)
    world.drain()
    return track


# the prefix cache


@pytest.mark.parametrize(
    ("length", "cached"), [(63, 0), (64, 63), (65, 64), (100, 64), (127, 64), (128, 127), (200, 192)]
)
def test_a_prompt_that_comes_again_is_served_from_its_full_blocks_but_for_its_last_token(length, cached):
    world = World(budget=512)
    assert run_alone(world, "a", range(length)).cached == 0
    again = world.submit("b", range(length), new=1)
    assert works(world.step()) == [("b", cached, length - cached)]
    assert again.cached == cached


def test_a_block_of_which_the_last_token_is_recomputed_is_a_copy():
    world = World()
    run_alone(world, "a", range(128))
    world.submit("b", range(128), new=1)
    (pair,) = world.step().copies
    assert pair[0] != pair[1]


def test_where_there_is_no_block_for_a_copy_the_last_block_is_computed_again():
    world = World(blocks=2, budget=512)
    run_alone(world, "a", range(128))
    world.submit("b", range(128), new=1)
    plan = world.step()
    assert (works(plan), plan.copies) == ([("b", 64, 64)], [])


def test_a_conversation_finds_its_earlier_answers():
    world = World(budget=512)
    first = run_alone(world, "a", range(60), new=10)  # 70 tokens, 69 of them computed
    assert run_alone(world, "b", [*first.tokens, 1, 2, 3]).cached == 64


def test_blocks_that_are_being_computed_are_not_shared_yet():
    world = World(budget=512)
    world.submit("a", range(100), new=1)
    world.submit("b", range(100), new=1)
    assert works(world.step()) == [("a", 0, 100), ("b", 0, 100)]


def test_blocks_are_shared_as_soon_as_they_are_full_though_the_prompt_is_not_read_yet():
    world = World(budget=64)
    world.submit("a", range(100), new=1)
    world.step()
    world.submit("b", range(100), new=1)
    assert works(world.step()) == [("a", 64, 36), ("b", 64, 28)]


def test_without_prefix_caching_everything_is_computed():
    world = World(caching=False, budget=512)
    run_alone(world, "a", range(100))
    assert run_alone(world, "b", range(100)).cached == 0


def test_the_tail_of_a_prefix_is_given_up_before_its_head():
    world = World(blocks=4, budget=512)
    run_alone(world, "a", range(192))  # leaves three full blocks behind
    run_alone(world, "x", [7] * 100)  # needs two, of which one was free
    assert run_alone(world, "b", range(192)).cached == 128


def test_what_was_preempted_is_found_again_as_far_as_its_blocks_remain():
    world = World(budget=512, blocks=8)
    track = world.submit("a", range(200), new=9)
    world.step()
    world.scheduler._preempt_last()
    world.samples["a"].end = None
    assert works(world.step()) == [("a", 192, 9)]
    assert track.cached == 0  # what its own work left behind is no hit


def test_a_change_of_weights_empties_the_cache_and_starts_everybody_over():
    world = World(budget=512)
    track = world.submit("a", range(100), new=9)
    world.step()
    world.change_weights()
    assert works(world.step()) == [("a", 0, 101)]
    world.drain()
    assert track.state is TrackState.ENDED
    world.change_weights()
    assert run_alone(world, "b", range(100)).cached == 0


def test_a_step_that_a_change_of_weights_overtook_leaves_no_entry():
    world = World()
    track = world.submit("a", range(100), new=9)
    (work,) = world.scheduler.schedule().works
    world.change_weights()
    world.scheduler.computed(work, work.count)
    assert (track.computed, track.state) == (0, TrackState.WAITING)


# spilled blocks


def test_blocks_given_up_are_loaded_again_and_shared_by_all_who_want_them():
    world = World(blocks=5, budget=512, spilling=True, sequences=2)
    run_alone(world, "a", range(150))
    run_alone(world, "x", [7] * 300)  # needs all five
    assert len(world.store) == 2
    for key in "bc":
        world.submit(key, range(150), new=1)
    plan = world.step()
    assert {name for name, _ in plan.loads} <= set(world.store)
    assert len(plan.loads) == 2
    assert works(plan) == [("b", 128, 22), ("c", 128, 22)]
    assert plan.works[0].track.cached == 128


def test_a_block_that_the_disk_has_lost_ends_what_is_loaded_of_a_prefix():
    world = World(blocks=5, budget=512, spilling=True, sequences=2)
    run_alone(world, "a", range(300))
    run_alone(world, "x", [7] * 300)
    names = list(world.store)  # the tail of the prefix was given up first
    del world.store[names[1]]
    world.submit("b", range(300), new=1)
    plan = world.step()
    assert [name for name, _ in plan.loads] == names[:1:-1]
    assert works(plan) == [("b", 128, 172)]


def test_nothing_is_read_from_disk_for_a_prompt_that_finds_no_room():
    world = World(blocks=5, budget=512, spilling=True, sequences=2)
    run_alone(world, "a", range(150))
    run_alone(world, "x", [7] * 300)
    world.submit("y", [8] * 200, new=9)
    world.step()
    world.submit("b", range(150), new=1)
    for _ in range(3):
        assert works(world.step())[0][0] == "y"  # and the world sees that what was read is loaded
    assert [track.key for track in world.scheduler.waiting] == ["b"]


# samples of one prompt


def test_samples_share_the_full_blocks_of_their_prompt_and_copy_the_last():
    world = World(budget=512)
    parent = world.submit("a", range(100), new=9, n=3)
    world.step()
    tracks = world.scheduler.running
    assert len(tracks) == 3
    assert {track.blocks[0] for track in tracks} == {parent.blocks[0]}
    assert len({track.blocks[1] for track in tracks}) == 3
    assert works(world.step()) == [("a", 100, 1), (("a", 1), 100, 1), (("a", 2), 100, 1)]


def test_samples_without_a_place_wait_in_front_and_copy_the_prompt_from_a_sibling():
    world = World(budget=512, sequences=2, caching=False)
    world.submit("a", range(100), new=9, n=3)
    world.step()
    world.submit("b", [1], new=1)
    assert [track.key for track in world.scheduler.waiting] == [("a", 2), "b"]
    world.abort(("a", 1))
    plan = world.step()
    assert works(plan) == [("a", 100, 1), (("a", 2), 100, 1)]
    assert len(plan.copies) == 1


def test_a_parent_may_end_at_once_and_its_samples_go_on():
    world = World(budget=512)
    world.submit("a", range(100), new=9, n=2)
    world.step()
    world.abort("a")
    world.drain()
    assert world.ends == {"a": 1, ("a", 1): 1}


def test_only_a_prompt_that_was_read_can_be_forked():
    world = World(budget=64)
    parent = world.submit("a", range(100), new=9)
    world.step()
    with pytest.raises(ValueError, match="no new sample of track a"):
        world.scheduler.fork(parent, [Track("b", range(101), prompt_len=100)])
