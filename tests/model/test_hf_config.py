"""config.json: DeepSeek-R1's own keys and values, round trips, and what is refused."""

import pytest

from tenth.base.errors import ConfigError
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.hf_config import from_hf, to_hf
from tenth.model.presets import PRESETS, preset

# The values of the config.json beside DeepSeek-R1's published weights.
R1 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_the_v3_preset_writes_every_key_of_r1_with_its_value():
    written = to_hf(preset("v3-671b"), is_fp8=True)
    # 0.02 stands in the published file, 0.006 is what was trained (DeepSeek-V3 section 4.2)
    assert written.pop("initializer_range") == 0.006
    assert written.pop("tenth")["name"] == "v3-671b"
    assert written == {key: value for key, value in R1.items() if key != "initializer_range"}


def test_r1s_file_reads_as_the_v3_preset():
    read = from_hf(R1, name="v3-671b")
    assert to_hf(read) == {**to_hf(preset("v3-671b")), "initializer_range": 0.02}


def test_unquantised_weights_get_no_quantisation_key():
    assert "quantization_config" not in to_hf(preset("v3-671b"))


def test_qwens_file_reads_as_the_preset():
    assert from_hf(QWEN, name="qwen2.5-0.5b") == preset("qwen2.5-0.5b")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_the_round_trip(name):
    assert from_hf(to_hf(PRESETS[name])) == PRESETS[name]


def test_a_dense_latent_network_survives_the_round_trip():
    config = ModelConfig(
        name="dense-mla",
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        mla=MlaConfig(q_lora_rank=None, kv_lora_rank=4, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=4),
    )
    assert from_hf(to_hf(config)) == config


def test_transformers_5_keeps_theta_and_scaling_in_rope_parameters():
    values = {key: value for key, value in R1.items() if key not in ("rope_theta", "rope_scaling")}
    scaling = {**R1["rope_scaling"], "rope_theta": 5000.0, "rope_type": "yarn"}
    config = from_hf({**values, "rope_parameters": scaling})
    assert config.rope_theta == 5000.0
    assert config.rope_scaling == YarnConfig(factor=40.0, original_max_position_embeddings=4096)


def test_yarn_without_mscales_scales_the_rotation_as_qwen_does():
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    yarn = from_hf({**QWEN, "rope_scaling": scaling}).rope_scaling
    assert yarn == YarnConfig(factor=4.0, original_max_position_embeddings=32768, mscale_all_dim=0.0)


def test_an_unknown_architecture_is_named_with_the_known_ones():
    known = "DeepseekV3ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM"
    with pytest.raises(ConfigError, match=f"'GemmaForCausalLM'.*{known}"):
        from_hf({"architectures": ["GemmaForCausalLM"], "model_type": "gemma"})


LLAMA3 = {"rope_type": "llama3", "factor": 8.0}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not implemented"),
        ({"scoring_func": "softmax"}, "scoring_func = 'softmax' is not implemented"),
        ({"rope_interleave": False}, "rope_interleave = False is not implemented"),
        ({"rope_scaling": LLAMA3}, "rope scaling 'llama3' is not implemented"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": "7168"}, "hidden_size = '7168' should be of type int"),
        ({"vocab_size": True}, "vocab_size = True should be of type int"),
    ],
)
def test_what_we_do_not_build_is_refused(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_hf({**R1, **change})


def test_experts_with_grouped_query_attention_have_no_known_file():
    config = ModelConfig(
        name="odd",
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=4),
        moe=MoeConfig(n_routed_experts=2, n_shared_experts=1, num_experts_per_tok=1, moe_intermediate_size=4),
    )
    with pytest.raises(ConfigError, match="model 'odd': grouped-query attention with experts"):
        to_hf(config)
