"""Counts against hand arithmetic, published totals, and the network itself."""

import dataclasses
import subprocess
import sys

import pytest

from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.counts import count, flops_per_token
from tenth.model.presets import preset


def test_mla_of_v3_has_187_1_million_parameters_per_layer():
    # q: 1536*7168 + 1536 + 24576*1536; kv: 576*7168 + 512 + 32768*512; o: 7168*16384
    expected = 11_010_048 + 1_536 + 37_748_736 + 4_128_768 + 512 + 16_777_216 + 117_440_512
    assert expected == 187_107_328
    assert count(preset("v3-671b")).attention_parameters_per_layer == expected


def test_v3_has_671_03_billion_parameters():
    # 61 * (187,107,328 attention + 2*7168 norms)                       =  11,414,421,504
    # 3 * 3*7168*18432 dense feed-forwards                              =   1,189,085,184
    # 58 * (257 * 3*7168*2048 experts + 256*7168 router + 256 biases)   = 656,569,547,264
    # 2 * 129280*7168 embedding and head + 7168 final norm              =   1,853,365,248
    assert count(preset("v3-671b")).total_parameters == 671_026_419_200


def test_v3_as_stored_with_its_mtp_layer_has_684_49_billion():
    # 3*7168 norms + 2*7168*7168 projection + attention and norms 187,121,664 + experts 11,320,164,608
    counts = count(preset("v3-671b"))
    assert counts.mtp_layer_parameters == counts.mtp_parameters == 11_610_068_224
    assert counts.mtp_stored_parameters == 11_610_068_224 + 1_853_358_080
    assert counts.stored_parameters == 684_489_845_504


def test_a_token_of_v3_touches_37_55_billion_and_36_6_without_the_table():
    # 61 * 187,121,664 + 1,189,085,184 + 58 * (9 * 44,040,192 + 1,835,264) + 1,853,365,248
    counts = count(preset("v3-671b"))
    assert counts.activated_parameters == 37_552_297_472
    assert counts.activated_without_embedding == 37_552_297_472 - 926_679_040


def test_a_token_of_v3_adds_70272_bytes_of_bf16_cache():
    assert count(preset("v3-671b")).kv_bytes_per_token() == 576 * 61 * 2 == 70_272


@pytest.mark.parametrize(
    ("name", "total"),
    [("qwen2.5-0.5b", 494_032_768), ("llama-3.1-8b", 8_030_261_248)],
)
def test_dense_totals_equal_the_published_parameter_counts(name, total):
    counts = count(preset(name))
    assert counts.total_parameters == total
    assert counts.activated_parameters == total


def test_qwen_0_5b_by_hand():
    # q 896*896+896, k and v 128*896+128 each, o 896*896; feed-forward 3*896*4864; norms 2*896
    layer = 802_816 + 896 + 2 * (114_688 + 128) + 802_816 + 13_074_432 + 1_792
    assert count(preset("qwen2.5-0.5b")).total_parameters == 24 * layer + 151_936 * 896 + 896


def test_a_tied_table_is_multiplied_with_and_an_untied_one_only_looked_up():
    tied, untied = count(preset("qwen2.5-0.5b")), count(preset("qwen2.5-7b"))
    assert tied.activated_without_embedding == tied.activated_parameters
    assert untied.activated_parameters - untied.activated_without_embedding == 152_064 * 3584


def test_grouped_query_cache_holds_a_key_and_a_value_per_kv_head():
    # Llama-3.1-8B: 2 * 8 heads * 128 * 32 layers * 2 bytes = 128 KiB; Qwen2.5-0.5B: 2 * 2 * 64 * 24 * 2
    assert count(preset("llama-3.1-8b")).kv_bytes_per_token() == 131_072
    assert count(preset("qwen2.5-0.5b")).kv_bytes_per_token() == 12_288


def test_weight_memory_follows_the_precision():
    counts = count(preset("v3-671b"))
    total = counts.total_parameters
    assert [counts.weight_bytes(p) for p in ("fp32", "bf16", "fp8", "int8", "int4")] == [
        4 * total,
        2 * total,
        total,
        total,
        total // 2,
    ]


def test_flops_of_a_small_dense_network_by_hand():
    config = ModelConfig(
        name="x",
        vocab_size=10,
        hidden_size=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=2),
    )
    # layer: q 16, kv 2*8, o 16, feed-forward 96, norms 8 = 152; head 40, last norm 4: 348 multiplied per
    # token. context 7: 4 attended on average, 2 heads, 2 + 2 entries, 2 FLOPs each, 2 layers = 128
    flops = flops_per_token(config, context_tokens=7)
    assert flops.forward == 2 * 348 + 128
    assert flops.training == 3 * flops.forward
    assert flops.adapting == 2 * (2 * 348) + 3 * 128  # gradients of frozen matrices are not computed


def test_the_mtp_layer_is_trained_but_takes_no_part_in_the_forward_count():
    with_mtp = preset("v3-671b")
    flops = flops_per_token(with_mtp, context_tokens=1)
    attention = 2 * 128 * (192 + 128)
    # one MoE block as activated, 3 norms, the 2d -> d projection, the shared head
    mtp = 187_121_664 + 9 * 44_040_192 + 1_835_264 + 21_504 + 102_760_448 + 926_679_040
    assert flops.training == 3 * (flops.forward + 2 * mtp + attention)


def test_counting_does_not_import_torch():
    rooms = "tenth.model.counts, tenth.model.presets, tenth.model.hf_config"
    code = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


_MLA = MlaConfig(q_lora_rank=6, kv_lora_rank=5, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=3)
_MLA_PLAIN_Q = dataclasses.replace(_MLA, q_lora_rank=None)
_MOE = MoeConfig(n_routed_experts=4, n_shared_experts=2, num_experts_per_tok=2, moe_intermediate_size=7)
_GQA = GqaConfig(num_key_value_heads=2, head_dim=4)


@pytest.mark.parametrize(
    "choices",
    [
        {"mla": _MLA, "moe": _MOE, "num_nextn_predict_layers": 2},
        {"mla": _MLA_PLAIN_Q, "moe": _MOE},
        {"mla": _MLA, "num_nextn_predict_layers": 1},
        {"gqa": _GQA, "tie_word_embeddings": True},
        {"gqa": GqaConfig(num_key_value_heads=1, head_dim=4, qkv_bias=True), "tie_word_embeddings": True},
        {"gqa": _GQA, "moe": _MOE},
        {"gqa": dataclasses.replace(_GQA, qkv_bias=True, o_bias=True, qk_norm=True)},
    ],
    ids=["mla-moe-mtp", "mla-plain-query", "mla-dense-mtp", "gqa-tied", "gqa-bias", "gqa-moe", "gqa-norms"],
)
def test_counts_equal_the_network_built_without_storage(choices):
    import torch

    from tenth.model.transformer import Transformer

    config = ModelConfig(
        name="x",
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=10,
        **choices,
    )
    with torch.device("meta"):
        network = Transformer(config)
    tensors = {id(t): t.numel() for t in network.parameters()}
    tensors |= {id(t): t.numel() for name, t in network.named_buffers() if name.endswith("bias")}
    counts = count(config)
    assert sum(tensors.values()) == counts.total_parameters + counts.mtp_parameters
