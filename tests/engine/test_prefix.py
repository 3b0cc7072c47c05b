"""Names of prefixes: what changes them, and what does not."""

from hypothesis import given
from hypothesis import strategies as st

from tenth.engine.block_pool import BLOCK
from tenth.engine.prefix import block_hashes

tokens = st.lists(st.integers(0, 3), max_size=4 * BLOCK)


def test_names_are_what_the_b2sum_command_says():
    # printf salt | b2sum -l 128, then that digest and 64 little-endian 8-byte ids through b2sum -l 128, twice
    names = block_hashes(range(2 * BLOCK), salt=b"salt", known=[])
    assert [name.hex() for name in names] == [
        "6d08a2c07bbce4c65b51ba7885e67822",
        "588af174ebed0f301e5d1687a810501b",
    ]


def test_only_full_blocks_have_names():
    counts = [len(block_hashes([7] * n, salt=b"", known=[])) for n in (0, 1, 63, 64, 65, 127, 128)]
    assert counts == [0, 0, 0, 1, 1, 1, 2]


@given(tokens, tokens)
def test_names_agree_exactly_as_far_as_the_tokens_do(a, b):
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    names = zip(block_hashes(a, salt=b"", known=[]), block_hashes(b, salt=b"", known=[]), strict=False)
    assert [x == y for x, y in names] == [
        (i + 1) * BLOCK <= same for i in range(min(len(a), len(b)) // BLOCK)
    ]


@given(tokens, st.data())
def test_names_known_before_change_nothing_and_are_not_worked_out_again(ids, data):
    names = block_hashes(ids, salt=b"s", known=[])
    known = names[: data.draw(st.integers(0, len(names)))]
    before = list(known)
    assert block_hashes(ids, salt=b"s", known=known) == names
    assert known == before  # the caller's list is the caller's
    if known:
        assert block_hashes(ids, salt=b"another", known=known) == names  # the salt is in the first name


def test_other_weights_name_every_block_differently():
    ids = list(range(5 * BLOCK))
    assert not set(block_hashes(ids, salt=b"1", known=[])) & set(block_hashes(ids, salt=b"2", known=[]))


def test_an_equal_block_after_another_prefix_has_another_name():
    first, second = block_hashes([1] * BLOCK * 2, salt=b"", known=[])
    assert first != second
