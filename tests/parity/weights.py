"""Copies the weights of a transformers model into our Transformer, name by name; gradients likewise.

Why: parity tests need the same function on both sides. Written apart from any shipped reader, so that a
mistake in one does not hide in the other. Every map here is linear, so it carries gradients as well as
weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from tenth.model.config import ModelConfig
from tenth.model.rope import interleaved_to_half
from tenth.model.transformer import Transformer


def randomise(model: torch.nn.Module, *, seed: int) -> None:
    """Weights of a size that lets every part be felt in the logits; routers get a selection bias."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                tensor.copy_(1 + 0.2 * torch.randn(tensor.shape, generator=generator))
            elif name.endswith("e_score_correction_bias"):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            elif "inv_freq" not in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor.shape[-1] ** -0.5)


def load(network: Transformer, state: Mapping[str, Tensor], *, is_interleaved: bool = True) -> None:
    """Put a transformers state dict into our network; a name left over on either side is an error.

    `is_interleaved`: how DeepSeek's rotary rows lie there; the other families know one way only.
    """
    ours = translate(state, network.config, is_interleaved=is_interleaved)
    moe = network.config.moe
    if moe and moe.topk_method != "noaux_tc":  # the bias takes no part and is in no file: anything will do
        names = [name for name in network.state_dict() if name.endswith("router.bias")]
        ours |= {name: torch.full((moe.n_routed_experts,), 7.0) for name in names}
    network.load_state_dict(ours, strict=True)


def assert_gradients_match(network: Transformer, peer: torch.nn.Module) -> None:
    """Every parameter's gradient, translated, equals ours."""
    gradients = {name: p.grad for name, p in peer.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    theirs = translate(gradients, network.config)
    ours = dict(network.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        difference = (ours[name].grad - gradient).abs().max()
        assert difference <= 1e-4 * gradient.abs().max(), f"{name} differs by {difference}"


def translate(
    state: Mapping[str, Tensor], config: ModelConfig, *, is_interleaved: bool = True
) -> dict[str, Tensor]:
    """Our names and layouts for a transformers state dict."""
    left = {name.removeprefix("model."): tensor for name, tensor in state.items() if "inv_freq" not in name}
    ours = {"embed.weight": left.pop("embed_tokens.weight"), "norm.weight": left.pop("norm.weight")}
    head = left.pop("lm_head.weight", None)
    if not config.tie_word_embeddings:
        assert head is not None
        ours["head.weight"] = head
    for layer_id in range(config.num_hidden_layers):
        there = here = f"layers.{layer_id}."
        ours |= _block(left, config, theirs=there, ours=here, is_interleaved=is_interleaved)
    for depth in range(config.num_nextn_predict_layers):
        there, here = f"mtp.{depth}.", f"mtp.{depth}."
        for name in ("enorm", "hnorm", "eh_proj"):
            ours[f"{here}{name}.weight"] = left.pop(f"{there}{name}.weight")
        ours[f"{here}norm.weight"] = left.pop(f"{there}post_norm.weight")
        there, here = f"{there}mtp_block.", f"{here}block."
        ours |= _block(left, config, theirs=there, ours=here, is_interleaved=is_interleaved)
    assert not left, f"names without a home: {sorted(left)}"
    return ours


def _block(
    left: dict[str, Tensor], config: ModelConfig, *, theirs: str, ours: str, is_interleaved: bool
) -> dict[str, Tensor]:
    found = {
        f"{ours}attention_norm.weight": left.pop(f"{theirs}input_layernorm.weight"),
        f"{ours}ffn_norm.weight": left.pop(f"{theirs}post_attention_layernorm.weight"),
    }
    prefix = f"{theirs}self_attn."
    if config.mla:
        attention = _latent(left, config, prefix, is_interleaved=is_interleaved)
    else:
        attention = _grouped(left, config, prefix)
    found |= {f"{ours}attention.{k}": v for k, v in attention.items()}
    return found | {f"{ours}ffn.{k}": v for k, v in _feed_forward(left, f"{theirs}mlp.").items()}


def _latent(
    left: dict[str, Tensor], config: ModelConfig, prefix: str, *, is_interleaved: bool
) -> dict[str, Tensor]:
    mla = config.mla
    assert mla is not None
    rope = mla.qk_rope_head_dim
    kv_a = left.pop(f"{prefix}kv_a_proj_with_mqa.weight")
    if is_interleaved:
        kv_a = interleaved_to_half(kv_a, rope, head_dim=mla.kv_lora_rank + rope)
    ours = {
        "kv_norm.weight": left.pop(f"{prefix}kv_a_layernorm.weight"),
        "kv_b.weight": left.pop(f"{prefix}kv_b_proj.weight"),
        "o.weight": left.pop(f"{prefix}o_proj.weight"),
    }
    q_name = "q_proj" if mla.q_lora_rank is None else "q_b_proj"
    q = left.pop(f"{prefix}{q_name}.weight")
    if is_interleaved:
        q = interleaved_to_half(q, rope, head_dim=mla.qk_head_dim)
    if mla.q_lora_rank is None:
        return {**ours, "qkv_a.weight": torch.cat((q, kv_a))}
    q_a = left.pop(f"{prefix}q_a_proj.weight")
    ours["q_norm.weight"] = left.pop(f"{prefix}q_a_layernorm.weight")
    return {**ours, "q_b.weight": q, "qkv_a.weight": torch.cat((q_a, kv_a))}


def _grouped(left: dict[str, Tensor], config: ModelConfig, prefix: str) -> dict[str, Tensor]:
    assert config.gqa is not None
    kinds = ("weight", "bias") if config.gqa.qkv_bias else ("weight",)
    ours = {}
    for kind in kinds:
        ours[f"qkv.{kind}"] = torch.cat([left.pop(f"{prefix}{part}_proj.{kind}") for part in "qkv"])
    if config.gqa.o_bias:
        ours["o.bias"] = left.pop(f"{prefix}o_proj.bias")
    if config.gqa.qk_norm:
        ours |= {name: left.pop(f"{prefix}{name}") for name in ("q_norm.weight", "k_norm.weight")}
    return {**ours, "o.weight": left.pop(f"{prefix}o_proj.weight")}


def _feed_forward(left: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if f"{prefix}gate_proj.weight" in left:
        return _swiglu(left, prefix)
    ours = {
        "gate_up": left.pop(f"{prefix}experts.gate_up_proj"),
        "down": left.pop(f"{prefix}experts.down_proj"),
        "router.weight": left.pop(f"{prefix}gate.weight"),
    }
    bias = left.pop(f"{prefix}gate.e_score_correction_bias", None)  # no gradient, so absent among gradients
    if bias is not None:
        ours["router.bias"] = bias
    if f"{prefix}shared_experts.gate_proj.weight" in left:
        ours |= {f"shared.{k}": v for k, v in _swiglu(left, f"{prefix}shared_experts.").items()}
    return ours


def _swiglu(left: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    gate, up = left.pop(f"{prefix}gate_proj.weight"), left.pop(f"{prefix}up_proj.weight")
    return {"gate_up.weight": torch.cat((gate, up)), "down.weight": left.pop(f"{prefix}down_proj.weight")}
