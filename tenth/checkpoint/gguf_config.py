"""A network's configuration as the keys of a GGUF file, and back as the keys of a config.json.

Why: llama.cpp reads its network from these keys. What it would compute otherwise than we do is refused with a
sentence at export: a wrong network that runs is worse than none.
In:  a ModelConfig, or the keys of a file.  Out: keys by name; a config.json, for `from_hf` to check.
What llama.cpp (0.3.36's) does and a file cannot say: YaRN's ramp is 32 to 1 turns; qwen3moe normalises its
weights; groups of experts are scored by their best two; deepseek2 with 26 or 27 layers has no query latent.
Llama 3's frequencies travel as a tensor of divisors, from which its four numbers cannot be told, so they are
kept beside it under a key of our own.
Not here: the tokenizer's keys (gguf_vocabulary.py), tensors (gguf_names.py).
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_names import architecture_of
from tenth.model.config import (
    GqaConfig,
    LinearRopeConfig,
    Llama3RopeConfig,
    MlaConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    YarnConfig,
)
from tenth.model.rope import active_scaling, rope_frequencies

ROPE_DIVISORS = "rope_freqs.weight"
_OWN_ROPE = "tenth.rope_scaling"
_SOFTMAX, _SIGMOID = 1, 2  # llama.cpp's numbers of the gating functions
_LITE_LAYERS = (26, 27)
_RAMP = (32.0, 1.0)
_MODEL_TYPES = {
    "deepseek2": "deepseek_v3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "llama": "llama",
}
# Keys that would make another network, with the values that do not.
_UNBUILT: Mapping[str, tuple[float, ...]] = {
    "attention.scale": (0.0,),
    "attention.temperature_scale": (0.0,),
    "logit_scale": (0.0, 1.0),
}
# Llama 3.1, 3.2 and 3.3 differ in the factor alone: what to try where a file holds the divisors only.
_LLAMA3_KNOWN = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def config_keys(config: ModelConfig) -> dict[str, int | float | bool | str]:
    """The keys that describe the network; those of the architecture carry its name in front."""
    own: dict[str, int | float | bool | str] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_theta,
        "rope.dimension_count": config.rope_dim,
        "vocab_size": config.vocab_size,
    }
    if config.gqa:
        own |= _grouped_keys(config.gqa)
    if config.mla:
        own |= _latent_keys(config, config.mla)
    if config.moe:
        own |= _expert_keys(config, config.moe)
    own |= _rope_keys(config)
    architecture = architecture_of(config)
    keys: dict[str, int | float | bool | str] = {"general.name": config.name}
    keys |= {f"{architecture}.{key}": value for key, value in own.items()}
    if isinstance(config.rope_scaling, Llama3RopeConfig):
        keys[_OWN_ROPE] = json.dumps(_llama3_to_hf(config.rope_scaling))
    return keys


def rope_divisors(config: ModelConfig) -> Tensor | None:
    """What each pair's frequency is divided by, (D/2,) float32; None where no file needs it."""
    if not isinstance(config.rope_scaling, Llama3RopeConfig):
        return None
    plain, scaled = (
        rope_frequencies(config.rope_dim, theta=config.rope_theta, scaling=scaling)
        for scaling in (None, config.rope_scaling)
    )
    return plain / scaled


def config_values(
    keys: Mapping[str, Any], *, has_tensor: Callable[[str], bool], divisors: Callable[[], Tensor | None]
) -> dict[str, Any]:
    """The config.json that the keys of a file amount to."""
    architecture = keys.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in _MODEL_TYPES:
        raise CheckpointError(
            f"architecture {str(architecture)[:40]!r} is not known ({', '.join(_MODEL_TYPES)} are); choose "
            "another file."
        )
    read = _Keys(keys, architecture)
    for key, harmless in _UNBUILT.items():
        if read.number(key, 0.0) not in harmless:
            raise CheckpointError(
                f"the key '{architecture}.{key}' is {read.number(key):g}, which is not implemented; choose "
                "another file."
            )
    tokens = keys.get("tokenizer.ggml.tokens")
    values = {
        "model_type": _MODEL_TYPES[architecture],
        "vocab_size": read.number("vocab_size", len(tokens) if isinstance(tokens, list) else None),
        "hidden_size": read.number("embedding_length"),
        "intermediate_size": read.number("feed_forward_length"),
        "num_hidden_layers": read.number("block_count") - read.number("nextn_predict_layers", 0),
        "num_attention_heads": read.number("attention.head_count"),
        "max_position_embeddings": read.number("context_length"),
        "rope_theta": read.number("rope.freq_base", 10000.0),
        "rms_norm_eps": read.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": not has_tensor("output.weight"),
        "bos_token_id": keys.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": keys.get("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float32",
        "tenth": {"name": str(keys.get("general.name", architecture))},
    }
    values |= _latent_values(read) if architecture == "deepseek2" else _grouped_values(read, has_tensor)
    if architecture == "qwen3moe":
        values |= _qwen3moe_values(read)
    rope = _rope_values(read, keys, divisors())
    return values if rope is None else {**values, "rope_scaling": rope}


class _Keys:
    """The keys of one architecture; a sentence for those that are missing or of another kind."""

    def __init__(self, keys: Mapping[str, Any], architecture: str) -> None:
        self._keys, self.architecture = keys, architecture

    def number(self, key: str, default: Any = None) -> Any:
        name = f"{self.architecture}.{key}"
        value = self._keys.get(name, default)
        if not isinstance(value, int | float):
            wrong = "is missing" if value is None else f"is {str(value)[:40]!r}, no number"
            raise CheckpointError(f"the key '{name}' {wrong}; fetch or convert the file again.")
        return float(f"{value:.7g}") if isinstance(value, float) else value  # 1e-6 was rounded to float32

    def get(self, key: str) -> Any:
        return self._keys.get(f"{self.architecture}.{key}")


def _grouped_keys(gqa: GqaConfig) -> dict[str, int | float | bool | str]:
    return {
        "attention.head_count_kv": gqa.num_key_value_heads,
        "attention.key_length": gqa.head_dim,
        "attention.value_length": gqa.head_dim,
    }


def _grouped_values(read: _Keys, has_tensor: Callable[[str], bool]) -> dict[str, Any]:
    heads = read.number("attention.head_count")
    values = {
        "num_key_value_heads": read.number("attention.head_count_kv", heads),
        "head_dim": read.number("attention.key_length", read.number("embedding_length") // max(heads, 1)),
    }
    if read.architecture == "llama":
        if read.number("expert_count", 0):
            raise CheckpointError("a llama file with experts (Mixtral) is not read; choose a dense one.")
        values["attention_bias"] = has_tensor("blk.0.attn_output.bias")
    return values


def _latent_keys(config: ModelConfig, mla: MlaConfig) -> dict[str, int | float | bool | str]:
    if mla.q_lora_rank is not None and config.num_hidden_layers in _LITE_LAYERS:
        raise ConfigError(
            f"model '{config.name}': llama.cpp takes every deepseek2 of {config.num_hidden_layers} layers "
            "for DeepSeek-V2-Lite, which has no query latent, and this one has one; no GGUF file can hold it."
        )
    keys: dict[str, int | float | bool | str] = {
        "attention.head_count_kv": 1,  # absorbed: every query head attends to one latent
        "attention.q_lora_rank": mla.q_lora_rank or 0,
        "attention.kv_lora_rank": mla.kv_lora_rank,
        "attention.key_length": mla.kv_lora_rank + mla.qk_rope_head_dim,
        "attention.value_length": mla.kv_lora_rank,
        "attention.key_length_mla": mla.qk_head_dim,
        "attention.value_length_mla": mla.v_head_dim,
    }
    if config.moe is None:  # llama.cpp asks for these of dense files too
        keys |= {
            "leading_dense_block_count": config.num_hidden_layers,
            "expert_feed_forward_length": config.intermediate_size,
            "expert_shared_count": 0,
        }
    return keys


def _latent_values(read: _Keys) -> dict[str, Any]:
    rope = read.number("rope.dimension_count")
    values: dict[str, Any] = {
        "q_lora_rank": read.number("attention.q_lora_rank", 0) or None,
        "kv_lora_rank": read.number("attention.kv_lora_rank"),
        "qk_nope_head_dim": read.number("attention.key_length_mla") - rope,
        "qk_rope_head_dim": rope,
        "v_head_dim": read.number("attention.value_length_mla"),
    }
    is_softmax = read.number("expert_gating_func", _SOFTMAX) == _SOFTMAX
    num_experts = read.number("expert_count", 0)
    groups = read.number("expert_group_count", 0) or 1
    if num_experts and is_softmax:
        values["model_type"] = "deepseek_v2"
    if not num_experts:
        return {**values, "n_routed_experts": 0, "first_k_dense_replace": read.number("block_count")}
    softmax = "greedy" if groups == 1 else "group_limited_greedy"
    return {
        **values,
        "n_routed_experts": num_experts,
        "n_shared_experts": read.number("expert_shared_count"),
        "num_experts_per_tok": read.number("expert_used_count"),
        "moe_intermediate_size": read.number("expert_feed_forward_length"),
        "n_group": groups,
        "topk_group": read.number("expert_group_used_count", 0) or 1,
        "routed_scaling_factor": read.number("expert_weights_scale", 0.0) or 1.0,
        "norm_topk_prob": bool(read.number("expert_weights_norm", False)),
        "first_k_dense_replace": read.number("leading_dense_block_count", 0),
        "scoring_func": "softmax" if is_softmax else "sigmoid",
        "topk_method": softmax if is_softmax else "noaux_tc",
    }


def _expert_keys(config: ModelConfig, moe: MoeConfig) -> dict[str, int | float | bool | str]:
    keys: dict[str, int | float | bool | str] = {
        "expert_count": moe.n_routed_experts,
        "expert_used_count": moe.num_experts_per_tok,
        "expert_feed_forward_length": moe.moe_intermediate_size,
    }
    if config.gqa:
        if not moe.norm_topk_prob:
            raise ConfigError(
                f"model '{config.name}': norm_topk_prob = False, but llama.cpp normalises the weights of "
                "every qwen3moe; no GGUF file of this model would compute what it computes."
            )
        return keys
    if moe.n_shared_experts == 0:
        raise ConfigError(
            f"model '{config.name}': n_shared_experts = 0, but llama.cpp asks every deepseek2 with experts "
            "for shared ones; no GGUF file can hold this model."
        )
    keys |= {
        "leading_dense_block_count": moe.first_k_dense_replace,
        "expert_shared_count": moe.n_shared_experts,
        "expert_weights_scale": moe.routed_scaling_factor,
        "expert_weights_norm": moe.norm_topk_prob,
        "expert_gating_func": _SOFTMAX if moe.scoring_func == "softmax" else _SIGMOID,
    }
    if 1 <= moe.topk_group < moe.n_group:  # otherwise every group is kept
        if moe.topk_method == "group_limited_greedy":
            raise ConfigError(
                f"model '{config.name}': groups of experts are scored by their best one, and llama.cpp "
                "scores them by their best two; no GGUF file of this model would compute what it computes."
            )
        keys |= {"expert_group_count": moe.n_group, "expert_group_used_count": moe.topk_group}
    return keys


def _qwen3moe_values(read: _Keys) -> dict[str, Any]:
    return {
        "num_experts": read.number("expert_count"),
        "num_experts_per_tok": read.number("expert_used_count"),
        "moe_intermediate_size": read.number("expert_feed_forward_length"),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _rope_keys(config: ModelConfig) -> dict[str, int | float | bool | str]:
    scaling = active_scaling(config.rope_scaling, max_position_embeddings=config.max_position_embeddings)
    if isinstance(scaling, LinearRopeConfig):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    if isinstance(scaling, YarnConfig):
        return _yarn_keys(config, scaling)
    if isinstance(scaling, Llama3RopeConfig) and architecture_of(config) != "llama":
        raise ConfigError(
            f"model '{config.name}': llama.cpp rescales frequencies as Llama 3 does for llama files only, "
            f"not for {architecture_of(config)}; no GGUF file of this model would compute what it computes."
        )
    return {}


def _yarn_keys(config: ModelConfig, yarn: YarnConfig) -> dict[str, int | float | bool | str]:
    """llama.cpp makes cosine and sine 0.1 ln(factor) + 1 times larger, or, told DeepSeek's `log_mul`, leaves
    them and scales the scores; `attn_factor` multiplies what it makes."""
    if (yarn.beta_fast, yarn.beta_slow) != _RAMP or not yarn.truncate:
        raise ConfigError(
            f"model '{config.name}': YaRN's ramp is beta_fast = {yarn.beta_fast:g}, beta_slow = "
            f"{yarn.beta_slow:g}, truncate = {yarn.truncate}, but llama.cpp reads none of these from a file "
            "and uses 32, 1 and True; no GGUF file of this model would compute what it computes."
        )
    keys: dict[str, int | float | bool | str] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": yarn.factor,
        "rope.scaling.original_context_length": yarn.original_max_position_embeddings,
    }
    size, made = _rotation_size(yarn), _mscale(yarn.factor, 1.0)
    if config.mla:
        if not math.isclose(size, 1.0, rel_tol=1e-6):
            raise ConfigError(
                f"model '{config.name}': YaRN's mscale = {yarn.mscale:g} and mscale_all_dim = "
                f"{yarn.mscale_all_dim:g} differ, and llama.cpp's deepseek2 takes them for equal; no GGUF "
                "file of this model would compute what it computes."
            )
        if yarn.mscale_all_dim:
            return {**keys, "rope.scaling.yarn_log_multiplier": 0.1 * yarn.mscale_all_dim}
    if not math.isclose(size, made, rel_tol=1e-6):
        keys["rope.scaling.attn_factor"] = size / made
    return keys


def _rope_values(read: _Keys, keys: Mapping[str, Any], divisors: Tensor | None) -> dict[str, Any] | None:
    if divisors is not None:
        return _llama3_values(read, keys, divisors)
    kind = read.get("rope.scaling.type")
    factor = read.number("rope.scaling.factor", read.number("rope.scale_linear", 0.0))
    if kind in (None, "none", "linear"):
        is_scaled = kind != "none" and factor not in (0.0, 1.0)
        return {"rope_type": "linear", "type": "linear", "factor": factor} if is_scaled else None
    if kind != "yarn":
        raise CheckpointError(
            f"rope scaling {str(kind)[:40]!r} is not read (known: linear, yarn); choose another file."
        )
    context = read.number("context_length")
    values = {
        "rope_type": "yarn",
        "type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": read.number("rope.scaling.original_context_length", context),
        "beta_fast": _RAMP[0],
        "beta_slow": _RAMP[1],
    }
    size = round(read.number("rope.scaling.attn_factor", 1.0) * _mscale(factor, 1.0), 6)
    weight = read.number("rope.scaling.yarn_log_multiplier", 0.0)
    if read.architecture != "deepseek2":
        is_usual = read.get("rope.scaling.attn_factor") is None
        return values if is_usual else {**values, "attention_factor": size}
    if weight:
        return {**values, "mscale": round(weight * 10, 6), "mscale_all_dim": round(weight * 10, 6)}
    if size != 1.0:
        raise CheckpointError(
            "its YaRN scales the rotated parts of latent attention, which is not read; convert the original."
        )
    return {**values, "attention_factor": 1.0}


def _llama3_values(read: _Keys, keys: Mapping[str, Any], divisors: Tensor) -> dict[str, Any]:
    """Our own key says how the divisors were made; elsewhere Llama's published numbers are tried."""
    try:
        found = json.loads(keys[_OWN_ROPE]) if _OWN_ROPE in keys else None
        scaling = Llama3RopeConfig(
            **{key: found[key] for key in Llama3RopeConfig.__dataclass_fields__}
            if found
            else {"factor": float(divisors.max()), **_LLAMA3_KNOWN}
        )
        plain, scaled = (
            rope_frequencies(2 * len(divisors), theta=read.number("rope.freq_base", 10000.0), scaling=each)
            for each in (None, scaling)
        )
        if torch.allclose(plain / scaled, divisors, rtol=1e-4):
            return _llama3_to_hf(scaling)
    except (TypeError, ValueError, KeyError, ArithmeticError, RecursionError):
        pass  # the sentence below says all that a user can use
    raise CheckpointError(
        f"its {ROPE_DIVISORS} follows no frequency rescaling of a published Llama 3; convert the original."
    )


def _llama3_to_hf(scaling: RopeScaling) -> dict[str, Any]:
    assert isinstance(scaling, Llama3RopeConfig)
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }


def _rotation_size(yarn: YarnConfig) -> float:
    if yarn.attention_factor is not None:
        return yarn.attention_factor
    return _mscale(yarn.factor, yarn.mscale) / _mscale(yarn.factor, yarn.mscale_all_dim)


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
