import hashlib

from hypothesis import given
from hypothesis import strategies as st

from tenth.base.seeds import stream_random, stream_seed


def test_a_seed_is_the_top_63_bits_of_blake2b_of_the_path():
    digest = hashlib.blake2b(b"7/rollout/step/120", digest_size=8).digest()
    assert stream_seed(7, "rollout", "step", 120) == int.from_bytes(digest, "big") // 2


@given(seed=st.integers(0, 2**63), name=st.text(max_size=5), step=st.integers(0, 10**6))
def test_seeds_fit_what_torch_takes(seed, name, step):
    assert 0 <= stream_seed(seed, name, step) < 2**63


def test_every_part_of_the_name_matters():
    seeds = {stream_seed(1, "a", 0), stream_seed(2, "a", 0), stream_seed(1, "b", 0), stream_seed(1, "a", 1)}
    assert len(seeds) == 4


def test_drawing_from_one_stream_does_not_move_another():
    expected = stream_random(1, "eval").random()
    stream_random(1, "train").random()
    assert stream_random(1, "eval").random() == expected
