"""Master weights: the network computes in bfloat16, the optimizer counts in float32.

Why: a bfloat16 weight has 8 bits of precision, so small updates would be rounded away; DeepSeek-V3 keeps
float32 masters and gradients for the same reason (arXiv:2412.19437, section 3.3.3).
In:  a model whose parameters may be bfloat16, float32 or a mixture (norms often stay float32).
Out: one float32 master per bfloat16 parameter. A parameter of any wider type is its own master: no copy.
Not here: the update rule (optim.py, muon.py).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tenth.base.errors import CheckpointError

NARROW = (torch.bfloat16, torch.float16)  # types too coarse to add small updates to


class MasterWeights:
    """`named`: what the optimizer updates. Collect gradients, step the optimizer, publish."""

    def __init__(self, model: nn.Module) -> None:
        self.named: dict[str, nn.Parameter] = {}
        self._narrow: list[Tensor] = []  # the model's own low-precision parameters
        self._masters: list[Tensor] = []  # their float32 masters, same order
        for name, param in model.named_parameters():
            if not param.requires_grad:
                continue
            self.named[name] = nn.Parameter(param.detach().float()) if param.dtype in NARROW else param
            if self.named[name] is not param:
                self._narrow.append(param)
                self._masters.append(self.named[name])
        self._sums = [torch.zeros_like(master) for master in self._masters]

    @torch.no_grad()
    def collect_grads(self) -> None:
        """Move the model's low-precision gradients into the masters' gradients, adding to what is there.

        After each micro-batch it makes accumulation exact to float32; once per step it is a cast.
        """
        fresh: list[tuple[Tensor, Tensor]] = []  # (float32 sum, this micro-batch's gradient)
        added: list[tuple[Tensor, Tensor]] = []
        for param, master, total in zip(self._narrow, self._masters, self._sums, strict=True):
            if param.grad is not None:
                (fresh if master.grad is None else added).append((total, param.grad))
                master.grad = total
                param.grad = None
        if fresh:
            torch._foreach_copy_([total for total, _ in fresh], [grad for _, grad in fresh])
        if added:
            torch._foreach_add_([total for total, _ in added], [grad for _, grad in added])

    def grads(self) -> list[Tensor]:
        """The gradients that the optimizer is about to use."""
        return [param.grad for param in self.named.values() if param.grad is not None]

    def clear_grads(self) -> None:
        """Forget all gradients, the model's and the masters'."""
        for param in (*self.named.values(), *self._narrow):
            param.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model."""
        if self._narrow:
            torch._foreach_copy_(self._narrow, self._masters)

    def state_dict(self) -> dict[str, Tensor]:
        """Every weight at full precision, by the model's own names."""
        return {name: param.detach() for name, param in self.named.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights over, in masters and model alike."""
        require_same_names(set(self.named), set(state), source="master weights")
        for name, param in self.named.items():
            if param.shape != state[name].shape:
                raise CheckpointError(
                    f"master weight '{name}' is {tuple(state[name].shape)} in the checkpoint and "
                    f"{tuple(param.shape)} in the model; continue with the recipe that wrote it."
                )
            param.copy_(state[name])
        self.publish()


def require_same_names(expected: set[str], found: set[str], *, source: str) -> None:
    """One sentence when a state does not fit."""
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise CheckpointError(
            f"{source}: {len(missing)} missing (first {missing[:2]}), {len(unknown)} not recognised "
            f"(first {unknown[:2]}); continue with the recipe that wrote the checkpoint."
        )
