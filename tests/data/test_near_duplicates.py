import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.data.near_duplicates import BANDS, ROWS, SignatureFile, find_clusters, jaccard, shingles

WORDS = [f"w{number}" for number in range(3000)]


def brute_force_clusters(sets, threshold):
    """Every pair compared with Python's own sets; the least number of each component."""
    first = list(range(len(sets)))
    for other in range(len(sets)):
        for one in range(other):
            union = sets[one] | sets[other]
            if union and len(sets[one] & sets[other]) / len(union) >= threshold:
                low, high = sorted((first[one], first[other]))
                first = [low if each == high else each for each in first]
    return first


def clusters_of(texts, tmp_path, threshold=0.8):
    file = SignatureFile(tmp_path / "signatures")
    for text in texts:
        file.add(text)
    runs = [shingles(text) for text in texts]
    found = find_clusters(
        file.close(), threshold=threshold, similarity=lambda one, other: jaccard(runs[one], runs[other])
    )
    return [found.first_of(number) for number in range(len(texts))]


def five_word_runs(text):
    words = text.split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def edited_copies(rng, count):
    """Texts of 40 to 200 words, half of them copies of earlier ones with up to eight words changed."""
    texts = []
    for _ in range(count):
        if texts and rng.random() < 0.5:
            words = rng.choice(texts).split()
            for _ in range(rng.randrange(9)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
        else:
            words = rng.choices(WORDS, k=rng.randrange(40, 200))
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_that_comparing_every_pair_finds(seed, tmp_path):
    # a pair at 0.8 is missed once in 15,000 times, and some 100 pairs a run reach it
    texts = edited_copies(random.Random(seed), 150)
    assert clusters_of(texts, tmp_path) == brute_force_clusters(list(map(five_word_runs, texts)), 0.8)


@pytest.mark.parametrize("seed", range(3))
def test_chinese_is_clustered_by_its_characters(seed, tmp_path):
    rng = random.Random(seed)
    texts = edited_copies(rng, 80)
    chinese = ["".join(chr(0x4E00 + int(word[1:])) for word in text.split()) for text in texts]
    assert clusters_of(chinese, tmp_path) == brute_force_clusters(list(map(five_word_runs, texts)), 0.8)


def test_a_signature_estimates_the_similarity(tmp_path):
    # 200 runs of 300 shared: 2/3, whose estimate from 120 rows has a standard deviation of 0.043
    rng = np.random.default_rng(0)
    every = rng.integers(0, 2**63, 300, dtype=np.uint64)
    file = SignatureFile(tmp_path / "s")
    one, other = (file.signature(np.unique(part)) for part in (every[:250], every[50:]))
    assert abs((one == other).mean() - 2 / 3) < 4 * 0.043


def test_a_pair_at_the_threshold_shares_a_band_nearly_always():
    assert (1 - 0.8**ROWS) ** BANDS < 1e-4


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_similarity_is_shared_by_all(one, other):
    union = one | other
    expected = len(one & other) / len(union) if union else 1.0
    arrays = [np.array(sorted(each), dtype=np.uint64) for each in (one, other)]
    assert jaccard(*arrays) == pytest.approx(expected)


def test_case_width_and_punctuation_do_not_count_but_signs_of_arithmetic_do():
    assert (shingles("What, then, is Ａ plus b?") == shingles("what then is a plus b")).all()
    assert (shingles("3 + 4") != shingles("3 * 4")).all()


def test_a_text_without_words_has_a_signature_of_its_own(tmp_path):
    assert clusters_of(["!!!", "???", "!!!", ""], tmp_path) == [0, 1, 0, 3]
