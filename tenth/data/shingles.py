"""Texts as runs of words: the hashes behind decontamination and the search for near-duplicates.

Why: both ask "which runs of n words do two texts share", of one line or of a whole novel, so words and
runs are defined once, and a run is one number.
In:  text. English counts by words, Chinese and Japanese by characters; case, width
     and punctuation do not count.
Out: uint64 hashes, the same on every machine and in every process.
Not here: what is done with them (decontamination.py, near_duplicates.py).
"""

import functools
import hashlib
import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

NGRAM_WORDS = 10  # R1 (arXiv:2501.12948v2, D.1) drops texts that share a 10-gram with a test
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[^\W_{_HAN}]+|[{_HAN}]")
_WORD_OR_SIGN = re.compile(rf"[^\W_{_HAN}]+|[{_HAN}]|[-+*/=<>^%−×÷√]")  # 3 + 4 and 3 * 4 ask different things
_BASE = 0x9E3779B97F4A7C15  # odd, so that multiplying loses nothing


def words_of(text: str) -> list[str]:
    """Words and Chinese characters in order."""
    return _WORD.findall(_plain(text))


def words_and_signs_of(text: str) -> list[str]:
    """The same with the signs of arithmetic."""
    return _WORD_OR_SIGN.findall(_plain(text))


def run_hashes(words: list[str], size: int) -> Hashes:
    """One hash for each run of `size` words, in order; none where the text is shorter."""
    count = len(words) - size + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    each = np.fromiter(map(_word_hash, words), dtype=np.uint64, count=len(words))
    runs = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        runs = runs * np.uint64(_BASE) + each[place : place + count]  # modulo 2^64
    return _mixed(runs)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


@functools.lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    # a lone surrogate cannot be encoded strictly, and must not stop anybody here
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _mixed(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the sum reaches every bit of the hash."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
