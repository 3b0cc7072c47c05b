"""The optimizer as a training stage sees it: gather gradients, look at their norm, apply or discard.

Why: AdamW as in DeepSeek-V3 (arXiv:2412.19437, section 4.2: beta 0.9 and 0.95, weight decay 0.1, clip 1.0) or
Muon for the matrices with AdamW for the rest, over float32 masters, behind four verbs, so that the loop, GRPO
and SFT need not know which.
In:  a model whose gradients have been computed; a learning-rate factor from schedules.py.
Out: changed weights; a flat `name -> tensor` state that restores bit for bit.
Not here: schedules, gradients, deciding what a bad step is (guard.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from tenth.base.errors import CheckpointError, ConfigError
from tenth.training.master import MasterWeights
from tenth.training.muon import Muon

# A dotted part of a parameter's name that says "a table of rows, one per token id or expert, not a map".
EMBEDDING_PARTS = frozenset({"embed", "embed_tokens", "embedding", "embeddings", "wte"})
HEAD_PARTS = frozenset({"head", "lm_head"})
ROUTER_PARTS = frozenset({"router", "gate"})  # a whole part: `gate_proj` and `gate_up` are ordinary matrices
# Factors of an adapter. Only their product is a map: Muon would give all directions of a factor equal size,
# which spends the few ranks on noise and, while B is zero, makes the first steps as large as the last.
FACTOR_PARTS = frozenset({"lora_A", "lora_B"})


class OptimKind(StrEnum):
    """Who updates the matrices."""

    ADAMW = "adamw"
    MUON = "muon"


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Peak learning rates and the paper's constants."""

    kind: OptimKind = OptimKind.ADAMW
    lr: float = 3e-4  # AdamW's peak
    muon_lr: float | None = None  # Muon's peak; None: the same as lr (its update has AdamW's size)
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    muon_momentum: float = 0.95
    muon_dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.max_grad_norm <= 0:
            raise ConfigError(
                f"lr = {self.lr} and max_grad_norm = {self.max_grad_norm} must both be above 0; "
                "write max_grad_norm = inf to turn clipping off."
            )


@dataclass(frozen=True, kw_only=True)
class ParameterGroups:
    """Parameters by what they are; every trainable parameter is in exactly one group."""

    matrices: Mapping[str, nn.Parameter]  # 2-D maps and 3-D expert stacks: Muon's, if Muon is used
    tables: Mapping[str, nn.Parameter]  # embedding, head, router, adapters: decayed, AdamW's in any case
    vectors: Mapping[str, nn.Parameter]  # norm weights and biases: never decayed


def split_parameters(named: Iterable[tuple[str, nn.Parameter]]) -> ParameterGroups:
    """Sort parameters into groups by name and rank.

    V3 prints one weight decay of 0.1 and no exceptions. We leave out vectors, as GPT-3 and Llama code does:
    pulling a norm's gain towards 0 regularises nothing.
    """
    matrices, tables, vectors = {}, {}, {}
    not_maps = EMBEDDING_PARTS | HEAD_PARTS | ROUTER_PARTS | FACTOR_PARTS
    for name, param in named:
        if param.ndim < 2:
            vectors[name] = param
        elif param.ndim > 3 or not_maps & set(name.split(".")):
            tables[name] = param
        else:
            matrices[name] = param
    return ParameterGroups(matrices=matrices, tables=tables, vectors=vectors)


class WeightUpdater:
    """gather -> apply or discard. Knows masters, clipping and both update rules.

    After each micro-batch (or once, at the end): `collect()`. Then `gather()` gives the gradient norm, and
    `apply(lr_factor=...)` steps or `discard()` forgets.
    """

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        self.masters = MasterWeights(model)
        groups = split_parameters(self.masters.named.items())
        muon = groups.matrices if config.kind is OptimKind.MUON else {}
        decayed = {**groups.tables} if muon else {**groups.matrices, **groups.tables}
        self._names: dict[Tensor, str] = {param: name for name, param in self.masters.named.items()}
        self._rules: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                [
                    {"params": list(decayed.values()), "weight_decay": config.weight_decay},
                    {"params": list(groups.vectors.values()), "weight_decay": 0.0},
                ],
                lr=config.lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                fused=True,  # one kernel per list instead of ten
            )
        }
        self._peak_lr = {
            "adamw": config.lr,
            "muon": config.muon_lr if config.muon_lr is not None else config.lr,
        }
        if muon:
            self._rules["muon"] = Muon(
                muon.values(),
                lr=self._peak_lr["muon"],
                weight_decay=config.weight_decay,
                momentum=config.muon_momentum,
                newton_schulz_dtype=config.muon_dtype,
            )

    def collect(self) -> None:
        """Add this micro-batch's gradients to the float32 sums; costs nothing for a float32 model."""
        self.masters.collect_grads()

    @torch.no_grad()
    def gather(self) -> float:
        """Collect, clip to the configured norm, and say what the norm was before clipping."""
        self.masters.collect_grads()
        grads = self.masters.grads()
        if not grads:
            raise ConfigError(
                "no parameter has a gradient, so there is nothing to apply; run backward first."
            )
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        # Same guard against division by zero as torch.nn.utils.clip_grad_norm_.
        scale = float((self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        if scale < 1.0:
            torch._foreach_mul_(grads, scale)
        return float(norm)

    def apply(self, *, lr_factor: float = 1.0) -> float:
        """Step at `lr_factor` of the peak rate, publish, clear gradients; returns AdamW's rate."""
        for kind, rule in self._rules.items():
            for group in rule.param_groups:
                group["lr"] = self._peak_lr[kind] * lr_factor
            rule.step()
        self.masters.publish()
        self.masters.clear_grads()
        return self.config.lr * lr_factor

    def discard(self) -> None:
        """Leave the weights as they are and forget these gradients."""
        self.masters.clear_grads()

    def state_dict(self) -> dict[str, Tensor]:
        """One flat mapping: `master/NAME`, `adamw/exp_avg/NAME`, `muon/momentum_buffer/NAME`, ..."""
        state = {f"master/{name}": weight for name, weight in self.masters.state_dict().items()}
        for kind, rule in self._rules.items():
            for param, slots in rule.state.items():
                state |= {f"{kind}/{slot}/{self._names[param]}": value for slot, value in slots.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state_dict`; afterwards training goes on bit for bit."""
        masters: dict[str, Tensor] = {}
        slots: list[tuple[str, str, str, Tensor]] = []
        for key, value in state.items():
            kind, _, rest = key.partition("/")
            slot, _, name = rest.partition("/")
            if kind == "master":
                masters[rest] = value
            elif kind in self._rules and name in self.masters.named:
                slots.append((kind, slot, name, value))
            else:
                raise CheckpointError(
                    f"optimizer state '{key}' fits no parameter of this model with kind = "
                    f"{self.config.kind.value}; continue with the recipe that wrote the checkpoint."
                )
        self.masters.load_state_dict(masters)
        for rule in self._rules.values():
            rule.state.clear()
        for kind, slot, name, value in slots:
            self._rules[kind].state[self.masters.named[name]][slot] = value.clone()
