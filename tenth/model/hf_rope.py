"""Rotary embedding in a config.json: base frequency and scaling, in the spellings that are about.

Why: files before transformers 5 have `rope_theta` and `rope_scaling` (its kind under `type` or `rope_type`),
later ones one dictionary `rope_parameters`. We write the earlier spelling, which every reader knows.
In:  the parsed JSON, or a ModelConfig.  Out: a `Rope`, or keys of the JSON.
Not here: what a scaling does (rope.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenth.base.errors import ConfigError
from tenth.model.config import LinearRopeConfig, Llama3RopeConfig, ModelConfig, RopeScaling, YarnConfig
from tenth.model.hf_values import read_value

MOST_POSITIONS = 1 << 22  # the tables grow with the context; the longest published Llama has 4,194,304

# Where we keep YaRN that is not in force: other tools apply what stands under `rope_scaling` in any case.
_DORMANT = "dormant_rope_scaling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """What a config.json says about positions."""

    theta: float
    scaling: RopeScaling | None
    max_position_embeddings: int


def rope_from_hf(values: Mapping[str, Any], *, is_latent: bool) -> Rope:
    """Read either spelling. `is_latent`: MLA, whose YaRN also corrects the softmax scale."""
    key = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = read_value(values, key, dict, {})
    limit = read_value(values, "max_position_embeddings", int, most=MOST_POSITIONS)
    if rope.get("partial_rotary_factor", values.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ConfigError(
            "config.json: partial_rotary_factor other than 1 is not implemented; choose another checkpoint."
        )
    theta = read_value(rope, "rope_theta", float, read_value(values, "rope_theta", float, 10000.0))
    dormant = read_value(values, "tenth", dict, {}).get(_DORMANT)
    if dormant:
        return Rope(theta=theta, scaling=_yarn(dormant, limit, is_latent), max_position_embeddings=limit)
    scaling = _scaling(rope, limit, is_latent)
    if isinstance(scaling, YarnConfig) and limit <= scaling.original_max_position_embeddings:
        # Qwen2.5's model card adds the scaling and leaves the maximum, other tools apply it all the same.
        limit = min(round(scaling.original_max_position_embeddings * scaling.factor), MOST_POSITIONS)
    return Rope(theta=theta, scaling=scaling, max_position_embeddings=limit)


def rope_to_hf(config: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys of config.json, and keys for its `tenth` section."""
    scaling = config.rope_scaling
    described = None if scaling is None else scaling_to_hf(scaling)
    keys: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": described}
    is_dormant = (
        isinstance(scaling, YarnConfig)
        and config.max_position_embeddings <= scaling.original_max_position_embeddings
    )
    return ({**keys, "rope_scaling": None}, {_DORMANT: described}) if is_dormant else (keys, {})


def scaling_to_hf(scaling: RopeScaling) -> dict[str, Any]:
    """The `rope_scaling` of config.json."""
    if isinstance(scaling, LinearRopeConfig):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, Llama3RopeConfig):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    keys: dict[str, Any] = {
        "type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
    }
    if scaling.mscale_all_dim:
        keys |= {"mscale": scaling.mscale, "mscale_all_dim": scaling.mscale_all_dim}
    if scaling.attention_factor is not None:
        keys["attention_factor"] = scaling.attention_factor
    return keys if scaling.truncate else {**keys, "truncate": False}


def _scaling(rope: Mapping[str, Any], limit: int, is_latent: bool) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    # "dynamic" changes nothing up to max_position_embeddings, and no position lies past it here.
    if kind in ("default", "dynamic"):
        return None
    if kind == "linear":
        return LinearRopeConfig(factor=read_value(rope, "factor", float))
    if kind == "llama3":
        return Llama3RopeConfig(
            factor=read_value(rope, "factor", float),
            low_freq_factor=read_value(rope, "low_freq_factor", float),
            high_freq_factor=read_value(rope, "high_freq_factor", float),
            original_max_position_embeddings=read_value(rope, "original_max_position_embeddings", int, limit),
        )
    if kind != "yarn":
        raise ConfigError(
            f"config.json: rope scaling '{kind}' is not implemented; known: yarn, llama3, linear, dynamic, "
            "default."
        )
    return _yarn(rope, limit, is_latent)


def _yarn(rope: Mapping[str, Any], limit: int, is_latent: bool) -> YarnConfig:
    """The size of the rotation is m(mscale) / m(mscale_all_dim) where both are given, else m(1), with
    m(x) = 0.1 x ln(factor) + 1; latent attention also multiplies its scores by m(mscale_all_dim)^2."""
    factor = read_value(rope, "factor", float)
    mscale = read_value(rope, "mscale", float, 0.0)
    all_dim = read_value(rope, "mscale_all_dim", float, 0.0)
    size = read_value(rope, "attention_factor", float) if rope.get("attention_factor") is not None else None
    if size is None and all_dim and not (mscale and is_latent):
        log = 0.1 * math.log(max(factor, 1.0))
        size = (mscale * log + 1) / (all_dim * log + 1) if mscale else log + 1
    has_both = bool(mscale and all_dim and is_latent)
    return YarnConfig(
        factor=factor,
        original_max_position_embeddings=read_value(rope, "original_max_position_embeddings", int, limit),
        beta_fast=read_value(rope, "beta_fast", float, 32.0),
        beta_slow=read_value(rope, "beta_slow", float, 1.0),
        mscale=mscale if has_both else 1.0,
        mscale_all_dim=all_dim if is_latent else 0.0,
        attention_factor=size,
        truncate=read_value(rope, "truncate", bool, True),
    )
