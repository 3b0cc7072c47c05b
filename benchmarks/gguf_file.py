"""llama.cpp's file of one of our models: its tensor names, layouts and metadata, for qwen2 and deepseek2.

Why: the peer must run the same weights, in the form its own converter would have written them.
In:  a model.  Out: a GGUF file in float32 or bf16, which llama.cpp's own quantiser reads.
Names and keys follow llama.cpp's loaders of the two architectures. What they ask for: latent attention with
`kv_b` split per head into a transposed key half and a value half, and described as one key head of
kv_lora_rank + rope; rotary rows interleaved for deepseek2 and half-split for qwen2, which is how transformers
has them too; expert stacks apart for gate, up and down.
Not here: the tokenizer. The file names none, only the vocabulary's size: ids go in and come out.
"""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

from benchmarks.engine_weights import transformers_state
from tenth.base.errors import ConfigError
from tenth.model.config import ModelConfig
from tenth.model.transformer import Transformer

# transformers' name within a layer -> llama.cpp's
_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.shared_experts.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_experts.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_experts.down_proj.weight": "ffn_down_shexp.weight",
}
_ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_WIDE = ("norm.weight", "ffn_gate_inp.weight", ".bias")  # float32 in every file, as the peer's converter does


def write_gguf(path: Path, model: Transformer, *, dtype: torch.dtype) -> None:
    """Write the main model; `dtype` (float32 or bfloat16) is the matrices'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, _architecture(model.config))
    _write_metadata(writer, model.config, dtype=dtype)
    for name, tensor in named_tensors(model):
        _add(writer, name, tensor, dtype=torch.float32 if name.endswith(_WIDE) else dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def named_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """llama.cpp's names and layouts."""
    for name, tensor in transformers_state(model).items():
        if name in _ENDS:
            yield _ENDS[name], tensor
            continue
        layer_id, _, local = name.removeprefix("model.layers.").partition(".")
        there = f"blk.{layer_id}."
        if local == "self_attn.kv_b_proj.weight":
            yield from _split_kv_b(there, tensor, model.config)
        elif local == "mlp.experts.gate_up_proj":
            gate, up = tensor.chunk(2, dim=1)
            yield f"{there}ffn_gate_exps.weight", gate
            yield f"{there}ffn_up_exps.weight", up
        else:
            yield there + _LAYER[local], tensor


def _split_kv_b(prefix: str, weight: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    mla = config.mla
    assert mla is not None
    heads = weight.view(config.num_attention_heads, -1, mla.kv_lora_rank)  # (H, nope + value, kv)
    key, value = heads.split((mla.qk_nope_head_dim, mla.v_head_dim), dim=1)
    yield f"{prefix}attn_k_b.weight", key.transpose(1, 2)
    yield f"{prefix}attn_v_b.weight", value


def _add(writer: gguf.GGUFWriter, name: str, tensor: Tensor, *, dtype: torch.dtype) -> None:
    values = tensor.to(dtype).contiguous()
    if dtype == torch.bfloat16:
        raw = values.view(torch.uint8).numpy()
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, values.numpy().astype(np.float32, copy=False))


def _architecture(config: ModelConfig) -> str:
    if config.rope_scaling is not None or (config.mla is None and not (config.gqa and config.gqa.qkv_bias)):
        raise ConfigError(
            f"model '{config.name}': only plain qwen2 and deepseek2 shapes are written for the peer; use one."
        )
    return "deepseek2" if config.mla else "qwen2"


def _write_metadata(writer: gguf.GGUFWriter, config: ModelConfig, *, dtype: torch.dtype) -> None:
    is_wide = dtype == torch.float32
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if is_wide else gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.rope_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    if config.gqa:
        writer.add_head_count_kv(config.gqa.num_key_value_heads)
        writer.add_key_length(config.gqa.head_dim)
        writer.add_value_length(config.gqa.head_dim)
    if config.mla:
        _write_latent_metadata(writer, config)
    if config.moe:
        _write_expert_metadata(writer, config)


def _write_latent_metadata(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    mla = config.mla
    assert mla is not None
    writer.add_head_count_kv(1)  # absorbed: every query head attends to one latent
    if mla.q_lora_rank is not None:
        writer.add_q_lora_rank(mla.q_lora_rank)
    writer.add_kv_lora_rank(mla.kv_lora_rank)
    writer.add_key_length(mla.kv_lora_rank + mla.qk_rope_head_dim)
    writer.add_value_length(mla.kv_lora_rank)
    writer.add_key_length_mla(mla.qk_head_dim)
    writer.add_value_length_mla(mla.v_head_dim)


def _write_expert_metadata(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    moe = config.moe
    assert moe is not None
    writer.add_leading_dense_block_count(moe.first_k_dense_replace)
    writer.add_expert_count(moe.n_routed_experts)
    writer.add_expert_used_count(moe.num_experts_per_tok)
    writer.add_expert_shared_count(moe.n_shared_experts)
    writer.add_expert_feed_forward_length(moe.moe_intermediate_size)
    writer.add_expert_weights_scale(moe.routed_scaling_factor)
    writer.add_expert_weights_norm(moe.norm_topk_prob)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_group_count(moe.n_group)
    writer.add_expert_group_used_count(moe.topk_group)
