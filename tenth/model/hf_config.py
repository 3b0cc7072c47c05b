"""ModelConfig <-> the `config.json` of a Hugging Face checkpoint.

Why: other tools read what we write and we read what others wrote, so their key names are spoken in one place.
In:  a ModelConfig, or the parsed JSON.
Out: the parsed JSON, or a ModelConfig. A key that would change the network in a way we do not build (another
activation, sliding windows, a bias where there is none) is refused with a sentence: a wrong network that
runs is worse than none. Keys that do not change it are ignored on reading. Of DeepSeek-R1's file only
`auto_map` and `transformers_version` are never written: they describe code that is not ours. What those
files have no key for goes under `tenth`. Torch-free.
Not here: weights and their names (checkpoint/), rotary keys (hf_rope.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tenth.base.errors import ConfigError
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.hf_rope import rope_from_hf, rope_to_hf
from tenth.model.hf_values import read_value


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What every network of a model_type has. All of it is refused on reading when it differs."""

    architecture: str
    written: Mapping[str, Any]
    assumed: Mapping[str, Any] = field(default_factory=dict)  # keys that published files leave out


_LATENT = {"hidden_act": "silu", "attention_bias": False, "moe_layer_freq": 1}
_QWEN = {"hidden_act": "silu", "use_sliding_window": False}
_FAMILIES: Mapping[str, _Family] = {
    "deepseek_v3": _Family(
        architecture="DeepseekV3ForCausalLM",
        written={**_LATENT, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    ),
    # The released code of V2 leaves the scaling factor out where it renormalises, transformers never
    # renormalises; no published checkpoint asks for it.
    "deepseek_v2": _Family(
        architecture="DeepseekV2ForCausalLM",
        written={**_LATENT, "scoring_func": "softmax", "norm_topk_prob": False},
        assumed={"mlp_bias": False},
    ),
    "qwen2": _Family(
        architecture="Qwen2ForCausalLM",
        written=_QWEN,
        assumed={"attention_bias": True},
    ),
    "qwen3": _Family(architecture="Qwen3ForCausalLM", written=_QWEN),
    "qwen3_moe": _Family(
        architecture="Qwen3MoeForCausalLM",
        written={**_QWEN, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "llama": _Family(
        architecture="LlamaForCausalLM",
        written={"hidden_act": "silu", "mlp_bias": False},
    ),
}
# Whoever counts or names parameters goes through them all. Published: 126 layers, 61 * 384 experts.
_MOST_LAYERS, _MOST_EXPERTS = 1 << 12, 1 << 18
# How DeepSeek's published weights are stored (arXiv:2412.19437, section 3.3; README_WEIGHTS).
_FP8_BLOCKS: Mapping[str, Any] = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
}


def to_hf(
    config: ModelConfig,
    *,
    dtype: str = "bfloat16",
    is_fp8: bool = False,
    bos_token_id: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
) -> dict[str, Any]:
    """The config.json of `config`. `dtype` and `is_fp8` say how the weights beside it are stored."""
    model_type = model_type_of(config)
    rope, own_rope = rope_to_hf(config)
    own = {"name": config.name, **own_rope}
    if config.moe:
        # aux_loss_alpha would be the usual key for the second, but published files hold a leftover there.
        own["bias_update_speed"] = config.moe.bias_update_speed
        own["sequence_balance_weight"] = config.moe.sequence_balance_weight
    return {
        "architectures": [_FAMILIES[model_type].architecture],
        "model_type": model_type,
        **_FAMILIES[model_type].written,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_nextn_predict_layers": config.num_nextn_predict_layers,
        "max_position_embeddings": config.max_position_embeddings,
        **rope,
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_dropout": 0.0,
        "use_cache": True,
        "bos_token_id": bos_token_id,
        "eos_token_id": list(eos_token_id) if isinstance(eos_token_id, Sequence) else eos_token_id,
        "torch_dtype": dtype,
        **(_mla_to_hf(config) if config.mla else _gqa_to_hf(config, model_type)),
        "tenth": own,
        **({"quantization_config": dict(_FP8_BLOCKS)} if is_fp8 else {}),
    }


def from_hf(values: Mapping[str, Any], *, name: str | None = None) -> ModelConfig:
    """The ModelConfig of a parsed config.json. `name` None: the name it was written under, or its type."""
    model_type = _known_type(values)
    _require_built(values, model_type)
    own = read_value(values, "tenth", dict, {})
    is_latent = model_type.startswith("deepseek")
    rope = rope_from_hf(values, is_latent=is_latent)
    return ModelConfig(
        name=name or read_value(own, "name", str, model_type),
        vocab_size=read_value(values, "vocab_size", int),
        hidden_size=read_value(values, "hidden_size", int),
        num_hidden_layers=read_value(values, "num_hidden_layers", int, most=_MOST_LAYERS),
        num_attention_heads=read_value(values, "num_attention_heads", int),
        intermediate_size=read_value(values, "intermediate_size", int),
        mla=_mla_from_hf(values) if is_latent else None,
        gqa=None if is_latent else _gqa_from_hf(values, model_type),
        moe=_moe_from_hf(values, own, model_type),
        num_nextn_predict_layers=read_value(
            values, "num_nextn_predict_layers", int, 0, least=0, most=_MOST_LAYERS
        ),
        max_position_embeddings=rope.max_position_embeddings,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        rms_norm_eps=read_value(values, "rms_norm_eps", float, 1e-6),
        initializer_range=read_value(values, "initializer_range", float, 0.02),
        tie_word_embeddings=read_value(values, "tie_word_embeddings", bool, False),
    )


def model_type_of(config: ModelConfig) -> str:
    """The Hugging Face family that `config` belongs to; a ConfigError where there is none."""
    gqa, moe = config.gqa, config.moe
    if gqa is None:
        is_v2 = moe is not None and moe.scoring_func == "softmax"
        if moe and (moe.topk_method == "noaux_tc") == is_v2:
            raise _homeless(config, f"{moe.scoring_func} scores with topk_method = '{moe.topk_method}'")
        if moe and is_v2 and moe.norm_topk_prob:
            raise _homeless(config, "latent attention and softmax scores with norm_topk_prob")
        return "deepseek_v2" if is_v2 else "deepseek_v3"
    if moe:
        as_qwen = MoeConfig(
            n_routed_experts=moe.n_routed_experts,
            n_shared_experts=0,
            num_experts_per_tok=moe.num_experts_per_tok,
            moe_intermediate_size=moe.moe_intermediate_size,
            norm_topk_prob=moe.norm_topk_prob,
            scoring_func="softmax",
            topk_method="greedy",
            first_k_dense_replace=0,
            bias_update_speed=moe.bias_update_speed,
            sequence_balance_weight=moe.sequence_balance_weight,
        )
        if not gqa.qk_norm or moe != as_qwen:
            raise _homeless(config, "grouped-query attention with experts other than Qwen3's")
    if gqa.o_bias != gqa.qkv_bias and (gqa.o_bias or gqa.qk_norm):
        raise _homeless(config, f"qkv_bias = {gqa.qkv_bias} with o_bias = {gqa.o_bias}")
    if gqa.qk_norm:
        return "qwen3_moe" if moe else "qwen3"
    return "qwen2" if gqa.qkv_bias and not gqa.o_bias else "llama"


def is_rope_interleaved(values: Mapping[str, Any]) -> bool:
    """Whether the rotary rows of the checkpoint beside this config.json are interleaved (model/rope.py)."""
    model_type = _known_type(values)
    if model_type == "deepseek_v3":
        return read_value(values, "rope_interleave", bool, True)
    return model_type == "deepseek_v2"


def _homeless(config: ModelConfig, what: str) -> ConfigError:
    return ConfigError(
        f"model '{config.name}': {what} has no Hugging Face architecture that is known here "
        f"({', '.join(_FAMILIES)}); change the configuration to one that has."
    )


def _known_type(values: Mapping[str, Any]) -> str:
    by_architecture = {family.architecture: model_type for model_type, family in _FAMILIES.items()}
    architectures = values.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else "missing"
    model_type = values.get("model_type", by_architecture.get(str(first)))
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise ConfigError(
            f"config.json: architecture '{first}' (model_type {model_type!r}) is not known; "
            f"known: {', '.join(by_architecture)}."
        )
    return model_type


def _require_built(values: Mapping[str, Any], model_type: str) -> None:
    for key, expected in {**_FAMILIES[model_type].written, **_FAMILIES[model_type].assumed}.items():
        if values.get(key) not in (None, expected):
            raise ConfigError(
                f"config.json: {key} = {values[key]!r} is not implemented for {model_type}, which here has "
                f"{expected!r}; choose another checkpoint."
            )
    # Qwen's files name a window that `use_sliding_window` turns off; without that key it is in use.
    window = None if "use_sliding_window" in values else values.get("sliding_window")
    kinds = values.get("layer_types") or ["full_attention"]
    if window is not None or not isinstance(kinds, list) or kinds != ["full_attention"] * len(kinds):
        raise ConfigError(
            f"config.json: sliding windows (sliding_window = {values.get('sliding_window')!r}) are not "
            "implemented; choose a checkpoint whose layers attend to the whole text."
        )


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
        "topk_method": moe.topk_method,
        "routed_scaling_factor": moe.routed_scaling_factor,
        "norm_topk_prob": moe.norm_topk_prob,
        "first_k_dense_replace": moe.first_k_dense_replace,
    }


def _gqa_to_hf(config: ModelConfig, model_type: str) -> dict[str, Any]:
    gqa, moe = config.gqa, config.moe
    assert gqa is not None
    values: dict[str, Any] = {"num_key_value_heads": gqa.num_key_value_heads, "head_dim": gqa.head_dim}
    if model_type != "qwen2":
        values["attention_bias"] = gqa.qkv_bias
    if moe:
        values |= {
            "num_experts": moe.n_routed_experts,
            "num_experts_per_tok": moe.num_experts_per_tok,
            "moe_intermediate_size": moe.moe_intermediate_size,
            "norm_topk_prob": moe.norm_topk_prob,
        }
    return values


def _mla_from_hf(values: Mapping[str, Any]) -> MlaConfig:
    has_query_rank = values.get("q_lora_rank") is not None
    return MlaConfig(
        q_lora_rank=read_value(values, "q_lora_rank", int) if has_query_rank else None,
        kv_lora_rank=read_value(values, "kv_lora_rank", int),
        qk_nope_head_dim=read_value(values, "qk_nope_head_dim", int),
        qk_rope_head_dim=read_value(values, "qk_rope_head_dim", int),
        v_head_dim=read_value(values, "v_head_dim", int),
    )


def _gqa_from_hf(values: Mapping[str, Any], model_type: str) -> GqaConfig:
    heads = read_value(values, "num_attention_heads", int)
    # Qwen3's heads are 128 wide where its file does not say otherwise, everybody else's share the width.
    width = 128 if model_type == "qwen3" else max(read_value(values, "hidden_size", int) // heads, 1)
    has_bias = model_type != "qwen2" and read_value(values, "attention_bias", bool, False)
    return GqaConfig(
        num_key_value_heads=read_value(values, "num_key_value_heads", int, heads),
        head_dim=read_value(values, "head_dim", int, width),
        qkv_bias=has_bias or model_type == "qwen2",
        o_bias=has_bias,
        qk_norm=model_type.startswith("qwen3"),
    )


def _moe_from_hf(values: Mapping[str, Any], own: Mapping[str, Any], model_type: str) -> MoeConfig | None:
    is_latent, is_v2 = model_type.startswith("deepseek"), model_type == "deepseek_v2"
    if not (values.get("n_routed_experts") if is_latent else model_type == "qwen3_moe"):
        return None
    most_experts = _MOST_EXPERTS // read_value(values, "num_hidden_layers", int, most=_MOST_LAYERS)
    common: dict[str, Any] = {
        "num_experts_per_tok": read_value(values, "num_experts_per_tok", int),
        "moe_intermediate_size": read_value(values, "moe_intermediate_size", int),
        "bias_update_speed": read_value(own, "bias_update_speed", float, MoeConfig.bias_update_speed),
        "sequence_balance_weight": read_value(
            own, "sequence_balance_weight", float, MoeConfig.sequence_balance_weight
        ),
    }
    if not is_latent:
        key = "num_experts" if "num_experts" in values else "num_local_experts"  # as transformers 5 saves it
        return MoeConfig(
            n_routed_experts=read_value(values, key, int, most=most_experts),
            n_shared_experts=0,
            norm_topk_prob=read_value(values, "norm_topk_prob", bool, False),
            scoring_func="softmax",
            topk_method="greedy",
            first_k_dense_replace=0,
            **common,
        )
    method = _v2_method(values) if is_v2 else "noaux_tc"
    has_groups = method != "greedy"  # that rule does not look at the groups a file names
    return MoeConfig(
        n_routed_experts=read_value(values, "n_routed_experts", int, most=most_experts),
        n_shared_experts=read_value(values, "n_shared_experts", int, 0 if is_v2 else None, least=0),
        n_group=read_value(values, "n_group", int, 1 if is_v2 else None) if has_groups else 1,
        topk_group=read_value(values, "topk_group", int, 1 if is_v2 else None) if has_groups else 1,
        routed_scaling_factor=read_value(values, "routed_scaling_factor", float, 1.0 if is_v2 else None),
        norm_topk_prob=False if is_v2 else read_value(values, "norm_topk_prob", bool),
        scoring_func="softmax" if is_v2 else "sigmoid",
        topk_method=method,
        first_k_dense_replace=read_value(values, "first_k_dense_replace", int, 0 if is_v2 else None, least=0),
        **common,
    )


def _v2_method(values: Mapping[str, Any]) -> Literal["greedy", "group_limited_greedy"]:
    method = read_value(values, "topk_method", str, "greedy")
    if method == "greedy" or method == "group_limited_greedy":
        return method  # type: ignore[return-value]
    raise ConfigError(
        f"config.json: topk_method = '{method}' is not implemented for deepseek_v2; known: greedy, "
        "group_limited_greedy."
    )
