"""The order of pre-training: windows of the token row, permuted anew each epoch, for one rank.

Why: a batch is a pure function of (seed, first sequence), so the only thing a checkpoint has to save is how
many sequences were taken. Resuming is exact, and a batch ramp or another number of ranks changes nothing but
the cut.
In:  a `TokenSet`. Out: int64 arrays, one window per row; neighbours overlap by the tokens to predict.
Not here: tokenising (shards.py), turning a window into inputs and targets (training/).
"""

import numpy as np

from tenth.base.errors import ConfigError
from tenth.base.seeds import stream_seed
from tenth.data.shards import TokenSet


class PretrainStream:
    """Windows of `sequence_length` tokens and the ones behind them that are to be predicted."""

    def __init__(
        self,
        token_set: TokenSet,
        *,
        sequence_length: int,
        seed: int,
        extra_tokens: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`extra_tokens` is the depth of multi-token prediction: that many more targets per window."""
        self.window = sequence_length + 1 + extra_tokens
        self.sequences_per_epoch = (token_set.num_tokens - 1 - extra_tokens) // sequence_length
        if self.sequences_per_epoch < 1:
            raise ConfigError(
                f"the corpus has {token_set.num_tokens:,} tokens, but one window needs {self.window:,}; "
                "add text or set a shorter sequence_length."
            )
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"rank {rank} is not among the {world_size} ranks; launch as many as world_size says."
            )
        self.sequence_length, self.seed = sequence_length, seed
        self.rank, self.world_size = rank, world_size
        self._tokens = token_set.open_tokens()
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))  # epoch, its permutation

    def batch(self, first_sequence: int, count: int) -> np.ndarray:
        """This rank's rows of the global sequences [first_sequence, first_sequence + count).

        Every world_size-th sequence is ours; shape (count / world_size, sequence_length + 1 + extra_tokens).
        """
        if count % self.world_size:
            raise ConfigError(
                f"a batch of {count} sequences does not divide among {self.world_size} ranks; change it."
            )
        taken = range(first_sequence + self.rank, first_sequence + count, self.world_size)
        starts = [self._start(sequence) for sequence in taken]
        rows = [self._tokens[start : start + self.window] for start in starts]
        return np.stack(rows).astype(np.int64)  # (count / world_size, window)

    def epochs(self, first_sequence: int) -> float:
        """How often the corpus has been read when `first_sequence` sequences are taken."""
        return first_sequence / self.sequences_per_epoch

    def _start(self, sequence: int) -> int:
        """Where the window of a global sequence number begins in the token row."""
        epoch, position = divmod(sequence, self.sequences_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.sequences_per_epoch, seed=self.seed, epoch=epoch))
        return int(self._order[1][position]) * self.sequence_length


def epoch_order(num_sequences: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the windows. Raw PCG64 words, because numpy promises those never to change."""
    words = np.random.PCG64(stream_seed(seed, "epoch", epoch)).random_raw(num_sequences)  # (num_sequences,)
    return np.argsort(words, kind="stable")  # (num_sequences,)
