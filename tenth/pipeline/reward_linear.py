"""Linear judges of preferences: the bag-of-words baseline, and a head on features that do not learn.

Why: a reward model has to beat what counting words can do; on a few hundred pairs that is a strong opponent,
and the same regression on a frozen network's features is the strongest thing a small one offers.
In:  rows of features, signed so that a candidate is right where the weighted sum is above 0: of a pair, the
     chosen answer's minus the rejected one's; of a label, the answer's, negated where it is unsafe.
Out: an L2-regularised logistic regression; its strength is chosen inside the training part.
Not here: folds (reward_folds.py).

There are more words than rows, and the best weights are a sum of rows, w = sum of a_i row_i: so everything is
computed from the rows' inner products K, exactly, and a fold is a part of K. What a word means is learnt from
the training part alone: no count of other parts enters, words that only they have get no weight.
"""

import re
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.base.seeds import stream_random

# Shapes: N rows, W words, D features

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the regularisation, where rows have length 1 on average
_INNER_FOLDS = 3
_COLUMNS = 8192  # words counted at once
_NEWTON_STEPS, _SMALLEST_CHANGE = 50, 1e-8
_TOKEN = re.compile(r"[^\W_\u4e00-\u9fff]+|[\u4e00-\u9fff]|[^\w\s]")  # Chinese by character


def words_of(text: str) -> list[str]:
    """Words, Chinese characters and punctuation, in small letters."""
    return _TOKEN.findall(text.lower())


def word_products(better: Sequence[str], worse: Sequence[str]) -> Tensor:
    """Of the differences of log(1 + count) of every word. (N, N) float64"""
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
    return normalised(products)


def feature_products(rows: Tensor) -> Tensor:
    """Every feature divided by its size first. (N, D) -> (N, N) float64"""
    rows = rows.double()
    rows = rows / rows.pow(2).mean(0).sqrt().clamp_min(1e-9)
    return normalised(rows @ rows.T)


def normalised(products: Tensor) -> Tensor:
    """As of rows that have length 1 on average."""
    return products / products.diagonal().mean().clamp_min(1e-12)


def fit_logistic(products: Tensor, *, strength: float) -> Tensor:
    """argmin over a of sum log(1 + exp(-f)) + strength / 2 a'Ka, where f = Ka. K (N, N) -> (N,)

    Newton's method; with W the diagonal of second derivatives a step solves (K + strength / W) a = f + p / W,
    written so that the matrix stays well conditioned (Rasmussen and Williams, Gaussian Processes for Machine
    Learning, 2006, section 3.4.3).
    """
    margins = torch.zeros(len(products), dtype=products.dtype)
    weights = torch.zeros_like(margins)
    for _ in range(_NEWTON_STEPS):
        wrong = torch.sigmoid(-margins)  # p
        bend = (wrong * (1 - wrong)).clamp_min(1e-10)  # W
        root = bend.sqrt()
        matrix = root[:, None] * products * root
        matrix.diagonal().add_(strength)
        target = root * (margins + wrong / bend)
        new = root * torch.cholesky_solve(target[:, None], torch.linalg.cholesky(matrix))[:, 0]
        change = float((new - weights).abs().max())
        weights, margins = new, products @ new
        if change < _SMALLEST_CHANGE:
            break
    return weights


def choose_strength(products: Tensor, *, seed: int, groups: Sequence[str]) -> float:
    """The strength with the smallest held-out loss over folds of these rows alone; groups stay together."""
    distinct = sorted(set(groups))
    stream_random(seed, "strength").shuffle(distinct)
    fold_of = {group: place % _INNER_FOLDS for place, group in enumerate(distinct)}
    fold = torch.tensor([fold_of[group] for group in groups])
    losses = dict.fromkeys(STRENGTHS, 0.0)
    for number in range(_INNER_FOLDS):
        inside, outside = (fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0]
        known, asked = products[inside][:, inside], products[outside][:, inside]
        for strength in STRENGTHS:
            losses[strength] -= float(F.logsigmoid(asked @ fit_logistic(known, strength=strength)).sum())
    return min(losses, key=lambda strength: losses[strength])


class LinearJudge:
    """A candidate of cross-validation over rows with these inner products."""

    def __init__(self, products: Tensor, groups: Sequence[str]) -> None:
        self.products, self.groups = products, groups

    def __call__(self, trained: list[int], tested: list[int], seed: int) -> list[float]:
        """Margins of the tested rows."""
        known = self.products[trained][:, trained]
        strength = choose_strength(known, seed=seed, groups=[self.groups[place] for place in trained])
        weights = fit_logistic(known, strength=strength)
        margins: list[float] = (self.products[tested][:, trained] @ weights).tolist()
        return margins
