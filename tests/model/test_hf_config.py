"""config.json: the published files' own keys and values, round trips, and what is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_configs import (
    LLAMA_3_1_8B,
    LLAMA_3_2_1B,
    PUBLISHED,
    QWEN2_5_0_5B,
    QWEN2_5_7B,
    QWEN3_0_6B,
    QWEN3_8B,
    QWEN3_30B_A3B,
    R1,
    V2_LITE,
)

from tenth.base.errors import ConfigError
from tenth.model.config import (
    GqaConfig,
    LinearRopeConfig,
    Llama3RopeConfig,
    MlaConfig,
    ModelConfig,
    MoeConfig,
    YarnConfig,
)
from tenth.model.counts import count
from tenth.model.hf_config import from_hf, is_rope_interleaved, model_type_of, to_hf
from tenth.model.presets import PRESETS, preset


def test_the_v3_preset_writes_every_key_of_r1_with_its_value():
    written = to_hf(preset("v3-671b"), is_fp8=True, bos_token_id=0, eos_token_id=1)
    # 0.02 stands in the published file, 0.006 is what was trained (DeepSeek-V3 section 4.2)
    assert written.pop("initializer_range") == 0.006
    assert written.pop("tenth")["name"] == "v3-671b"
    assert written == {key: value for key, value in R1.items() if key != "initializer_range"}


def test_r1s_file_reads_as_the_v3_preset():
    read = from_hf(R1, name="v3-671b")
    assert to_hf(read) == {**to_hf(preset("v3-671b")), "initializer_range": 0.02}


def test_unquantised_weights_get_no_quantisation_key():
    assert "quantization_config" not in to_hf(preset("v3-671b"))


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name)
def test_published_files_describe_networks_of_the_published_size(file):
    counts = count(from_hf(file.values))
    assert counts.total_parameters == file.total or f"{counts.total_parameters / 1e9:.2f}" == file.total
    if file.activated is not None:
        assert f"{counts.activated_parameters / 1e9:.1f}" == file.activated


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name)
def test_published_files_keep_their_family_and_their_values_through_a_round_trip(file):
    config = from_hf(file.values)
    written = to_hf(config)
    assert written["model_type"] == model_type_of(config) == file.values["model_type"]
    assert written["architectures"] == file.values["architectures"]
    assert from_hf(written) == config
    ours = {key: value for key, value in written.items() if key in file.values and key[:4] not in "bos_eos_"}
    for key, value in ours.items():
        if key not in ("rope_scaling", "torch_dtype", "quantization_config"):
            assert value == file.values[key], key


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_the_round_trip(name):
    assert from_hf(to_hf(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("qwen2.5-0.5b", QWEN2_5_0_5B),
        ("qwen3-0.6b", QWEN3_0_6B),
        ("qwen3-8b", QWEN3_8B),
        ("qwen3-30b-a3b", QWEN3_30B_A3B),
        ("llama-3.2-1b", LLAMA_3_2_1B),
        ("llama-3.1-8b", LLAMA_3_1_8B),
    ],
)
def test_presets_are_what_the_published_files_say(name, values):
    assert from_hf(values, name=name) == preset(name)


def test_token_ids_are_written_as_they_were_given():
    written = to_hf(preset("tiny-zero"), bos_token_id=None, eos_token_id=(1, 2))
    assert (written["bos_token_id"], written["eos_token_id"]) == (None, [1, 2])


POSITIVE = st.integers(1, 1 << 20)
HALF = st.floats(0.5, 64.0)
YARN = st.builds(
    YarnConfig,
    factor=HALF,
    original_max_position_embeddings=POSITIVE,
    beta_fast=st.floats(8.0, 64.0),
    beta_slow=st.floats(0.5, 2.0),
    mscale=st.just(1.0),
    mscale_all_dim=st.just(0.0),
    attention_factor=st.none() | HALF,
    truncate=st.booleans(),
)
LATENT_YARN = st.builds(dataclasses.replace, YARN, mscale=HALF, mscale_all_dim=HALF) | YARN
SCALING = (
    st.none()
    | st.builds(LinearRopeConfig, factor=HALF)
    | st.builds(
        Llama3RopeConfig,
        factor=HALF,
        low_freq_factor=st.floats(0.5, 2.0),
        high_freq_factor=st.floats(3.0, 9.0),
        original_max_position_embeddings=POSITIVE,
    )
)
GQA = st.builds(
    GqaConfig,
    num_key_value_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 99).map(lambda n: 2 * n),
    qkv_bias=st.booleans(),
    o_bias=st.booleans(),
    qk_norm=st.booleans(),
)
MLA = st.builds(
    MlaConfig,
    q_lora_rank=st.none() | POSITIVE,
    kv_lora_rank=POSITIVE,
    qk_nope_head_dim=POSITIVE,
    qk_rope_head_dim=st.integers(1, 99).map(lambda n: 2 * n),
    v_head_dim=POSITIVE,
)
EXPERTS = st.builds(
    MoeConfig,
    n_routed_experts=st.just(8),
    n_shared_experts=st.integers(0, 2),
    num_experts_per_tok=st.integers(1, 4),
    moe_intermediate_size=POSITIVE,
    n_group=st.sampled_from([1, 2]),
    topk_group=st.just(1),
    routed_scaling_factor=HALF,
    norm_topk_prob=st.booleans(),
    scoring_func=st.sampled_from(["sigmoid", "softmax"]),
    topk_method=st.sampled_from(["noaux_tc", "group_limited_greedy"]),
    first_k_dense_replace=st.integers(0, 3),
    bias_update_speed=st.floats(0, 1),
    sequence_balance_weight=st.floats(0, 1),
)
PLAIN_EXPERTS = EXPERTS.map(
    lambda moe: dataclasses.replace(moe, n_group=1, topk_method="greedy", scoring_func="softmax")
)
QWEN_EXPERTS = PLAIN_EXPERTS.map(
    lambda moe: dataclasses.replace(
        moe, n_shared_experts=0, routed_scaling_factor=1.0, first_k_dense_replace=0
    )
)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    is_latent = draw(st.booleans())
    experts = EXPERTS | PLAIN_EXPERTS if is_latent else EXPERTS | QWEN_EXPERTS
    return ModelConfig(
        name=draw(st.text(min_size=1)),
        vocab_size=draw(POSITIVE),
        hidden_size=draw(POSITIVE),
        num_hidden_layers=draw(st.integers(1, 1 << 12)),
        num_attention_heads=4,
        intermediate_size=draw(POSITIVE),
        mla=draw(MLA) if is_latent else None,
        gqa=None if is_latent else draw(GQA),
        moe=draw(st.none() | experts),
        num_nextn_predict_layers=draw(st.integers(0, 2)),
        max_position_embeddings=draw(POSITIVE),
        rope_theta=draw(st.floats(2.0, 1e7)),
        rope_scaling=draw(SCALING | (LATENT_YARN if is_latent else YARN)),
        rms_norm_eps=draw(st.floats(0, 1)),
        initializer_range=draw(st.floats(0, 1)),
        tie_word_embeddings=draw(st.booleans()),
    )


@given(configs())
def test_what_is_written_reads_as_what_it_was(config):
    try:
        written = to_hf(config)
    except ConfigError:  # no family has this combination
        return
    assert from_hf(written) == config


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=9), part, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_damaged_file_is_a_sentence_or_a_network_that_can_be_counted(data):
    values = dict(data.draw(st.sampled_from(PUBLISHED)).values)
    for key in data.draw(st.lists(st.sampled_from([*sorted(values), "layer_types"]), max_size=3)):
        values[key] = data.draw(JSON)
    if isinstance(values.get("rope_scaling"), dict):
        rope = dict(values["rope_scaling"])
        rope[data.draw(st.sampled_from([*rope, "rope_type"]))] = data.draw(JSON)
        values["rope_scaling"] = rope
    try:
        config = from_hf(values)
    except ConfigError:
        return
    assert count(config).total_parameters > 0


def test_transformers_5_keeps_theta_and_scaling_in_rope_parameters():
    values = {key: value for key, value in R1.items() if key not in ("rope_theta", "rope_scaling")}
    scaling = {**R1["rope_scaling"], "rope_theta": 5000.0, "rope_type": "yarn"}
    config = from_hf({**values, "rope_parameters": scaling})
    assert config.rope_theta == 5000.0
    assert config.rope_scaling == YarnConfig(factor=40.0, original_max_position_embeddings=4096)


def test_yarn_without_mscales_scales_the_rotation_as_qwen_does():
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = from_hf({**QWEN2_5_7B, "rope_scaling": scaling})
    assert config.rope_scaling == YarnConfig(
        factor=4.0, original_max_position_embeddings=32768, mscale_all_dim=0.0
    )
    # The published instruction adds these keys beside max_position_embeddings = 32768: 131072 are meant.
    assert config.max_position_embeddings == 131072


def test_yarn_that_is_not_in_force_is_hidden_from_tools_that_would_apply_it():
    config = dataclasses.replace(preset("v3-671b"), max_position_embeddings=4096)
    written = to_hf(config)
    assert written["rope_scaling"] is None
    assert from_hf(written) == config


def test_llama_3_1s_scaling_is_read_in_its_own_terms():
    assert from_hf(LLAMA_3_1_8B).rope_scaling == Llama3RopeConfig(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    )


def test_dynamic_scaling_changes_nothing_within_the_context():
    values = {**QWEN2_5_7B, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert from_hf(values) == from_hf(QWEN2_5_7B)


def test_only_deepseeks_rotary_rows_are_interleaved_and_its_file_can_say_they_are_not():
    assert is_rope_interleaved(R1)
    assert is_rope_interleaved(V2_LITE)
    assert not is_rope_interleaved({**R1, "rope_interleave": False})
    assert not is_rope_interleaved(QWEN2_5_7B)


def test_attention_bias_is_on_all_four_projections_but_for_qwen2():
    llama = from_hf({**LLAMA_3_1_8B, "attention_bias": True}).gqa
    assert (llama.qkv_bias, llama.o_bias) == (True, True)
    qwen = from_hf(QWEN2_5_7B).gqa
    assert (qwen.qkv_bias, qwen.o_bias) == (True, False)


def test_an_unknown_architecture_is_named_with_the_known_ones():
    known = "DeepseekV3ForCausalLM, DeepseekV2ForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"
    with pytest.raises(ConfigError, match=f"'GemmaForCausalLM'.*{known}, Qwen3Moe.*, LlamaForCausalLM"):
        from_hf({"architectures": ["GemmaForCausalLM"], "model_type": "gemma"})
    with pytest.raises(ConfigError, match="architecture 'missing'"):
        from_hf({"architectures": "LlamaForCausalLM", "model_type": None})


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("values", "change", "sentence"),
    [
        (R1, {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not implemented"),
        (R1, {"scoring_func": "softmax"}, "scoring_func = 'softmax' is not implemented"),
        (R1, {"hidden_size": None}, "'hidden_size' is missing"),
        (R1, {"hidden_size": "7168"}, "hidden_size = '7168' should be of type int"),
        (R1, {"vocab_size": True}, "vocab_size = True should be of type int"),
        (R1, {"vocab_size": -5}, "vocab_size = -5 should lie between 1 and"),
        (R1, {"hidden_size": 1 << 40}, "hidden_size = 1099511627776 should lie between 1 and"),
        (R1, {"num_hidden_layers": 1 << 20}, "num_hidden_layers = 1048576 should lie between 1 and 4096"),
        (R1, {"n_routed_experts": 1 << 20}, "n_routed_experts = 1048576 should lie between 1 and 4297"),
        (R1, {"max_position_embeddings": 1 << 30}, "max_position_embeddings = 1073741824 should lie"),
        (R1, {"rms_norm_eps": float("nan")}, "rms_norm_eps = nan should lie between 0 and"),
        (R1, {"rope_theta": 10**400}, "rope_theta = inf should lie between"),
        (R1, {"rope_scaling": {"type": "linear", "factor": 0}}, "factor of a rope scaling is 0"),
        (R1, {"rope_scaling": LONGROPE}, "rope scaling 'longrope' is not implemented"),
        (V2_LITE, {"topk_method": "noaux_tc"}, "topk_method = 'noaux_tc' is not implemented"),
        (V2_LITE, {"norm_topk_prob": True}, "norm_topk_prob = True is not implemented"),
        (QWEN2_5_7B, {"use_sliding_window": True}, "use_sliding_window = True is not implemented"),
        (QWEN2_5_7B, {"layer_types": ["full_attention", "sliding_attention"]}, "sliding windows"),
        (LLAMA_3_1_8B, {"sliding_window": 4096}, r"sliding windows \(sliding_window = 4096\)"),
        (LLAMA_3_1_8B, {"mlp_bias": True}, "mlp_bias = True is not implemented"),
        (LLAMA_3_1_8B, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (QWEN3_30B_A3B, {"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\] is not implemented"),
        (QWEN3_30B_A3B, {"decoder_sparse_step": 2}, "decoder_sparse_step = 2 is not implemented"),
    ],
)
def test_what_we_do_not_build_is_refused(values, change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_hf({**values, **change})


SMALL = ModelConfig(
    name="odd",
    vocab_size=10,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=4),
)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {
                "moe": MoeConfig(
                    n_routed_experts=2, n_shared_experts=1, num_experts_per_tok=1, moe_intermediate_size=4
                )
            },
            "experts other than Qwen3's",
        ),
        ({"gqa": GqaConfig(num_key_value_heads=1, head_dim=4, o_bias=True)}, "o_bias = True"),
        (
            {"gqa": GqaConfig(num_key_value_heads=1, head_dim=4, qkv_bias=True, qk_norm=True)},
            "qkv_bias = True with o_bias = False",
        ),
    ],
)
def test_networks_of_no_known_family_cannot_be_written(changes, what):
    with pytest.raises(ConfigError, match=f"model 'odd': .*{what}.* has no Hugging Face architecture"):
        to_hf(dataclasses.replace(SMALL, **changes))
