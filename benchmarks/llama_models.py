"""Small networks of every family that a GGUF file can hold, with the same weights on every machine.

Why: llama.cpp is built from source and not there in every test run, so its answers are kept as a file
(llama_golden.py), and the tests make the same networks again.
In:  nothing.  Out: configurations, networks, prompts; documents and a vocabulary trained on them.
Widths are multiples of 32, so that blocks fit, but for one expert width, which shows what happens where they
do not. Not here: llama.cpp.
"""

import dataclasses
import itertools
import zlib
from pathlib import Path

import torch
from torch import Tensor

from tenth.base.config import load_recipe
from tenth.checkpoint.names import to_hf_tensors
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.config import (
    GqaConfig,
    LinearRopeConfig,
    Llama3RopeConfig,
    MlaConfig,
    ModelConfig,
    MoeConfig,
    YarnConfig,
)
from tenth.model.transformer import Transformer
from tenth.pipeline.documents import Solutions
from tenth.pipeline.frozen import recipe_families
from tenth.pipeline.recipe import ZeroRecipe
from tenth.tokenizer.chat import Template
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/checkpoint/golden/llama_cpp.json"
SHOWN_PLACES, SHOWN_LOGITS = (0, 35, 69), 12
TRAINED_ON, COMPARED = 1000, 500  # documents
PROMPT_TOKENS, NEW_TOKENS = 70, 40  # past the original contexts below, and past one cache block
_MOE = MoeConfig(
    n_routed_experts=8,
    n_shared_experts=1,
    num_experts_per_tok=3,
    moe_intermediate_size=48,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
)
_V3 = ModelConfig(
    name="v3",
    vocab_size=96,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    mla=MlaConfig(q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32),
    moe=_MOE,
    num_nextn_predict_layers=1,
    max_position_embeddings=256,
)
_V3_PLAIN_QUERY = dataclasses.replace(_V3.mla, q_lora_rank=None)
_QWEN2 = ModelConfig(
    name="qwen2",
    vocab_size=96,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    max_position_embeddings=256,
    rope_theta=1e6,
    tie_word_embeddings=True,
)
_QWEN3 = dataclasses.replace(
    _QWEN2,
    name="qwen3",
    gqa=GqaConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
    tie_word_embeddings=False,
)
_LLAMA = dataclasses.replace(
    _QWEN2,
    name="llama",
    num_attention_heads=8,
    gqa=GqaConfig(num_key_value_heads=4, head_dim=16),
    rope_theta=5e5,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
_SOFTMAX = dataclasses.replace(
    _MOE,
    n_group=1,
    topk_group=1,
    scoring_func="softmax",
    topk_method="greedy",
    norm_topk_prob=False,
    routed_scaling_factor=1.0,
)
_CONFIGS = {
    "deepseek v3": _V3,
    "deepseek v3, yarn, no query latent": dataclasses.replace(
        _V3,
        mla=_V3_PLAIN_QUERY,
        rope_scaling=YarnConfig(factor=4.0, original_max_position_embeddings=32),
    ),
    "deepseek v3, yarn without mscale": dataclasses.replace(
        _V3,
        rope_scaling=YarnConfig(
            factor=4.0, original_max_position_embeddings=32, mscale_all_dim=0.0, attention_factor=1.0
        ),
    ),
    "deepseek v3, dense": dataclasses.replace(_V3, moe=None, num_nextn_predict_layers=0),
    "deepseek v2": dataclasses.replace(
        _V3,
        mla=_V3_PLAIN_QUERY,
        moe=_SOFTMAX,
        num_nextn_predict_layers=0,
        rope_scaling=YarnConfig(
            factor=4.0, original_max_position_embeddings=32, mscale=0.707, mscale_all_dim=0.707
        ),
    ),
    "qwen2": _QWEN2,
    "qwen2, yarn": dataclasses.replace(
        _QWEN2,
        rope_scaling=YarnConfig(factor=4.0, original_max_position_embeddings=32, mscale_all_dim=0.0),
    ),
    "qwen3": _QWEN3,
    "qwen3, yarn of another size": dataclasses.replace(
        _QWEN3,
        rope_scaling=YarnConfig(
            factor=4.0,
            original_max_position_embeddings=32,
            mscale_all_dim=0.0,
            attention_factor=1.25,
        ),
    ),
    "qwen3 moe": dataclasses.replace(
        _QWEN3,
        moe=dataclasses.replace(_SOFTMAX, n_shared_experts=0, norm_topk_prob=True, first_k_dense_replace=0),
    ),
    "llama": _LLAMA,
    "llama, biases": dataclasses.replace(
        _LLAMA, gqa=dataclasses.replace(_LLAMA.gqa, qkv_bias=True, o_bias=True), tie_word_embeddings=True
    ),
    "llama, linear": dataclasses.replace(_LLAMA, rope_scaling=LinearRopeConfig(factor=2.0)),
    "llama 3": dataclasses.replace(
        _LLAMA,
        rope_scaling=Llama3RopeConfig(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
        ),
    ),
}

CONFIGS = {name: dataclasses.replace(config, name=name) for name, config in _CONFIGS.items()}


@torch.no_grad()
def build_model(config: ModelConfig) -> Transformer:
    """Weights from a hash of their place, uniform, at a scale that lets every part be felt in the logits."""
    model = Transformer(config)
    for name, tensor in model.state_dict().items():
        noise = _noise(tensor.shape, seed=zlib.crc32(f"{config.name} {name}".encode()))
        if "norm" in name:
            tensor.copy_(1 + 0.25 * noise)
        elif name.endswith("router.bias"):
            tensor.copy_(0.25 * noise)
        else:  # uniform in +-1 has a variance of 1/3: outputs of a matrix are as large as its inputs
            tensor.copy_(noise * (3 / tensor.shape[-1]) ** 0.5 if tensor.dim() > 1 else 0.25 * noise)
    return model.eval()


def _noise(shape: torch.Size, *, seed: int) -> Tensor:
    """Uniform in [-1, 1), the same bits everywhere: integers mixed, and one exact division."""
    mixed = torch.arange(shape.numel(), dtype=torch.int64) + (seed << 20)
    for _ in range(3):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return ((mixed >> 8).float() / 2**23 - 1).view(shape)


def prompt_ids(config: ModelConfig) -> list[int]:
    """One prompt for each model."""
    return [(7 * place * place + 3 * place + 1) % config.vocab_size for place in range(PROMPT_TOKENS)]


class MemorySource:
    """A `TensorSource` over tensors that are in memory."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def infos(self) -> dict[str, TensorInfo]:
        """Their types and shapes."""
        return {
            name: TensorInfo(dtype=tensor.dtype, shape=tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """One of them."""
        return self._tensors[name]


def source_of(model: Transformer) -> MemorySource:
    """The model under Hugging Face names, its MTP layers among them."""
    return MemorySource(dict(to_hf_tensors(model.state_dict(), model.config)))


def documents(count: int) -> list[str]:
    """What a base of the tiny recipe reads."""
    recipe = load_recipe(ZeroRecipe, ROOT / "recipes/tiny/zero.toml")
    stream = Solutions(
        recipe.families, recipe_families(recipe), recipe.documents, template=Template.ZERO, seed=1
    )
    return list(itertools.islice(iter(stream), count))


def own_tokenizer() -> Tokenizer:
    """Trained on the first of them."""
    return train_bpe(documents(TRAINED_ON), vocab_size=1024)
