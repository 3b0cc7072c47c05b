"""ModelConfig <-> the `config.json` of a Hugging Face checkpoint: deepseek_v3, qwen2, llama.

Why: other tools read what we write and we read what others wrote, so their key names are spoken in one place.
In:  a ModelConfig, or the parsed JSON.
Out: the parsed JSON, or a ModelConfig. A key that would change the network in a way we do not build
(another activation, a softmax router, Llama 3's frequency rescaling) is refused with a sentence: a wrong
network that runs is worse than none. Keys that do not change it are ignored on reading. Of DeepSeek-R1's
file only `auto_map` and `transformers_version` are never written: they describe code that is not ours. What
those files have no key for goes under `tenth`. Torch-free.
Not here: weights and their names (checkpoint/).
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from tenth.base.errors import ConfigError
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig, RopeScaling, YarnConfig

# What every network of a kind has: written as it stands, refused on reading when it differs.
_FIXED: Mapping[str, dict[str, Any]] = {
    "deepseek_v3": {
        "hidden_act": "silu",
        "attention_bias": False,
        "moe_layer_freq": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False},
    "llama": {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
}
# Keys that published files leave out, with the only value that is built.
_ASSUMED: Mapping[str, dict[str, Any]] = {
    "deepseek_v3": {"rope_interleave": True},
    "qwen2": {"attention_bias": True},
    "llama": {},
}
_ARCHITECTURES: Mapping[str, str] = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "llama": "LlamaForCausalLM",
}
# How DeepSeek's published weights are stored (arXiv:2412.19437, section 3.3; README_WEIGHTS).
_FP8_BLOCKS: Mapping[str, Any] = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
}


def to_hf(config: ModelConfig, *, dtype: str = "bfloat16", is_fp8: bool = False) -> dict[str, Any]:
    """The config.json of `config`. `dtype` and `is_fp8` say how the weights beside it are stored."""
    model_type = model_type_of(config)
    values = {
        "architectures": [_ARCHITECTURES[model_type]],
        "model_type": model_type,
        **_FIXED[model_type],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_nextn_predict_layers": config.num_nextn_predict_layers,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_scaling": _yarn_to_hf(config.rope_scaling),
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_dropout": 0.0,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": dtype,
        **(_mla_to_hf(config) if config.mla else _gqa_to_hf(config)),
        "tenth": {"name": config.name},
    }
    if config.moe:
        # aux_loss_alpha would be the usual key for the second, but published files hold a leftover there.
        values["tenth"]["bias_update_speed"] = config.moe.bias_update_speed
        values["tenth"]["sequence_balance_weight"] = config.moe.sequence_balance_weight
    if is_fp8:
        values["quantization_config"] = dict(_FP8_BLOCKS)
    return values


def from_hf(values: Mapping[str, Any], *, name: str | None = None) -> ModelConfig:
    """The ModelConfig of a parsed config.json. `name` None: the name it was written under, or its type."""
    model_type = _known_type(values)
    for key, expected in (_FIXED[model_type] | _ASSUMED[model_type]).items():
        if values.get(key, expected) != expected:
            raise ConfigError(
                f"config.json: {key} = {values[key]!r} is not implemented for {model_type}, which here has "
                f"{expected!r}; choose another checkpoint."
            )
    own = _read(values, "tenth", dict, {})
    heads = _read(values, "num_attention_heads", int)
    hidden_size = _read(values, "hidden_size", int)
    is_deepseek = model_type == "deepseek_v3"
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    return ModelConfig(
        name=name or own.get("name", model_type),
        vocab_size=_read(values, "vocab_size", int),
        hidden_size=hidden_size,
        num_hidden_layers=_read(values, "num_hidden_layers", int),
        num_attention_heads=heads,
        intermediate_size=_read(values, "intermediate_size", int),
        mla=_mla_from_hf(values) if is_deepseek else None,
        gqa=None if is_deepseek else _gqa_from_hf(values, model_type=model_type),
        moe=_moe_from_hf(values, own) if is_deepseek else None,
        num_nextn_predict_layers=_read(values, "num_nextn_predict_layers", int, 0),
        max_position_embeddings=_read(values, "max_position_embeddings", int),
        rope_theta=_read(values, "rope_theta", float, rope.get("rope_theta", 10000.0)),
        rope_scaling=_yarn_from_hf(rope),
        rms_norm_eps=_read(values, "rms_norm_eps", float, 1e-6),
        initializer_range=_read(values, "initializer_range", float, 0.02),
        tie_word_embeddings=_read(values, "tie_word_embeddings", bool, False),
    )


def model_type_of(config: ModelConfig) -> str:
    """The Hugging Face family that `config` belongs to."""
    if config.mla:
        return "deepseek_v3"
    assert config.gqa is not None
    if config.moe:
        raise ConfigError(
            f"model '{config.name}': grouped-query attention with experts has no Hugging Face architecture "
            "that is known here; use mla."
        )
    return "qwen2" if config.gqa.qkv_bias else "llama"


def _known_type(values: Mapping[str, Any]) -> str:
    by_architecture = {architecture: model_type for model_type, architecture in _ARCHITECTURES.items()}
    architectures = values.get("architectures") or ["missing"]
    model_type = values.get("model_type", by_architecture.get(architectures[0]))
    if model_type not in _FIXED:
        raise ConfigError(
            f"config.json: architecture '{architectures[0]}' (model_type {model_type!r}) is not known; "
            f"known: {', '.join(_ARCHITECTURES.values())}."
        )
    return str(model_type)


def _mla_to_hf(config: ModelConfig) -> dict[str, Any]:
    mla, moe = config.mla, config.moe
    assert mla is not None
    values: dict[str, Any] = {
        "num_key_value_heads": config.num_attention_heads,  # cosmetic: latent attention has no such thing
        "q_lora_rank": mla.q_lora_rank,
        "kv_lora_rank": mla.kv_lora_rank,
        "qk_nope_head_dim": mla.qk_nope_head_dim,
        "qk_rope_head_dim": mla.qk_rope_head_dim,
        "v_head_dim": mla.v_head_dim,
        "ep_size": 1,
    }
    if moe is None:
        return {**values, "n_routed_experts": 0, "first_k_dense_replace": config.num_hidden_layers}
    return {
        **values,
        "n_routed_experts": moe.n_routed_experts,
        "n_shared_experts": moe.n_shared_experts,
        "num_experts_per_tok": moe.num_experts_per_tok,
        "moe_intermediate_size": moe.moe_intermediate_size,
        "n_group": moe.n_group,
        "topk_group": moe.topk_group,
        "routed_scaling_factor": moe.routed_scaling_factor,
        "norm_topk_prob": moe.norm_topk_prob,
        "first_k_dense_replace": moe.first_k_dense_replace,
    }


def _gqa_to_hf(config: ModelConfig) -> dict[str, Any]:
    assert config.gqa is not None
    return {"num_key_value_heads": config.gqa.num_key_value_heads, "head_dim": config.gqa.head_dim}


def _yarn_to_hf(yarn: RopeScaling | None) -> dict[str, Any] | None:
    if not isinstance(yarn, YarnConfig):
        return None
    return {
        "type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "mscale": yarn.mscale,
        "mscale_all_dim": yarn.mscale_all_dim,
    }


def _mla_from_hf(values: Mapping[str, Any]) -> MlaConfig:
    has_query_rank = values.get("q_lora_rank") is not None
    return MlaConfig(
        q_lora_rank=_read(values, "q_lora_rank", int) if has_query_rank else None,
        kv_lora_rank=_read(values, "kv_lora_rank", int),
        qk_nope_head_dim=_read(values, "qk_nope_head_dim", int),
        qk_rope_head_dim=_read(values, "qk_rope_head_dim", int),
        v_head_dim=_read(values, "v_head_dim", int),
    )


def _moe_from_hf(values: Mapping[str, Any], own: Mapping[str, Any]) -> MoeConfig | None:
    if not values.get("n_routed_experts"):
        return None
    return MoeConfig(
        n_routed_experts=_read(values, "n_routed_experts", int),
        n_shared_experts=_read(values, "n_shared_experts", int),
        num_experts_per_tok=_read(values, "num_experts_per_tok", int),
        moe_intermediate_size=_read(values, "moe_intermediate_size", int),
        n_group=_read(values, "n_group", int),
        topk_group=_read(values, "topk_group", int),
        routed_scaling_factor=_read(values, "routed_scaling_factor", float),
        norm_topk_prob=_read(values, "norm_topk_prob", bool),
        first_k_dense_replace=_read(values, "first_k_dense_replace", int),
        bias_update_speed=_read(own, "bias_update_speed", float, MoeConfig.bias_update_speed),
        sequence_balance_weight=_read(
            own, "sequence_balance_weight", float, MoeConfig.sequence_balance_weight
        ),
    )


def _gqa_from_hf(values: Mapping[str, Any], *, model_type: str) -> GqaConfig:
    heads, hidden_size = _read(values, "num_attention_heads", int), _read(values, "hidden_size", int)
    return GqaConfig(
        num_key_value_heads=_read(values, "num_key_value_heads", int, heads),
        head_dim=_read(values, "head_dim", int, hidden_size // heads),
        qkv_bias=model_type == "qwen2",
    )


def _yarn_from_hf(rope: Mapping[str, Any]) -> YarnConfig | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise ConfigError(f"config.json: rope scaling '{kind}' is not implemented; known: yarn, default.")
    return YarnConfig(
        factor=_read(rope, "factor", float),
        original_max_position_embeddings=_read(rope, "original_max_position_embeddings", int),
        beta_fast=_read(rope, "beta_fast", float, 32.0),
        beta_slow=_read(rope, "beta_slow", float, 1.0),
        # Files without these keys (Qwen2's) scale the rotation itself by 0.1 ln(factor) + 1.
        mscale=_read(rope, "mscale", float, 1.0),
        mscale_all_dim=_read(rope, "mscale_all_dim", float, 0.0),
    )


T = TypeVar("T", int, float, bool, dict)


def _read(values: Mapping[str, Any], key: str, kind: type[T], default: Any = None) -> T:
    value = values.get(key, default)
    if value is None and default is None:
        raise ConfigError(f"config.json: '{key}' is missing; restore the file that came with the checkpoint.")
    if value is None:
        value = default
    is_right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is float and isinstance(value, int):
        value, is_right = float(value), True
    if not is_right:
        raise ConfigError(f"config.json: {key} = {value!r} should be of type {kind.__name__}; mend the file.")
    return value
