import dataclasses

import pytest
import torch

from tenth.checkpoint.names import Entry, compare_names, expected_hf, has_mtp, plan, to_hf_tensors
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.presets import preset
from tenth.model.transformer import Transformer, initialise

LLAMA = ModelConfig(
    name="llama",
    vocab_size=10,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=6,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=2),
    max_position_embeddings=8,
)
TINY_V3 = dataclasses.replace(
    LLAMA,
    name="v3",
    num_hidden_layers=2,
    gqa=None,
    mla=MlaConfig(q_lora_rank=3, kv_lora_rank=5, qk_nope_head_dim=2, qk_rope_head_dim=4, v_head_dim=3),
    moe=MoeConfig(n_routed_experts=2, n_shared_experts=1, num_experts_per_tok=1, moe_intermediate_size=3),
    num_nextn_predict_layers=1,
)


def model_of(config: ModelConfig) -> Transformer:
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(0))


def infos_of(config: ModelConfig, *, mtp: bool = True) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(dtype=torch.float32, shape=shape)
        for name, shape in expected_hf(config, mtp=mtp).items()
    }


def test_a_llama_has_these_tensors():
    layer = "model.layers.0."
    assert expected_hf(LLAMA, mtp=False) == {
        "model.embed_tokens.weight": (10, 4),
        f"{layer}input_layernorm.weight": (4,),
        f"{layer}self_attn.q_proj.weight": (4, 4),
        f"{layer}self_attn.k_proj.weight": (2, 4),
        f"{layer}self_attn.v_proj.weight": (2, 4),
        f"{layer}self_attn.o_proj.weight": (4, 4),
        f"{layer}post_attention_layernorm.weight": (4,),
        f"{layer}mlp.gate_proj.weight": (6, 4),
        f"{layer}mlp.up_proj.weight": (6, 4),
        f"{layer}mlp.down_proj.weight": (4, 6),
        "model.norm.weight": (4,),
        "lm_head.weight": (10, 4),
    }


def test_deepseek_r1_has_the_published_names_and_shapes():
    shapes = expected_hf(preset("v3-671b"), mtp=True)
    attention, mlp, mtp = "model.layers.3.self_attn.", "model.layers.3.mlp.", "model.layers.61."
    published = {
        "model.embed_tokens.weight": (129280, 7168),
        f"{attention}q_a_proj.weight": (1536, 7168),
        f"{attention}q_a_layernorm.weight": (1536,),
        f"{attention}q_b_proj.weight": (24576, 1536),
        f"{attention}kv_a_proj_with_mqa.weight": (576, 7168),
        f"{attention}kv_a_layernorm.weight": (512,),
        f"{attention}kv_b_proj.weight": (32768, 512),
        f"{attention}o_proj.weight": (7168, 16384),
        "model.layers.2.mlp.gate_proj.weight": (18432, 7168),
        f"{mlp}gate.weight": (256, 7168),
        f"{mlp}gate.e_score_correction_bias": (256,),
        f"{mlp}experts.255.down_proj.weight": (7168, 2048),
        f"{mlp}shared_experts.up_proj.weight": (2048, 7168),
        f"{mtp}eh_proj.weight": (7168, 14336),
        f"{mtp}enorm.weight": (7168,),
        f"{mtp}hnorm.weight": (7168,),
        f"{mtp}shared_head.norm.weight": (7168,),
        f"{mtp}shared_head.head.weight": (129280, 7168),
        f"{mtp}embed_tokens.weight": (129280, 7168),
        f"{mtp}mlp.experts.0.gate_proj.weight": (2048, 7168),
        "lm_head.weight": (129280, 7168),
    }
    assert published.items() <= shapes.items()
    # 61 layers: 2 norms and 7 tensors of attention; 3 dense ones with 3 more, 58 with gate, its bias and
    # 257 experts of 3; table, norm, head; MTP as a layer with experts and 6 more
    assert len(shapes) == 61 * 9 + 3 * 3 + 58 * (2 + 257 * 3) + 3 + (9 + 2 + 257 * 3 + 6)


@pytest.mark.parametrize("config", [LLAMA, TINY_V3], ids=lambda config: config.name)
def test_the_plan_covers_every_number_of_the_network_once(config):
    state = model_of(config).state_dict()
    entries = {entry.name: entry for entry in plan(config)}
    assert entries.keys() == state.keys()
    for name, tensor in state.items():
        touched = torch.zeros_like(tensor)
        for piece in entries[name].pieces:
            part = touched if piece.expert is None else touched[piece.expert]
            part[piece.begin : piece.begin + piece.shape[0]] += 1
        assert torch.equal(touched, torch.ones_like(tensor)), name


def test_tensors_go_out_with_the_shapes_that_are_expected():
    found = {name: tuple(t.shape) for name, t in to_hf_tensors(model_of(TINY_V3).state_dict(), TINY_V3)}
    assert found == dict(expected_hf(TINY_V3, mtp=True))


def test_rotated_rows_go_out_interleaved():
    state = model_of(TINY_V3).state_dict()
    out = dict(to_hf_tensors(state, TINY_V3))
    # kv_a: five rows of the latent, then four rotated ones, ours 0 1 | 2 3 -> theirs 0 2 1 3
    ours = state["layers.0.attention.qkv_a.weight"][3:]
    assert torch.equal(
        out["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"], ours[[0, 1, 2, 3, 4, 5, 7, 6, 8]]
    )
    # q_b: two heads of two plain and four rotated rows
    ours = state["layers.0.attention.q_b.weight"]
    assert torch.equal(
        out["model.layers.0.self_attn.q_b_proj.weight"], ours[[0, 1, 2, 4, 3, 5, 6, 7, 8, 10, 9, 11]]
    )


def test_the_draft_layers_copies_are_the_tables_of_the_model():
    state = model_of(TINY_V3).state_dict()
    out = dict(to_hf_tensors(state, TINY_V3))
    assert torch.equal(out["model.layers.2.embed_tokens.weight"], state["embed.weight"])
    assert torch.equal(out["model.layers.2.shared_head.head.weight"], state["head.weight"])


def test_without_the_draft_module_nothing_of_it_goes_out():
    names = [name for name, _ in to_hf_tensors(model_of(TINY_V3).state_dict(), TINY_V3, keep_mtp=False)]
    assert set(names) == set(expected_hf(TINY_V3, mtp=False))
    assert not has_mtp(names, TINY_V3)
    assert has_mtp(expected_hf(TINY_V3, mtp=True), TINY_V3)


def test_a_softmax_router_has_no_bias_in_a_checkpoint():
    greedy = dataclasses.replace(TINY_V3.moe, scoring_func="softmax", topk_method="greedy")
    names = expected_hf(dataclasses.replace(TINY_V3, moe=greedy), mtp=True)
    assert not [name for name in names if "bias" in name]


def test_a_complete_checkpoint_fits():
    fit = compare_names(infos_of(TINY_V3), TINY_V3, mtp=True)
    assert (fit.missing, fit.unexpected, fit.misshapen) == ((), (), ())


def test_what_follows_from_the_rest_may_be_there_or_not():
    tied = dataclasses.replace(LLAMA, tie_word_embeddings=True)
    infos = infos_of(tied)
    infos["lm_head.weight"] = infos["model.embed_tokens.weight"]
    infos["model.layers.0.self_attn.rotary_emb.inv_freq"] = TensorInfo(dtype=torch.float32, shape=(1,))
    assert compare_names(infos, tied, mtp=True).unexpected == ()
    infos = infos_of(TINY_V3)
    del infos["model.layers.2.embed_tokens.weight"], infos["model.layers.2.shared_head.head.weight"]
    assert compare_names(infos, TINY_V3, mtp=True).missing == ()


def test_missing_unexpected_and_misshapen_tensors_are_named():
    infos = infos_of(LLAMA)
    del infos["model.norm.weight"]
    infos["lm_head.bias"] = TensorInfo(dtype=torch.float32, shape=(10,))
    infos["lm_head.weight"] = TensorInfo(dtype=torch.float32, shape=(11, 4))
    fit = compare_names(infos, LLAMA, mtp=False)
    assert fit.missing == ("model.norm.weight",)
    assert fit.unexpected == ("lm_head.bias",)
    assert fit.misshapen == ("lm_head.weight is (11, 4) and not (10, 4)",)


def test_an_entry_without_pieces_is_nowhere_in_the_checkpoint():
    greedy = dataclasses.replace(TINY_V3.moe, scoring_func="softmax", topk_method="greedy")
    entries = list(plan(dataclasses.replace(TINY_V3, moe=greedy)))
    assert Entry(name="layers.1.ffn.router.bias", pieces=()) in entries
