"""What a network looks like, as frozen numbers: MLA or grouped-query attention, dense or expert layers, MTP.

Why: one description serves training, sampling, counting (counts.py) and reading other people's checkpoints
(hf_config.py). Torch-free, so that `tenth inspect` and the planner start in a blink.
Sources: DeepSeek-V3 (arXiv:2412.19437) sections 2.1-2.2 and 4.2; names follow the configuration keys of the
Hugging Face families where they have one.
"""

from dataclasses import dataclass
from typing import Literal

from tenth.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class YarnConfig:
    """YaRN context extension (arXiv:2309.00071; DeepSeek-V3 section 4.3)."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0
    attention_factor: float | None = None  # size of cosine and sine; None: from the two mscales
    truncate: bool = True  # whether the ramp's ends are whole pairs

    def __post_init__(self) -> None:
        _require_factor(self.factor)
        if not 0 < self.beta_slow < self.beta_fast:
            raise ConfigError(
                f"beta_slow = {self.beta_slow} and beta_fast = {self.beta_fast} count turns; set beta_slow "
                "above 0 and beta_fast above beta_slow."
            )
        if self.mscale <= 0 or (self.mscale != 1.0 and not self.mscale_all_dim):
            raise ConfigError(
                f"mscale = {self.mscale} counts only above 0 and beside an mscale_all_dim; set "
                "attention_factor to size the rotation by itself."
            )


@dataclass(frozen=True, kw_only=True)
class LinearRopeConfig:
    """Position interpolation (arXiv:2306.15595): positions divided by `factor`."""

    factor: float

    def __post_init__(self) -> None:
        _require_factor(self.factor)


@dataclass(frozen=True, kw_only=True)
class Llama3RopeConfig:
    """The frequency rescaling of Llama 3.1 (Meta's release; arXiv:2407.21783 names only the base)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        _require_factor(self.factor)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                f"high_freq_factor = {self.high_freq_factor} must be above low_freq_factor = "
                f"{self.low_freq_factor}; Llama 3 has 4 and 1."
            )


RopeScaling = YarnConfig | LinearRopeConfig | Llama3RopeConfig


def _require_factor(factor: float) -> None:
    if factor <= 0:
        raise ConfigError(f"the factor of a rope scaling is {factor}; set it above 0, usually above 1.")


@dataclass(frozen=True, kw_only=True)
class MlaConfig:
    """Multi-head latent attention (DeepSeek-V2 section 2.1; DeepSeek-V3 section 2.1.1)."""

    q_lora_rank: int | None  # None: queries straight from the hidden state (DeepSeek-V2-Lite)
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, kw_only=True)
class GqaConfig:
    """Grouped-query attention as Qwen and Llama have it."""

    num_key_value_heads: int
    head_dim: int
    qkv_bias: bool = False  # Qwen2: True
    o_bias: bool = False  # Llama with attention_bias
    qk_norm: bool = False  # RMSNorm of every query and key head before its rotation: Qwen3


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """DeepSeekMoE (DeepSeek-V3 section 2.1.2) and its softmax relatives (DeepSeek-V2, Qwen3).

    topk_method, in the words of DeepSeek's config.json: "noaux_tc" chooses by biased scores and scores a
    group by its best two; "group_limited_greedy" chooses by the scores and scores a group by its best one;
    "greedy" knows no groups. The bias exists in all three and takes part only in the first.
    """

    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    n_group: int = 1
    topk_group: int = 1
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = True
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    topk_method: Literal["noaux_tc", "greedy", "group_limited_greedy"] = "noaux_tc"
    first_k_dense_replace: int = 1  # leading layers with a dense feed-forward
    bias_update_speed: float = 0.001  # gamma, section 4.2
    sequence_balance_weight: float = 1e-4  # alpha, section 4.2

    def __post_init__(self) -> None:
        if self.topk_method == "greedy" and self.n_group > 1:
            raise ConfigError(
                f"topk_method = 'greedy' knows no groups, but n_group = {self.n_group}; set n_group = 1, or "
                "topk_method = 'group_limited_greedy'."
            )
        if self.n_routed_experts % self.n_group:
            raise ConfigError(
                f"n_routed_experts = {self.n_routed_experts} must be a multiple of n_group = {self.n_group}."
            )
        per_group = self.n_routed_experts // self.n_group
        if self.num_experts_per_tok > self.topk_group * per_group:
            raise ConfigError(
                f"num_experts_per_tok = {self.num_experts_per_tok}, but {self.topk_group} kept groups hold "
                f"only {self.topk_group * per_group} experts; keep more groups or choose fewer experts."
            )
        if self.n_group > 1 and per_group < 2 and self.topk_method == "noaux_tc":
            raise ConfigError(
                f"n_group = {self.n_group} leaves {per_group} expert per group, but a group is scored by its "
                "best two; use fewer groups."
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The whole network. Exactly one of `mla` and `gqa` is set; `moe` None means every layer is dense."""

    name: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int  # of the dense feed-forward layers
    mla: MlaConfig | None = None
    gqa: GqaConfig | None = None
    moe: MoeConfig | None = None
    num_nextn_predict_layers: int = 0  # MTP depth
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.006  # DeepSeek-V3 section 4.2
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        if (self.mla is None) == (self.gqa is None):
            raise ConfigError(f"model '{self.name}': set exactly one of mla and gqa.")
        if self.gqa and self.num_attention_heads % self.gqa.num_key_value_heads:
            raise ConfigError(
                f"model '{self.name}': num_attention_heads = {self.num_attention_heads} must be a multiple "
                f"of num_key_value_heads = {self.gqa.num_key_value_heads}."
            )
        if self.rope_dim % 2 or self.rope_theta <= 1:
            raise ConfigError(
                f"model '{self.name}': rotation takes pairs and a base above 1, not a width of "
                f"{self.rope_dim} and rope_theta = {self.rope_theta}."
            )
        if self.gqa and isinstance(self.rope_scaling, YarnConfig) and self.rope_scaling.mscale_all_dim:
            raise ConfigError(
                f"model '{self.name}': mscale_all_dim = {self.rope_scaling.mscale_all_dim} corrects the "
                "softmax of latent attention; set it to 0 for grouped queries."
            )

    @property
    def rope_dim(self) -> int:
        """Width of the rotated part of a head."""
        if self.mla:
            return self.mla.qk_rope_head_dim
        assert self.gqa is not None
        return self.gqa.head_dim

    def is_moe_layer(self, layer_id: int) -> bool:
        """Whether layer `layer_id` (counted from 0; the MTP layers follow the main ones) has experts."""
        return self.moe is not None and layer_id >= self.moe.first_k_dense_replace
