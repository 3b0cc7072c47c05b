"""Named networks: the published ones for counting and loading, small ones of our own for training here.

Why: a recipe says `preset = "tiny-zero"`, `tenth inspect v3-671b` counts the real thing; the numbers live
once.
In:  a name.
Out: a ModelConfig. Torch-free.
Sources: DeepSeek-V3 (arXiv:2412.19437) section 4.2 and the configuration files of deepseek-ai/DeepSeek-V3
`inference/configs`; the `config.json` of Qwen2.5 (base models), Qwen3 and Llama 3. A deliberate departure:
v3-236b and v3-16b have the shapes of DeepSeek-V2 and V2-Lite but V3's routing rule (V2 scored with a
softmax).
"""

import difflib
from collections.abc import Mapping

from tenth.base.errors import ConfigError
from tenth.model.config import GqaConfig, Llama3RopeConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig


def preset(name: str) -> ModelConfig:
    """The preset called `name`; a ConfigError with the nearest name otherwise."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(PRESETS)}."
    raise ConfigError(f"there is no preset '{name}'; {hint}")


def _deepseek_mla(*, q_lora_rank: int | None) -> MlaConfig:
    return MlaConfig(
        q_lora_rank=q_lora_rank, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    )


def _qwen(
    name: str,
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    inter: int,
    vocab: int = 151936,
    head_dim: int = 128,
    context: int = 131072,
    eps: float = 1e-6,
    theta: float = 1e6,
    spread: float = 0.02,
    is_tied: bool = False,
) -> ModelConfig:
    return ModelConfig(
        name=name,
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inter,
        gqa=GqaConfig(num_key_value_heads=kv_heads, head_dim=head_dim, qkv_bias=True),
        max_position_embeddings=context,
        rope_theta=theta,
        rms_norm_eps=eps,
        initializer_range=spread,
        tie_word_embeddings=is_tied,
    )


def _qwen3(
    name: str,
    *,
    hidden: int,
    layers: int,
    heads: int,
    inter: int,
    kv_heads: int = 8,
    moe: MoeConfig | None = None,
    is_tied: bool = False,
) -> ModelConfig:
    return ModelConfig(
        name=name,
        vocab_size=151936,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inter,
        gqa=GqaConfig(num_key_value_heads=kv_heads, head_dim=128, qk_norm=True),
        moe=moe,
        max_position_embeddings=40960,
        rope_theta=1e6,
        initializer_range=0.02,
        tie_word_embeddings=is_tied,
    )


def _llama(
    name: str,
    *,
    hidden: int,
    layers: int,
    heads: int,
    inter: int,
    head_dim: int = 128,
    stretch: float = 8.0,
    is_tied: bool = False,
) -> ModelConfig:
    return ModelConfig(
        name=name,
        vocab_size=128256,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inter,
        gqa=GqaConfig(num_key_value_heads=8, head_dim=head_dim),
        max_position_embeddings=131072,
        rope_theta=500000.0,
        rope_scaling=Llama3RopeConfig(
            factor=stretch,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
        rms_norm_eps=1e-5,
        initializer_range=0.02,
        tie_word_embeddings=is_tied,
    )


_V3_671B = ModelConfig(
    name="v3-671b",
    vocab_size=129280,
    hidden_size=7168,
    num_hidden_layers=61,
    num_attention_heads=128,
    intermediate_size=18432,
    mla=_deepseek_mla(q_lora_rank=1536),
    moe=MoeConfig(
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        moe_intermediate_size=2048,
        n_group=8,
        topk_group=4,
        routed_scaling_factor=2.5,
        first_k_dense_replace=3,
    ),
    num_nextn_predict_layers=1,
    max_position_embeddings=163840,
    rope_scaling=YarnConfig(factor=40.0, original_max_position_embeddings=4096),
)

_V2_YARN = YarnConfig(factor=40.0, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707)

_V3_236B = ModelConfig(
    name="v3-236b",
    vocab_size=102400,
    hidden_size=5120,
    num_hidden_layers=60,
    num_attention_heads=128,
    intermediate_size=12288,
    mla=_deepseek_mla(q_lora_rank=1536),
    moe=MoeConfig(
        n_routed_experts=160,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1536,
        n_group=8,
        topk_group=3,
        routed_scaling_factor=2.5,
    ),
    max_position_embeddings=163840,
    rope_scaling=_V2_YARN,
)

_V3_16B = ModelConfig(
    name="v3-16b",
    vocab_size=102400,
    hidden_size=2048,
    num_hidden_layers=27,
    num_attention_heads=16,
    intermediate_size=10944,
    mla=_deepseek_mla(q_lora_rank=None),
    moe=MoeConfig(
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1408,
        routed_scaling_factor=2.5,
    ),
    max_position_embeddings=163840,
    rope_scaling=_V2_YARN,
)

# 63.4 M parameters, 26.2 M of them multiplied per token: the shape of the training benchmark. Dimensions
# are ours.
_DSV3_MINI = ModelConfig(
    name="dsv3-mini",
    vocab_size=8192,
    hidden_size=512,
    num_hidden_layers=8,
    num_attention_heads=8,
    intermediate_size=1536,
    mla=MlaConfig(q_lora_rank=192, kv_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64),
    moe=MoeConfig(
        n_routed_experts=16,
        n_shared_experts=1,
        num_experts_per_tok=4,
        moe_intermediate_size=256,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
    ),
    initializer_range=0.02,
)

# The paper's 0.006 belongs to a width of 7168; at a width of 128 the first signals would drown.
_TINY_ZERO = ModelConfig(
    name="tiny-zero",
    vocab_size=512,
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=384,
    mla=MlaConfig(q_lora_rank=64, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=32),
    moe=MoeConfig(n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=96),
    num_nextn_predict_layers=1,
    max_position_embeddings=1024,
    initializer_range=0.02,
)

# Every part of tiny-zero at the smallest width that the kernels take: a whole run in seconds, for tests.
_NANO_ZERO = ModelConfig(
    name="nano-zero",
    vocab_size=320,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    mla=MlaConfig(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16),
    moe=MoeConfig(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=32),
    num_nextn_predict_layers=1,
    max_position_embeddings=512,
    initializer_range=0.05,
)

# Dense students in the Qwen2 shape (R1 section 4). Each has less than half of what its teacher of the same
# size activates per token, with the embedding table and without; the context is the teacher's.
_TINY_STUDENT = _qwen(
    "tiny-student",
    hidden=96,
    layers=4,
    heads=3,
    kv_heads=1,
    inter=176,
    vocab=512,
    head_dim=32,
    context=1024,
    theta=1e4,
    is_tied=True,
)
_NANO_STUDENT = _qwen(
    "nano-student",
    hidden=32,
    layers=1,
    heads=2,
    kv_heads=1,
    inter=32,
    vocab=320,
    head_dim=16,
    context=512,
    theta=1e4,
    spread=0.05,
    is_tied=True,
)

_ALL = (
    _V3_671B,
    _V3_236B,
    _V3_16B,
    _qwen(
        "qwen2.5-0.5b",
        hidden=896,
        layers=24,
        heads=14,
        kv_heads=2,
        inter=4864,
        head_dim=64,
        context=32768,
        is_tied=True,
    ),
    _qwen("qwen2.5-1.5b", hidden=1536, layers=28, heads=12, kv_heads=2, inter=8960, is_tied=True),
    _qwen("qwen2.5-7b", hidden=3584, layers=28, heads=28, kv_heads=4, inter=18944, vocab=152064),
    _qwen("qwen2.5-14b", hidden=5120, layers=48, heads=40, kv_heads=8, inter=13824, vocab=152064, eps=1e-5),
    _qwen("qwen2.5-32b", hidden=5120, layers=64, heads=40, kv_heads=8, inter=27648, vocab=152064, eps=1e-5),
    _qwen3("qwen3-0.6b", hidden=1024, layers=28, heads=16, inter=3072, is_tied=True),
    _qwen3("qwen3-8b", hidden=4096, layers=36, heads=32, inter=12288),
    _qwen3(
        "qwen3-30b-a3b",
        hidden=2048,
        layers=48,
        heads=32,
        inter=6144,
        kv_heads=4,
        moe=MoeConfig(
            n_routed_experts=128,
            n_shared_experts=0,
            num_experts_per_tok=8,
            moe_intermediate_size=768,
            scoring_func="softmax",
            topk_method="greedy",
            first_k_dense_replace=0,
        ),
    ),
    _llama(
        "llama-3.2-1b",
        hidden=2048,
        layers=16,
        heads=32,
        inter=8192,
        head_dim=64,
        stretch=32.0,
        is_tied=True,
    ),
    _llama("llama-3.1-8b", hidden=4096, layers=32, heads=32, inter=14336),
    _llama("llama-3.3-70b", hidden=8192, layers=80, heads=64, inter=28672),
    _DSV3_MINI,
    # 4.86 M and 49.5 M in the Qwen2 shape: the other two of the training benchmark. Dimensions are ours.
    _qwen(
        "dense-5m",
        hidden=256,
        layers=6,
        heads=4,
        kv_heads=2,
        inter=768,
        vocab=512,
        head_dim=64,
        context=4096,
        is_tied=True,
    ),
    _qwen(
        "dense-50m",
        hidden=640,
        layers=10,
        heads=10,
        kv_heads=2,
        inter=1792,
        vocab=8192,
        head_dim=64,
        context=4096,
        is_tied=True,
    ),
    _TINY_ZERO,
    _NANO_ZERO,
    _TINY_STUDENT,
    _NANO_STUDENT,
)

PRESETS: Mapping[str, ModelConfig] = {config.name: config for config in _ALL}
