"""How much memory and disk a fine-tuning will take, from counts alone, said before the weights are read.

Why: a model that does not fit should be refused in a second and with numbers, not killed after an hour.
In:  a ModelConfig, what learns, how large batches are.
Out: `Need`; a RunError when it is more than there is.
Not here: what a machine has (base/machine.py). Estimates leave out what libraries take for themselves.
"""

from dataclasses import dataclass

from tenth.base.errors import RunError
from tenth.base.machine import free_memory_bytes, has_bf16
from tenth.base.units import show_bytes, show_count
from tenth.model.config import ModelConfig
from tenth.model.counts import count
from tenth.model.lora_places import default_targets, lora_places

_PROCESS = 1 << 29  # the libraries
_BYTES_PER_ACTIVATION = (
    80  # of a token, per unit of width and layer, forward and backward: measured on tiny-zero
)
_LOGIT_ROWS, _LOGIT_COPIES = 1024, 4  # rows of logits made at once, and their gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes, by what they are for."""

    weights: int  # the network's own, and a reference's copy
    learning: int  # float32 masters, gradients, AdamW's moments, and one of each on its way to the disk
    sampling: int  # the engine's packed copy, and the cache of a step's answers
    activations: int

    @property
    def memory(self) -> int:
        """All together."""
        return self.weights + self.learning + self.sampling + self.activations + _PROCESS


def _num_learning(config: ModelConfig, *, rank: int | None, targets: tuple[str, ...]) -> int:
    """How many numbers learn: an adapter's, or all."""
    if rank is None:
        return count(config).total_parameters + count(config).mtp_parameters
    return sum(
        rank * (place.rows + place.columns)
        for place in lora_places(config, targets or default_targets(config))
    )


def estimate(
    config: ModelConfig,
    *,
    rank: int | None,
    targets: tuple[str, ...],
    num_copies: int,
    cached_tokens: int,
    batch_tokens: int,
) -> Need:
    """`rank` and `targets` of an adapter, None and () where all learns; `num_copies` of the network besides
    the one that learns: the engine's, a reference's."""
    counts, bytes_per_weight = count(config), 2 if has_bf16() else 4
    weights = (counts.total_parameters + counts.mtp_parameters) * bytes_per_weight
    # master 4 where weights are narrower, gradient 4, two moments 8, and the file of a checkpoint 12
    per_learning = 24 + (4 if bytes_per_weight < 4 else 0)
    return Need(
        weights=weights,
        learning=_num_learning(config, rank=rank, targets=targets) * per_learning,
        sampling=weights * num_copies
        + cached_tokens * counts.kv_bytes_per_token(bytes_per_element=bytes_per_weight),
        activations=batch_tokens * config.hidden_size * (config.num_hidden_layers + 2) * _BYTES_PER_ACTIVATION
        + _LOGIT_ROWS * config.vocab_size * 4 * _LOGIT_COPIES,
    )


def require_memory(need: Need, config: ModelConfig, *, is_adapter: bool) -> None:
    """Refuse what will not fit, with the numbers."""
    free = free_memory_bytes()
    if free is None or need.memory <= free:
        return
    remedy = "a smaller model or" if is_adapter else "--lora 16, a smaller model or"
    raise RunError(
        f"model '{config.name}' has {show_count(count(config).total_parameters)} parameters, and to tune "
        f"{'an adapter of it' if is_adapter else 'all of them'} takes about {show_bytes(need.memory)} of "
        f"memory (weights {show_bytes(need.weights)}, gradients and optimizer {show_bytes(need.learning)}, "
        f"sampling {show_bytes(need.sampling)}, activations {show_bytes(need.activations)}), but "
        f"{show_bytes(free)} are free; use {remedy} a smaller micro_batch_tokens."
    )
