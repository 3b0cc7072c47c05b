"""Linear judges of preferences: the bag-of-words baseline, and a head on features that do not learn.

Why: a reward model has to beat what counting words can do; on a few hundred pairs that is a strong opponent,
and the same regression on a frozen network's features is the strongest thing a small one offers.
In:  rows of features, signed so that a candidate is right where the weighted sum is above 0: of a pair, the
     chosen answer's minus the rejected one's; of a label, the answer's, negated where it is unsafe.
Out: weights of an L2-regularised logistic regression; its strength is chosen inside the training part.
Not here: folds (reward_folds.py).

With more words than rows the rows span few directions: they are first turned into as many coordinates as
there are rows, a rotation that changes no inner product and so no regression. What a word means is learnt
from the training part alone: no count of other parts enters, words that only they have get no weight.
"""

import re
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.base.seeds import stream_random

# Shapes: N rows, W words, C coordinates

STRENGTHS = (0.1, 0.3, 1.0, 3.0)  # of the regularisation, where rows have length 1 on average
_INNER_FOLDS = 3
_COLUMNS = 8192  # words counted at once
_TOKEN = re.compile(r"[^\W_\u4e00-\u9fff]+|[\u4e00-\u9fff]|[^\w\s]")  # Chinese by character


def words_of(text: str) -> list[str]:
    """Words, Chinese characters and punctuation, in small letters."""
    return _TOKEN.findall(text.lower())


def word_rows(better: Sequence[str], worse: Sequence[str]) -> Tensor:
    """Coordinates of the differences of log(1 + count) of every word. (N, C) float64"""
    counts = [Counter(words_of(text)) for text in (*better, *worse)]
    column = {word: place for place, word in enumerate(dict.fromkeys(w for each in counts for w in each))}
    num_rows = len(better)
    products = torch.zeros(num_rows, num_rows, dtype=torch.float64)  # (N, N)
    for start in range(0, len(column), _COLUMNS):
        part = torch.zeros(2 * num_rows, min(_COLUMNS, len(column) - start))  # (2 N, W)
        for row, each in enumerate(counts):
            found = [(column[w] - start, n) for w, n in each.items() if 0 <= column[w] - start < _COLUMNS]
            if found:
                part[row, [place for place, _ in found]] = torch.tensor([float(n) for _, n in found]).log1p()
        difference = (part[:num_rows] - part[num_rows:]).double()
        products += difference @ difference.T
    return coordinates(products)


def coordinates(products: Tensor) -> Tensor:
    """Rows with these inner products, scaled to length 1 on average. (N, N) -> (N, C)"""
    values, vectors = torch.linalg.eigh(products / products.diagonal().mean().clamp_min(1e-12))
    kept = values > 1e-9
    return vectors[:, kept] * values[kept].sqrt()


def scaled(rows: Tensor) -> Tensor:
    """Every column divided by its size, then rows of length 1 on average. (N, D) -> (N, D) float64"""
    rows = rows.double()
    rows = rows / rows.pow(2).mean(0).sqrt().clamp_min(1e-9)
    return rows / rows.pow(2).sum(1).mean().sqrt().clamp_min(1e-9)


def fit_logistic(rows: Tensor, *, strength: float) -> Tensor:
    """argmin over w of sum log(1 + exp(-rows w)) + strength / 2 |w|^2. (N, C) -> (C,)"""
    weights = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights], max_iter=100, tolerance_grad=1e-3, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        total = -F.logsigmoid(rows @ weights).sum() + strength / 2 * weights.square().sum()
        total.backward()
        return total

    search.step(loss)
    return weights.detach()


def choose_strength(rows: Tensor, *, seed: int, groups: Sequence[str]) -> float:
    """The strength with the smallest held-out loss over folds of these rows alone; groups stay together."""
    distinct = sorted(set(groups))
    stream_random(seed, "strength").shuffle(distinct)
    fold_of = {group: place % _INNER_FOLDS for place, group in enumerate(distinct)}
    fold = torch.tensor([fold_of[group] for group in groups])
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for number in range(_INNER_FOLDS):
            weights = fit_logistic(rows[fold != number], strength=strength)
            total -= float(F.logsigmoid(rows[fold == number] @ weights).sum())
        losses.append(total)
    return STRENGTHS[losses.index(min(losses))]


class LinearJudge:
    """A candidate of cross-validation over given rows."""

    def __init__(self, rows: Tensor, groups: Sequence[str]) -> None:
        self.rows, self.groups = rows, groups

    def __call__(self, trained: list[int], tested: list[int], seed: int) -> list[float]:
        """Margins of the tested rows."""
        known = self.rows[trained]
        strength = choose_strength(known, seed=seed, groups=[self.groups[place] for place in trained])
        margins: list[float] = (self.rows[tested] @ fit_logistic(known, strength=strength)).tolist()
        return margins
