"""Near-duplicates: MinHash signatures find candidates (Broder 1997), exact Jaccard similarity decides.

Why: comparing every text with every other is quadratic. Signatures of near-duplicates agree in some band of
rows nearly always, so only texts that share a band are compared, and those exactly: nothing is called a
near-duplicate that is none.
In:  texts by number; signatures lie in a file, so memory grows by a few numbers a text, however long it is.
Out: for each text the first text of its cluster. No draw, no clock: the same files give the same clusters.
Not here: which texts belong to a row and which row is dropped (survey.py).

A pair of similarity s shares a band with probability 1 - (1 - s^ROWS)^BANDS: 0.9999 at 0.8, 0.988 at 0.7.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenth.base.seeds import stream_random
from tenth.data.shingles import Hashes, run_hashes, words_and_signs_of

SHINGLE_WORDS = 5
BANDS, ROWS = 24, 5
_COMPARED = 64  # members of one band that a text is compared with: the latest
_MARGIN = 0.2  # an estimate from 120 rows is off by more than this less than once in 10^5
_REMEMBERED = 1 << 20  # pairs known to differ
_CHUNK = 4096

Signatures = NDArray[np.uint32]


def shingles(text: str) -> Hashes:
    """The set of runs of five words, sorted; of a shorter text, the whole text."""
    words = words_and_signs_of(text) or list(text.split())
    return np.unique(run_hashes(words, min(SHINGLE_WORDS, max(1, len(words)))))


def jaccard(one: Hashes, other: Hashes) -> float:
    """Shared runs by all runs; 1 for two texts without any."""
    if not len(one) and not len(other):
        return 1.0
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


class SignatureFile:
    """Signatures of texts, one after the other, in a file of their own."""

    def __init__(self, path: Path) -> None:
        rng = stream_random(0, "minhash")
        self._path = path
        self._file = path.open("wb")
        self._factors = np.array([rng.getrandbits(64) | 1 for _ in range(BANDS * ROWS)], dtype=np.uint64)
        self._offsets = np.array([rng.getrandbits(64) for _ in range(BANDS * ROWS)], dtype=np.uint64)
        self.count = 0

    def add(self, text: str) -> None:
        """The next text."""
        self._file.write(self.signature(shingles(text)).tobytes())
        self.count += 1

    def signature(self, runs: Hashes) -> Signatures:
        """For each of the hash functions the least value over all runs."""
        least = np.full(BANDS * ROWS, 2**32 - 1, dtype=np.uint32)
        for start in range(0, len(runs), _CHUNK):
            piece = runs[start : start + _CHUNK, None]
            values = (piece * self._factors + self._offsets) >> np.uint64(32)  # (runs, functions)
            least = np.minimum(least, values.min(axis=0).astype(np.uint32))
        return least

    def close(self) -> Signatures:
        """All of them, read from the file as they are needed."""
        self._file.close()
        if self.count == 0:
            return np.empty((0, BANDS * ROWS), dtype=np.uint32)
        return np.memmap(self._path, dtype=np.uint32, mode="r", shape=(self.count, BANDS * ROWS))


class Clusters:
    """Which texts hang together (union-find); a cluster is called by its first text."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def first_of(self, number: int) -> int:
        """The first text of a text's cluster."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Two texts, and all that hangs on them."""
        first, second = sorted((self.first_of(one), self.first_of(other)))
        self._parents[second] = first


def find_clusters(
    signatures: Signatures, *, threshold: float, similarity: Callable[[int, int], float]
) -> Clusters:
    """Clusters of texts that reach `threshold`, directly or through others. `similarity` is exact."""
    clusters = Clusters(len(signatures))
    different: set[tuple[int, int]] = set()
    for band in range(BANDS):
        for members in _alike(signatures[:, band * ROWS : (band + 1) * ROWS]):
            for place in range(1, len(members)):
                member = members[place]
                earlier = members[max(0, place - _COMPARED) : place]
                estimates = (signatures[earlier] == signatures[member]).mean(axis=1)
                for other in earlier[estimates >= threshold - _MARGIN]:
                    pair = (int(other), int(member))
                    if pair in different or clusters.first_of(pair[0]) == clusters.first_of(pair[1]):
                        continue
                    if similarity(*pair) >= threshold:
                        clusters.join(*pair)
                    elif len(different) < _REMEMBERED:
                        different.add(pair)
    return clusters


def _alike(band: Signatures) -> Iterator[NDArray[np.int64]]:
    """Groups of two and more texts whose rows of this band are equal, each in order."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for row in range(band.shape[1]):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + band[:, row]
    order = np.argsort(keys, kind="stable")
    is_start = np.concatenate(([True], np.diff(keys[order]) != 0, [True])) if len(keys) else np.empty(0, bool)
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts)
    for group in np.flatnonzero(lengths > 1):
        yield order[starts[group] : starts[group] + lengths[group]]
