"""One training step on either side: forward, next-token loss, backward, clip at 1.0, fused AdamW.

Why: both sides must do the same job. Same shape, same token ids, same targets, same optimizer; MTP and the
balance loss are off. What differs: ours computes in bf16 over float32 masters; the peer is measured with
bf16 autocast (float32 weights), with bf16 weights and no masters, which is less work and less exact, and in
float32 at precision "medium".
In:  a shape's name and, for the peer, its options.  Out: a side for workers.py.
Not here: who is compared with whom (train.py).
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.workers import Channel
from tenth.model.presets import preset


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One row of the benchmark."""

    preset: str
    batch: int
    tokens: int  # per sequence


SHAPES = {
    "dense-5m": Shape(preset="dense-5m", batch=16, tokens=256),
    "dense-50m": Shape(preset="dense-50m", batch=8, tokens=256),
    "dsv3-mini": Shape(preset="dsv3-mini", batch=8, tokens=256),
}
LEARNING_RATE, BETAS, EPS, DECAY, CLIP = 3e-4, (0.9, 0.95), 1e-8, 0.1, 1.0


def batch_of(shape: Shape) -> tuple[Tensor, Tensor]:
    """Random ids (B, T) and the ids that follow them (B, T); the same on both sides."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(
        0, preset(shape.preset).vocab_size, (shape.batch, shape.tokens + 1), generator=generator
    )
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def ours(channel: Channel, *, shape: str) -> None:
    """tenth: bf16 weights and gradients, float32 masters."""
    from tenth.model.ops import head_cross_entropy
    from tenth.model.transformer import Transformer, initialise
    from tenth.training.optim import OptimConfig, WeightUpdater

    row = SHAPES[shape]
    model = initialise(Transformer(preset(row.preset)), generator=torch.Generator().manual_seed(0))
    model.to_compute_dtype(torch.bfloat16)
    updater = WeightUpdater(
        model,
        OptimConfig(
            lr=LEARNING_RATE, beta1=BETAS[0], beta2=BETAS[1], eps=EPS, weight_decay=DECAY, max_grad_norm=CLIP
        ),
    )
    ids, targets = batch_of(row)
    weights = torch.full((targets.numel(),), 1 / targets.numel())

    def step() -> float:
        hidden = model(ids).flatten(0, 1)  # (B*T, D)
        loss = head_cross_entropy(hidden, model.head_weight, targets.flatten(), weights)
        loss.backward()
        updater.gather()
        updater.apply()
        return float(loss.detach())

    first_loss = step()
    channel.serve(step, {"parameters": sum(p.numel() for p in model.parameters()), "first_loss": first_loss})


def peer(
    channel: Channel,
    *,
    shape: str,
    attention: str,
    precision: str,
    is_compiled: bool,
    experts: str | None = None,
) -> None:
    """transformers: the same shape from a config, its own loss."""
    import transformers

    from tenth.model.hf_config import to_hf

    if precision == "fp32-medium":
        torch.set_float32_matmul_precision("medium")
    row = SHAPES[shape]
    torch.manual_seed(0)
    values = to_hf(preset(row.preset))
    config = transformers.AutoConfig.for_model(**{k: v for k, v in values.items() if k != "tenth"})
    model: Any = transformers.AutoModelForCausalLM.from_config(
        config,
        attn_implementation=attention,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        **({} if experts is None else {"experts_implementation": experts}),
    )
    model.config.use_cache = False
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True
    )
    network = torch.compile(model) if is_compiled else model
    ids, targets = batch_of(row)

    def step() -> float:
        scope = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-autocast" else nullcontext()
        with scope:
            loss = network(input_ids=ids, labels=targets, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    first_loss = step()
    channel.serve(step, {"parameters": sum(p.numel() for p in parameters), "first_loss": first_loss})
