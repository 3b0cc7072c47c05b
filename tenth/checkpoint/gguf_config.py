"""A network's configuration as the keys of a GGUF file, and back as the keys of a config.json.

Why: llama.cpp reads its network from these keys. What it would compute otherwise than we do is refused with a
sentence at export: a wrong network that runs is worse than none.
In:  a ModelConfig, or the keys of a file.  Out: keys by name; a config.json, for `from_hf` to check.
What llama.cpp (llama-cpp-python 0.3.36) does whatever a file says: qwen3moe normalises its weights; groups of
experts are scored by their best two; deepseek2 with 26 or 27 layers has no query latent.
Not here: the tokenizer's keys (gguf_vocabulary.py), rotary scaling (gguf_rope.py), tensors (gguf_names.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_keys import Keys, Value
from tenth.checkpoint.gguf_names import architecture_of
from tenth.checkpoint.gguf_rope import own_rope_keys, rope_keys, rope_values
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig

_SOFTMAX, _SIGMOID = 1, 2  # llama.cpp's numbers of the gating functions
_LITE_LAYERS = (26, 27)
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


def config_keys(config: ModelConfig) -> dict[str, Value]:
    """The keys that describe the network; those of the architecture carry its name in front."""
    own: dict[str, Value] = {
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
    own |= rope_keys(config)
    architecture = architecture_of(config)
    named = {f"{architecture}.{key}": value for key, value in own.items()}
    return {"general.name": config.name, **named, **own_rope_keys(config)}


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
    read = Keys(keys, architecture)
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
    rope = rope_values(read, keys, divisors())
    return values if rope is None else {**values, "rope_scaling": rope}


def _grouped_keys(gqa: GqaConfig) -> dict[str, Value]:
    return {
        "attention.head_count_kv": gqa.num_key_value_heads,
        "attention.key_length": gqa.head_dim,
        "attention.value_length": gqa.head_dim,
    }


def _grouped_values(read: Keys, has_tensor: Callable[[str], bool]) -> dict[str, Any]:
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


def _latent_keys(config: ModelConfig, mla: MlaConfig) -> dict[str, Value]:
    if mla.q_lora_rank is not None and config.num_hidden_layers in _LITE_LAYERS:
        raise ConfigError(
            f"model '{config.name}': llama.cpp takes every deepseek2 of {config.num_hidden_layers} layers "
            "for DeepSeek-V2-Lite, which has no query latent, and this one has one; no GGUF file can hold it."
        )
    keys: dict[str, Value] = {
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


def _latent_values(read: Keys) -> dict[str, Any]:
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


def _expert_keys(config: ModelConfig, moe: MoeConfig) -> dict[str, Value]:
    keys: dict[str, Value] = {
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


def _qwen3moe_values(read: Keys) -> dict[str, Any]:
    return {
        "num_experts": read.number("expert_count"),
        "num_experts_per_tok": read.number("expert_used_count"),
        "moe_intermediate_size": read.number("expert_feed_forward_length"),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
