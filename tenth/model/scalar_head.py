"""A reward model: a Transformer whose last token's hidden state becomes one number.

Why: R1's reward models are its own architecture with such a head (DeepSeek-R1, arXiv:2501.12948v2, section
3.1). The head has the name and shape of Hugging Face's sequence classifiers, `score.weight` (1, D).
In:  token ids, and where each sequence's last token lies. Out: one score per sequence, float32.
Not here: losses (training/preference.py), files (checkpoint/reward_dir.py).
Precision: the head computes in float32 whatever the network computes in; a score is a small difference.
"""

import torch
from torch import Tensor, nn

from tenth.model.transformer import Transformer

# Shapes: B rows, T tokens, D hidden width, S sequences


class RewardModel(nn.Module):
    """`body` reads, `head` judges. A new head gives everything 0, so the first loss is that of a coin."""

    def __init__(self, body: Transformer) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.config.hidden_size, 1, bias=False, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)

    def forward(
        self,
        ids: Tensor,
        *,
        last_index: Tensor,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """ids (B, T), last_index (S,) into the flat (B T): each sequence's last token -> (S,)"""
        hidden = self.features(
            ids, last_index=last_index, positions=positions, segment_ids=segment_ids, token_mask=token_mask
        )
        scores: Tensor = self.head(hidden)  # (S, 1)
        return scores.squeeze(-1)

    def features(
        self,
        ids: Tensor,
        *,
        last_index: Tensor,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """What the head sees. (S, D) float32"""
        hidden = self.body(ids, positions=positions, segment_ids=segment_ids, token_mask=token_mask)
        return hidden.flatten(0, 1).index_select(0, last_index).float()
