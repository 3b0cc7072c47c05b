"""The random-weight checkpoints that every side of the engine benchmark loads, each made once and kept.

Why: a ratio means something only if both sides compute the same function. One directory per shape holds our
own model directory; from its tensors come transformers' names and layouts (`transformers_state`), and from
the directory llama.cpp's file (engine_files.py). Parity tests read transformers weights the other way, in
code of their own, so each direction checks the other.
In:  a preset's name, a directory.  Out: paths; state dicts with transformers' names.
Not here: quantising (engine_files.py).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.model.config import ModelConfig
from tenth.model.hf_config import to_hf
from tenth.model.presets import preset
from tenth.model.rope import half_to_interleaved
from tenth.model.transformer import Transformer

ROUTER_BIAS = 0.02  # small: experts stay about equally busy, as they are in a balanced model


def model_directory(root: Path, shape: str) -> Path:
    """Our model directory of `shape` in bf16 with random weights, made if it is not there."""
    directory = root / shape / "bf16"
    if not (directory / "config.json").exists():
        save_model(directory, random_model(preset(shape)))
    return directory


@torch.no_grad()
def random_model(config: ModelConfig) -> Transformer:
    """Every matrix at a scale of 1/sqrt(columns), so that each part is felt in the logits; norms near one."""
    model = Transformer(config)
    for name, tensor in model.state_dict().items():
        generator = torch.Generator().manual_seed(stream_seed(0, config.name, name))
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name:
            tensor.copy_(1 + 0.1 * noise)
        elif name.endswith("router.bias"):
            tensor.copy_(ROUTER_BIAS * noise)
        else:
            tensor.copy_(noise * tensor.shape[-1] ** -0.5)
    return model.to_compute_dtype(torch.bfloat16)


def transformers_model(directory: Path, *, dtype: torch.dtype, **options: Any) -> Any:
    """transformers' model of a model directory; `options` go to its constructor."""
    import transformers

    ours = load_model(directory, dtype=torch.bfloat16)
    values = {k: v for k, v in to_hf(ours.config).items() if k not in ("tenth", "torch_dtype")}
    config = transformers.AutoConfig.for_model(**values)
    # Made at its final dtype with the values of ours in it: the second copy lives only while they are copied.
    model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, **options)
    missing, unknown = model.load_state_dict(transformers_state(ours), strict=False)
    if set(missing) - {"lm_head.weight"} or unknown:
        raise ValueError(f"weights without a counterpart: missing {missing}, unknown {unknown}")
    return model.eval()


def transformers_state(model: Transformer) -> dict[str, Tensor]:
    """The main model's weights under transformers' names, in its layouts (MTP layers left out)."""
    config, ours = model.config, model.state_dict()
    theirs = {"model.embed_tokens.weight": ours["embed.weight"], "model.norm.weight": ours["norm.weight"]}
    if not config.tie_word_embeddings:
        theirs["lm_head.weight"] = ours["head.weight"]
    for layer_id in range(config.num_hidden_layers):
        prefix = f"layers.{layer_id}."
        block = {k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)}
        there = f"model.layers.{layer_id}."
        theirs[f"{there}input_layernorm.weight"] = block["attention_norm.weight"]
        theirs[f"{there}post_attention_layernorm.weight"] = block["ffn_norm.weight"]
        attention = _latent(block, config) if config.mla else _grouped(block, config)
        theirs |= {f"{there}self_attn.{k}": v for k, v in attention.items()}
        theirs |= {f"{there}mlp.{k}": v for k, v in _feed_forward(block).items()}
    return theirs


def _grouped(block: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    assert config.gqa is not None
    kept = config.gqa.num_key_value_heads * config.gqa.head_dim
    sizes = (config.num_attention_heads * config.gqa.head_dim, kept, kept)
    theirs = {"o_proj.weight": block["attention.o.weight"]}
    for kind in ("weight", "bias") if config.gqa.qkv_bias else ("weight",):
        for part, tensor in zip("qkv", block[f"attention.qkv.{kind}"].split(sizes), strict=True):
            theirs[f"{part}_proj.{kind}"] = tensor
    return theirs


def _latent(block: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    mla = config.mla
    assert mla is not None
    rope, entry = mla.qk_rope_head_dim, mla.kv_lora_rank + mla.qk_rope_head_dim
    qkv_a = block["attention.qkv_a.weight"]
    first, kv_a = qkv_a.split((len(qkv_a) - entry, entry))
    theirs = {
        "kv_a_proj_with_mqa.weight": half_to_interleaved(kv_a, rope, head_dim=entry),
        "kv_a_layernorm.weight": block["attention.kv_norm.weight"],
        "kv_b_proj.weight": block["attention.kv_b.weight"],
        "o_proj.weight": block["attention.o.weight"],
    }
    if mla.q_lora_rank is None:
        return theirs | {"q_proj.weight": half_to_interleaved(first, rope, head_dim=mla.qk_head_dim)}
    q_b = half_to_interleaved(block["attention.q_b.weight"], rope, head_dim=mla.qk_head_dim)
    q_norm = block["attention.q_norm.weight"]
    return theirs | {"q_a_proj.weight": first, "q_a_layernorm.weight": q_norm, "q_b_proj.weight": q_b}


def _feed_forward(block: dict[str, Tensor]) -> dict[str, Tensor]:
    if "ffn.router.weight" not in block:
        return _swiglu(block, "ffn.")
    theirs = {
        "experts.gate_up_proj": block["ffn.gate_up"],
        "experts.down_proj": block["ffn.down"],
        "gate.weight": block["ffn.router.weight"],
        "gate.e_score_correction_bias": block["ffn.router.bias"],
    }
    return theirs | {f"shared_experts.{k}": v for k, v in _swiglu(block, "ffn.shared.").items()}


def _swiglu(block: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    gate, up = block[f"{prefix}gate_up.weight"].chunk(2)
    return {
        "gate_proj.weight": gate,
        "up_proj.weight": up,
        "down_proj.weight": block[f"{prefix}down.weight"],
    }
