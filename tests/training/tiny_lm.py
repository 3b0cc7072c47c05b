"""A float64 language model of a few lines, causal by averaging, that obeys positions and segment ids."""

import torch
from torch import nn

VOCAB, WIDTH = 11, 6


class TinyLm(nn.Module):
    """hidden_t = tanh(W · mean of the embeddings of this segment up to t)."""

    def __init__(self, *, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.embed, self.place, self.mix, self.head = (
            draw(VOCAB, WIDTH),
            draw(64, WIDTH),
            draw(WIDTH, WIDTH),
            draw(VOCAB, WIDTH),
        )

    def forward(self, ids, *, positions=None, segment_ids=None, token_mask=None):
        rows, width = ids.shape
        if positions is None:
            positions = torch.arange(width).expand(rows, width)
        x = self.embed[ids] + self.place[positions]  # (B, T, D)
        sees = torch.ones(width, width, dtype=torch.bool).tril().expand(rows, width, width)
        if segment_ids is not None:
            sees = sees & (segment_ids.unsqueeze(1) == segment_ids.unsqueeze(2))
        share = sees.double() / sees.sum(-1, keepdim=True)  # (B, T, T)
        return torch.tanh(share @ x @ self.mix)

    def logits(self, hidden):
        return hidden @ self.head.T
