"""The KL reference of a policy that trains an adapter: the same network with the adapter switched off.

Why: a full policy needs a second copy of its weights to be compared with; LoRA's base never changes, so it is
the reference, and costs nothing.
In:  a network with adapters.
Out: something that computes as the base does (or as another adapter of it), whatever the policy uses.
Not here: who uses it (grpo.py).
"""

from torch import Tensor

from tenth.model.lora import routing_of
from tenth.model.transformer import Transformer


class ReferenceView:
    """A `LanguageModel` over the policy's own weights. `adapter` None: the base alone."""

    def __init__(self, policy: Transformer, adapter: str | None = None) -> None:
        self._policy, self._routing, self._adapter = policy, routing_of(policy), adapter
        if adapter is not None:
            self._routing.require(adapter)

    def __call__(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, T) ids -> (B, T, D) hidden states."""
        with self._routing.using(self._adapter):
            hidden: Tensor = self._policy(
                ids, positions=positions, segment_ids=segment_ids, token_mask=token_mask
            )
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V); the head has no adapter."""
        return self._policy.logits(hidden)
