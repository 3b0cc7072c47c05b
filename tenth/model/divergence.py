"""How far a changed model's next-token distributions are from the original's: what quantising costs.

Why: perplexity on a text can stay while answers change; the divergence from the original cannot hide that.
In:  two models' `Predictions` over the same tokens.
Out: a `Divergence`: Kullback-Leibler divergence from the original, in nats per token, and how often both find
the same token likeliest.
Memory: final hidden states and head are kept, never the distributions of all tokens at once.
Not here: tokenizers and files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tenth.base.errors import ConfigError
from tenth.model.transformer import Transformer

# Shapes: N tokens, D hidden, V vocabulary

_WINDOW_TOKENS = 512  # the text is read in pieces of this length, each from an empty context
_TOKENS_AT_ONCE = 64  # rows of distributions held in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """A model's distribution after every token of a text, not yet multiplied out."""

    hidden: Tensor  # (N, D)
    head: Tensor  # (V, D)


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A changed model compared with the original, over the tokens of a text."""

    tokens: int
    kl_mean: float  # nats per token, KL(original || changed)
    kl_p99: float  # a hundredth of the tokens diverge by more
    same_top_share: float  # of the tokens: both models find the same next token likeliest


@torch.no_grad()
def predict(model: Transformer, ids: Sequence[int]) -> Predictions:
    """Read `ids` in pieces and keep what the next-token distributions are made of."""
    vocab_size = model.config.vocab_size
    if not ids or max(ids) >= vocab_size:
        raise ConfigError(
            f"a text of {len(ids)} tokens (largest id {max(ids, default=None)}) cannot be read by a model of "
            f"{vocab_size} tokens; give a longer text, or the tokenizer that belongs to the model."
        )
    window = min(_WINDOW_TOKENS, model.config.max_position_embeddings)
    pieces = torch.tensor(ids).split(window)
    hidden = torch.cat([model(piece[None])[0] for piece in pieces])
    return Predictions(hidden=hidden, head=model.head_weight.detach())


@torch.no_grad()
def compare(original: Predictions, changed: Predictions) -> Divergence:
    """The divergence of `changed` from `original`, summed in float64."""
    divergences, agreements = [], []
    pairs = zip(original.hidden.split(_TOKENS_AT_ONCE), changed.hidden.split(_TOKENS_AT_ONCE), strict=True)
    for rows, changed_rows in pairs:
        p = F.linear(rows, original.head).double().log_softmax(-1)  # (64, V)
        q = F.linear(changed_rows, changed.head).double().log_softmax(-1)
        divergences.append((p.exp() * (p - q)).sum(-1))
        agreements.append(p.argmax(-1) == q.argmax(-1))
    kl = torch.cat(divergences)  # (N,)
    return Divergence(
        tokens=len(kl),
        kl_mean=float(kl.mean()),
        kl_p99=float(kl.quantile(0.99)),
        same_top_share=float(torch.cat(agreements).double().mean()),
    )
