"""Parameters, cache bytes, FLOPs and weight memory of a ModelConfig, from arithmetic alone.

Why: `tenth inspect`, the preflight check and the utilisation figures need these numbers before any tensor
exists; a count that is derived layer by layer also shows where the parameters sit. Torch-free.
In:  a ModelConfig.
Out: a frozen `Counts`, and `Flops` at a context length.
Conventions: the router's selection bias counts as parameters where it takes part (checkpoints store it).
"Total" is the main model, without the MTP layers; "activated" is what one token touches, shared experts and
whole embedding table included.
Not here: activations, optimizer states, seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tenth.model.config import ModelConfig

# Nominal bytes per weight; the scales of fp8, int8 and int4 (0.02 % to 6 % more) are left out.
BYTES_PER_WEIGHT: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a network weighs. See the module's conventions."""

    total_parameters: int  # main model, without MTP
    mtp_parameters: int  # of all MTP layers, embedding and head shared with the main model
    mtp_stored_parameters: int  # the same with the copies of embedding and head that DeepSeek's files hold
    activated_parameters: int  # per token, main model, embedding table and head included
    activated_without_embedding: int  # the matrices that a token is multiplied with
    attention_parameters_per_layer: int  # projections and latent norms
    mtp_layer_parameters: int  # of one MTP layer, 0 where there is none
    kv_elements_per_token: int  # all main layers

    @property
    def stored_parameters(self) -> int:
        """What DeepSeek's checkpoint files hold: the main model and the MTP layers with their copies."""
        return self.total_parameters + self.mtp_stored_parameters

    def kv_bytes_per_token(self, *, bytes_per_element: int = 2) -> int:
        """Cache bytes that one token adds, bf16 unless told otherwise."""
        return self.kv_elements_per_token * bytes_per_element

    def weight_bytes(self, precision: str) -> int:
        """Memory of the main model's weights at a precision of `BYTES_PER_WEIGHT`."""
        return round(self.total_parameters * BYTES_PER_WEIGHT[precision])


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Floating-point operations per token, a multiply-add counted as two."""

    forward: float  # main model
    training: float  # forward and backward, MTP layers included
    adapting: float  # the same beside frozen weights, for adapters: themselves, rather thin, not counted


def count(config: ModelConfig) -> Counts:
    """Every parameter count of `config`."""
    layers = range(config.num_hidden_layers)
    embedding = config.vocab_size * config.hidden_size
    head = 0 if config.tie_word_embeddings else embedding
    ends = embedding + head + config.hidden_size  # with the final norm
    activated = ends + sum(_layer(config, layer_id, is_whole=False) for layer_id in layers)
    mtp_layer = _mtp_layer(config, is_whole=True) if config.num_nextn_predict_layers else 0
    return Counts(
        total_parameters=ends + sum(_layer(config, layer_id, is_whole=True) for layer_id in layers),
        mtp_parameters=config.num_nextn_predict_layers * mtp_layer,
        mtp_stored_parameters=config.num_nextn_predict_layers * (mtp_layer + embedding + head),
        activated_parameters=activated,
        # A tied table is the head as well, so it is multiplied with; an untied one is only looked up.
        activated_without_embedding=activated - (0 if config.tie_word_embeddings else embedding),
        attention_parameters_per_layer=_attention(config),
        mtp_layer_parameters=mtp_layer,
        kv_elements_per_token=config.num_hidden_layers * _kv_elements_per_layer(config),
    )


def flops_per_token(config: ModelConfig, *, context_tokens: int) -> Flops:
    """Mean over the tokens of one causal sequence of `context_tokens`.

    Two per activated parameter (the looked-up embedding table costs nothing), and per layer and attended
    token two per entry of a key head (the score) and of a value head (the sum); a token attends to (context
    + 1) / 2 tokens on average. Backward is twice forward, so training is three times forward, the MTP
    layers and their pass through the head included; a matrix that does not learn is passed back through once
    and not twice. Attention is counted in MLA's expanded form, the form that trains.
    """
    attention = _attention_flops_per_layer(config, attended_tokens=(context_tokens + 1) / 2)
    matrices = 2 * count(config).activated_without_embedding
    forward = matrices + config.num_hidden_layers * attention
    head = config.vocab_size * config.hidden_size
    mtp = config.num_nextn_predict_layers * (2 * (_mtp_layer(config, is_whole=False) + head) + attention)
    return Flops(forward=forward, training=3 * (forward + mtp), adapting=3 * forward - matrices)


def _layer(config: ModelConfig, layer_id: int, *, is_whole: bool) -> int:
    """One block; `is_whole` False counts only the experts that a token visits."""
    return _attention(config) + _feed_forward(config, layer_id, is_whole=is_whole) + 2 * config.hidden_size


def _attention(config: ModelConfig) -> int:
    hidden, heads = config.hidden_size, config.num_attention_heads
    if config.gqa:
        q_rows = heads * config.gqa.head_dim
        kv_rows = 2 * config.gqa.num_key_value_heads * config.gqa.head_dim
        biases = config.gqa.qkv_bias * (q_rows + kv_rows) + config.gqa.o_bias * hidden
        norms = config.gqa.qk_norm * 2 * config.gqa.head_dim
        return (2 * q_rows + kv_rows) * hidden + biases + norms
    mla = config.mla
    assert mla is not None
    q_rows = heads * mla.qk_head_dim
    query = q_rows * hidden
    if mla.q_lora_rank is not None:
        query = mla.q_lora_rank * (hidden + 1 + q_rows)  # down, norm, up
    latent = (mla.kv_lora_rank + mla.qk_rope_head_dim) * hidden + mla.kv_lora_rank  # down and norm
    expand = heads * (mla.qk_nope_head_dim + mla.v_head_dim) * mla.kv_lora_rank
    return query + latent + expand + heads * mla.v_head_dim * hidden


def _feed_forward(config: ModelConfig, layer_id: int, *, is_whole: bool) -> int:
    if not config.is_moe_layer(layer_id):
        return 3 * config.hidden_size * config.intermediate_size
    moe = config.moe
    assert moe is not None
    experts = (moe.n_routed_experts if is_whole else moe.num_experts_per_tok) + moe.n_shared_experts
    has_bias = moe.topk_method == "noaux_tc"
    router = moe.n_routed_experts * (config.hidden_size + has_bias)
    return experts * 3 * config.hidden_size * moe.moe_intermediate_size + router


def _mtp_layer(config: ModelConfig, *, is_whole: bool) -> int:
    """Two norms, the 2d -> d projection, a block like the last, a norm before the head (section 2.2)."""
    hidden = config.hidden_size
    block = _layer(config, config.num_hidden_layers, is_whole=is_whole)
    return 2 * hidden + 2 * hidden * hidden + block + hidden


def _kv_elements_per_layer(config: ModelConfig) -> int:
    if config.mla:
        return config.mla.kv_lora_rank + config.mla.qk_rope_head_dim
    assert config.gqa is not None
    return 2 * config.gqa.num_key_value_heads * config.gqa.head_dim


def _attention_flops_per_layer(config: ModelConfig, *, attended_tokens: float) -> float:
    if config.mla:
        entries = config.mla.qk_head_dim + config.mla.v_head_dim
    else:
        assert config.gqa is not None
        entries = 2 * config.gqa.head_dim
    return 2 * attended_tokens * config.num_attention_heads * entries
