"""Rotary scaling as llama.cpp has it: keys of a GGUF file, and a tensor of divisors; and back.

Why: llama.cpp sizes YaRN's rotation by rules of its own, so what we mean has to be said in its terms.
In:  a ModelConfig, or the keys of a file.  Out: keys, divisors; the `rope_scaling` of a config.json.
What a file cannot say is refused: llama.cpp's ramp is 32 to 1 turns, and it divides frequencies as Llama 3
does for llama files only. The divisors do not tell the four numbers that they came from, so those are kept
beside them under a key of our own.
Not here: all other keys (gguf_config.py).
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.gguf_keys import Keys, Value
from tenth.checkpoint.gguf_names import architecture_of
from tenth.model.config import LinearRopeConfig, Llama3RopeConfig, ModelConfig, YarnConfig
from tenth.model.hf_rope import scaling_to_hf
from tenth.model.rope import active_scaling, mscale, rope_frequencies, rotation_size

ROPE_DIVISORS = "rope_freqs.weight"
_OWN_ROPE = "tenth.rope_scaling"
_RAMP = (32.0, 1.0)
# Llama 3.1, 3.2 and 3.3 differ in the factor alone: what to try where a file holds the divisors only.
_LLAMA3_KNOWN = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_divisors(config: ModelConfig) -> Tensor | None:
    """What each pair's frequency is divided by, (D/2,) float32; None where no file needs it."""
    if not isinstance(config.rope_scaling, Llama3RopeConfig):
        return None
    plain, scaled = (
        rope_frequencies(config.rope_dim, theta=config.rope_theta, scaling=scaling)
        for scaling in (None, config.rope_scaling)
    )
    return plain / scaled


def own_rope_keys(config: ModelConfig) -> dict[str, Value]:
    """What the divisors were made from."""
    if not isinstance(config.rope_scaling, Llama3RopeConfig):
        return {}
    return {_OWN_ROPE: json.dumps(scaling_to_hf(config.rope_scaling))}


def rope_keys(config: ModelConfig) -> dict[str, Value]:
    """The keys that llama.cpp reads, without the architecture's name in front."""
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


def _yarn_keys(config: ModelConfig, yarn: YarnConfig) -> dict[str, Value]:
    """llama.cpp makes cosine and sine 0.1 ln(factor) + 1 times larger, or, told DeepSeek's `log_mul`, leaves
    them and scales the scores; `attn_factor` multiplies what it makes."""
    if (yarn.beta_fast, yarn.beta_slow) != _RAMP or not yarn.truncate:
        raise ConfigError(
            f"model '{config.name}': YaRN's ramp is beta_fast = {yarn.beta_fast:g}, beta_slow = "
            f"{yarn.beta_slow:g}, truncate = {yarn.truncate}, but llama.cpp reads none of these from a file "
            "and uses 32, 1 and True; no GGUF file of this model would compute what it computes."
        )
    keys: dict[str, Value] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": yarn.factor,
        "rope.scaling.original_context_length": yarn.original_max_position_embeddings,
    }
    size, made = rotation_size(yarn), mscale(yarn.factor, 1.0)
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


def rope_values(read: Keys, keys: Mapping[str, Any], divisors: Tensor | None) -> dict[str, Any] | None:
    """The `rope_scaling` of a config.json; None where positions count as they are."""
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
    size = round(read.number("rope.scaling.attn_factor", 1.0) * mscale(factor, 1.0), 6)
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


def _llama3_values(read: Keys, keys: Mapping[str, Any], divisors: Tensor) -> dict[str, Any]:
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
            return scaling_to_hf(scaling)
    except (TypeError, ValueError, KeyError, ArithmeticError, RecursionError):
        pass  # the sentence below says all that a user can use
    raise CheckpointError(
        f"its {ROPE_DIVISORS} follows no frequency rescaling of a published Llama 3; convert the original."
    )
