"""Directories that transformers writes load here, directories that are written here load there: same logits,
same greedy tokens, no name missing or left over."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from weights import randomise

from tenth.base.records import Message, Role
from tenth.checkpoint.model_dir import load_config, load_model, save_model
from tenth.model.config import (
    GqaConfig,
    LinearRopeConfig,
    Llama3RopeConfig,
    MlaConfig,
    ModelConfig,
    MoeConfig,
    YarnConfig,
)
from tenth.model.hf_config import to_hf
from tenth.model.quantize import quantize_model
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.chat import Template, render_prompt
from tenth.tokenizer.jinja_files import read_template
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity
FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "checkpoints" / "verl_arith_llama_random"
TOLERANCE = 1e-4
TOKENS = 96  # three times the original contexts below

V3 = ModelConfig(
    name="deepseek_v3",
    vocab_size=64,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    mla=MlaConfig(q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=32),
    moe=MoeConfig(
        n_routed_experts=16,
        n_shared_experts=2,
        num_experts_per_tok=4,
        moe_intermediate_size=24,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
    ),
    max_position_embeddings=256,
    rope_scaling=YarnConfig(factor=8.0, original_max_position_embeddings=32),
)
V2 = dataclasses.replace(
    V3,
    name="deepseek_v2",
    mla=dataclasses.replace(V3.mla, q_lora_rank=None),
    moe=dataclasses.replace(
        V3.moe, scoring_func="softmax", topk_method="group_limited_greedy", norm_topk_prob=False
    ),
    rope_scaling=None,
)
LLAMA = ModelConfig(
    name="llama",
    vocab_size=64,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    gqa=GqaConfig(num_key_value_heads=2, head_dim=16),
    max_position_embeddings=256,
    rope_theta=500000.0,
    rope_scaling=Llama3RopeConfig(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    ),
)
QWEN2 = dataclasses.replace(
    LLAMA, name="qwen2", gqa=dataclasses.replace(LLAMA.gqa, qkv_bias=True), rope_scaling=None
)
QWEN3 = dataclasses.replace(
    QWEN2, name="qwen3", gqa=GqaConfig(num_key_value_heads=2, head_dim=24, qk_norm=True)
)
QWEN3_MOE = dataclasses.replace(
    QWEN3,
    name="qwen3_moe",
    moe=MoeConfig(
        n_routed_experts=8,
        n_shared_experts=0,
        num_experts_per_tok=3,
        moe_intermediate_size=24,
        first_k_dense_replace=0,
        scoring_func="softmax",
        topk_method="greedy",
    ),
)
CASES = {
    "deepseek_v3": V3,
    "deepseek_v3, no query latent": dataclasses.replace(
        V3, mla=dataclasses.replace(V3.mla, q_lora_rank=None)
    ),
    "deepseek_v2": V2,
    "llama 3": LLAMA,
    "llama, linear rope, every bias": dataclasses.replace(
        LLAMA,
        gqa=dataclasses.replace(LLAMA.gqa, qkv_bias=True, o_bias=True),
        rope_scaling=LinearRopeConfig(factor=4.0),
    ),
    "llama, tied": dataclasses.replace(LLAMA, tie_word_embeddings=True, rope_scaling=None),
    "qwen2": QWEN2,
    "qwen2, tied": dataclasses.replace(QWEN2, tie_word_embeddings=True),
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
}
WITH_EXPERTS = {name: config for name, config in CASES.items() if config.moe}
every_case = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())


def build_peer(config: ModelConfig, **changed: object):
    theirs = transformers.AutoConfig.for_model(**{**to_hf(config, dtype="float32"), **changed})
    theirs._attn_implementation = "eager"
    peer = transformers.AutoModelForCausalLM.from_config(theirs).eval()
    randomise(peer, seed=0)
    peer.tie_weights()
    return peer


def read_by_transformers(directory: Path):
    peer, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    return peer.eval(), info


def random_ids() -> torch.Tensor:
    return torch.randint(64, (2, TOKENS), generator=torch.Generator().manual_seed(1))


def assert_same_logits(network: Transformer, peer) -> None:
    ids = random_ids()
    with torch.no_grad():
        theirs, ours = peer(ids).logits, network.logits(network(ids))
    assert theirs.abs().max() > 1  # else a tolerance in absolute terms would mean little
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def greedy(network: Transformer, ids: torch.Tensor, *, count: int) -> torch.Tensor:
    for _ in range(count):
        ids = torch.cat((ids, network.logits(network(ids)[:, -1:]).argmax(-1)), -1)
    return ids


def their_greedy(peer, ids: torch.Tensor, *, count: int) -> torch.Tensor:
    return peer.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )


def model_of(config: ModelConfig) -> Transformer:
    network = initialise(
        Transformer(dataclasses.replace(config, initializer_range=0.2)),
        generator=torch.Generator().manual_seed(0),
    )
    for router in network.routers():
        if config.moe.topk_method == "noaux_tc":
            router.bias.copy_(torch.linspace(-0.2, 0.2, len(router.bias)))
    return network


# inward


@every_case
def test_what_transformers_saves_computes_the_same_here(tmp_path, config):
    peer = build_peer(config)
    peer.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert_same_logits(load_model(tmp_path, dtype=torch.float32), peer)


@pytest.mark.parametrize("config", WITH_EXPERTS.values(), ids=WITH_EXPERTS.keys())
def test_fused_experts_are_read_like_one_tensor_for_each(tmp_path, config):
    peer = build_peer(config)
    for is_original in (True, False):
        peer.save_pretrained(tmp_path / str(is_original), save_original_format=is_original)
    each, fused = (
        load_model(tmp_path / name, dtype=torch.float32).state_dict() for name in ("True", "False")
    )
    assert all(torch.equal(fused[name], tensor) for name, tensor in each.items())
    assert_same_logits(load_model(tmp_path / "False", dtype=torch.float32), peer)


def test_rotary_rows_that_are_half_split_already_are_left_so(tmp_path):
    peer = build_peer(V3, rope_interleave=False)
    peer.save_pretrained(tmp_path)
    assert_same_logits(load_model(tmp_path, dtype=torch.float32), peer)


def test_a_tied_checkpoint_may_hold_its_head_once_more(tmp_path):
    peer = build_peer(CASES["qwen2, tied"])
    peer.save_pretrained(tmp_path, state_dict={**peer.state_dict(), "lm_head.weight": torch.zeros(64, 64)})
    assert_same_logits(load_model(tmp_path, dtype=torch.float32), peer)


@pytest.mark.skipif(not FOREIGN.exists(), reason="the optional ../shared/data is not here")
def test_a_foreign_random_llama_loads():
    peer, _ = read_by_transformers(FOREIGN)
    network = load_model(FOREIGN, dtype=torch.float32)
    ids = torch.randint(network.config.vocab_size, (2, 64))
    with torch.no_grad():
        torch.testing.assert_close(network.logits(network(ids)), peer(ids).logits, atol=TOLERANCE, rtol=0)


# outward


@every_case
def test_transformers_loads_what_is_saved_here_and_says_the_same(tmp_path, config):
    network = model_of(config)
    save_model(tmp_path, network)
    peer, info = read_by_transformers(tmp_path)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_logits(network, peer)
    prompt = random_ids()[:1, :40]
    theirs = their_greedy(peer, prompt, count=12)
    assert torch.equal(greedy(network, prompt, count=12), theirs)


@pytest.mark.parametrize("keep_mtp", [True, False])
@pytest.mark.parametrize("layers", [3, 61])
def test_only_the_draft_module_is_left_over_and_not_as_layer_61(tmp_path, layers, keep_mtp):
    config = dataclasses.replace(
        V3,
        num_hidden_layers=layers,
        num_nextn_predict_layers=1,
        moe=dataclasses.replace(V3.moe, first_k_dense_replace=layers - 1),
    )
    network = model_of(config)
    save_model(tmp_path, network, keep_mtp=keep_mtp)
    assert load_config(tmp_path).num_nextn_predict_layers == keep_mtp
    peer, info = read_by_transformers(tmp_path)
    assert not info["missing_keys"]
    assert all(name.startswith(f"model.layers.{layers}.") for name in info["unexpected_keys"])
    assert bool(info["unexpected_keys"]) == (keep_mtp and layers != 61)
    prompt = random_ids()[:1, :16]
    theirs = their_greedy(peer, prompt, count=4)
    assert torch.equal(greedy(network, prompt, count=4), theirs)


@every_case
def test_a_model_goes_out_through_transformers_and_back_bit_for_bit(tmp_path, config):
    network = model_of(config)
    save_model(tmp_path / "ours", network)
    read_by_transformers(tmp_path / "ours")[0].save_pretrained(tmp_path / "theirs")
    back = load_model(tmp_path / "theirs", dtype=torch.float32)
    assert dataclasses.replace(back.config, name=network.config.name) == network.config
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_official_fp8_is_dequantised_by_transformers_as_it_is_here(tmp_path):
    # Every width is below 128 or a multiple of it: transformers takes no ragged blocks.
    config = dataclasses.replace(
        V3,
        hidden_size=256,
        intermediate_size=384,
        mla=dataclasses.replace(V3.mla, v_head_dim=16),
        moe=dataclasses.replace(V3.moe, moe_intermediate_size=128),
    )
    save_model(tmp_path, model_of(config), fp8=True)
    stored = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert stored["quant_method"] == "fp8"
    assert stored["weight_block_size"] == [128, 128]
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=transformers.FineGrainedFP8Config(dequantize=True),
    )
    for weight in peer.parameters():  # some come as bfloat16 and some as float32, whatever was asked for
        weight.data = weight.data.bfloat16().float()
    network = load_model(tmp_path, dtype=torch.bfloat16).to_compute_dtype(torch.float32)
    assert_same_logits(network, peer.eval())


def test_codes_of_our_own_are_refused_by_transformers(tmp_path):
    save_model(tmp_path, quantize_model(model_of(QWEN2), 8))
    with pytest.raises(ValueError, match="tenth"):
        read_by_transformers(tmp_path)


def test_a_whole_directory_answers_there_as_it_does_here(tmp_path):
    tokenizer = train_bpe(["User: What is 3+4? <think>3+4=7</think><answer>7</answer>"] * 9, vocab_size=300)
    network = model_of(
        dataclasses.replace(QWEN3, vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
    )
    save_model(tmp_path, network, tokenizer=tokenizer, template=Template.ZERO)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    prompt = theirs.apply_chat_template(
        [{"role": "user", "content": "What is 3+4?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    messages = [Message(role=Role.USER, content="What is 3+4?")]
    ours = Tokenizer.load(tmp_path)
    assert prompt[0].tolist() == render_prompt(ours, messages, template=read_template(tmp_path))
    peer, _ = read_by_transformers(tmp_path)
    assert peer.generation_config.eos_token_id == ours.eos_id
    answer = greedy(network, prompt, count=8)
    answered = their_greedy(peer, prompt, count=8)
    assert torch.equal(answered, answer[:, : answered.shape[1]])  # they stop at eos
    assert theirs.decode(answer[0], skip_special_tokens=False).startswith(theirs.bos_token)
