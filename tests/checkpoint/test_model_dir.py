import dataclasses
import errno
import json
import os
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tenth.base.errors import CheckpointError
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.model_dir import load_config, load_model, save_model
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig, YarnConfig
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.train import train_bpe

MLA = ModelConfig(
    name="little",
    vocab_size=24,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    mla=MlaConfig(q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8),
    moe=MoeConfig(
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        bias_update_speed=0.003,
        sequence_balance_weight=0.25,
    ),
    num_nextn_predict_layers=1,
    max_position_embeddings=64,
    rope_scaling=YarnConfig(factor=2.0, original_max_position_embeddings=32),
)
TIED = dataclasses.replace(
    MLA,
    name="tied",
    mla=None,
    moe=None,
    rope_scaling=None,
    num_nextn_predict_layers=0,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=8, qkv_bias=True),
    tie_word_embeddings=True,
)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def model_of(config: ModelConfig, *, seed: int = 0) -> Transformer:
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(seed))
    for router in model.routers():
        router.bias.copy_(torch.linspace(-0.1, 0.1, len(router.bias)))  # trained, though not by a gradient
    return model


def tensors_in(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def rewrite(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    """As another tool would: other weights, and no checksums of ours."""
    safetensors.torch.save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize("config", [MLA, TIED], ids=lambda config: config.name)
def test_a_model_comes_back_bit_for_bit(tmp_path, config):
    model = model_of(config)
    save_model(tmp_path / "m", model)
    back = load_model(tmp_path / "m", dtype=torch.float32)
    assert back.config == config == load_config(tmp_path / "m")
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(back(IDS), model(IDS))


def test_a_model_is_loaded_in_the_dtype_asked_for_its_norms_and_routers_wide(tmp_path):
    save_model(tmp_path, model_of(MLA))
    model = load_model(tmp_path, dtype=torch.bfloat16)
    assert model.embed.weight.dtype == torch.bfloat16
    assert model.norm.weight.dtype == torch.float32
    assert {router.weight.dtype for router in model.routers()} == {torch.float32}


def test_masters_are_stored_in_place_of_the_rounded_weights(tmp_path):
    model = model_of(TIED).to_compute_dtype(torch.bfloat16)
    master = torch.full_like(model.embed.weight, 1 / 3, dtype=torch.float32)
    save_model(tmp_path, model, weights={"embed.weight": master})
    assert torch.equal(load_model(tmp_path, dtype=torch.float32).embed.weight, master)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float32"


def test_config_json_has_the_usual_keys_for_other_tools(tmp_path):
    save_model(tmp_path, model_of(MLA))
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["architectures"] == ["DeepseekV3ForCausalLM"]
    assert values["kv_lora_rank"] == 8


def test_the_tokenizer_is_part_of_the_directory(tmp_path):
    save_model(tmp_path / "m", model_of(TIED), tokenizer=train_bpe(["a"], vocab_size=267))
    names = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_new_model_takes_the_place_of_the_old_one(tmp_path):
    save_model(tmp_path / "m", model_of(TIED))
    newer = model_of(TIED, seed=1)
    save_model(tmp_path / "m", newer)
    assert torch.equal(load_model(tmp_path / "m", dtype=torch.float32).embed.weight, newer.embed.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_failure_leaves_the_old_model(tmp_path, monkeypatch):
    old = model_of(TIED)
    save_model(tmp_path / "m", old)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Exception, match="No space left on device"):
            save_model(tmp_path / "m", model_of(TIED, seed=1))
    assert torch.equal(load_model(tmp_path / "m", dtype=torch.float32).embed.weight, old.embed.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_reader_finds_the_model_while_it_is_being_replaced_and_disturbs_nothing(tmp_path):
    save_model(tmp_path / "m", model_of(TIED))
    (tmp_path / "m").rename(tmp_path / "m.replaced")  # the instant between the two renames
    (tmp_path / "m.partial").mkdir()
    assert load_model(tmp_path / "m", dtype=torch.float32).config == TIED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.partial", "m.replaced"]


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(NORM), r"1 tensors are missing \(first: 'model.norm.weight'\)"),
        (
            lambda t: t.update(extra=torch.zeros(1)),
            r"1 tensors belong to no part of the network \(first: 'extra'\)",
        ),
        (lambda t: t.update({NORM: torch.zeros(17)}), r"model.norm.weight is \(17,\) and not \(16,\)"),
        (lambda t: t[NORM].fill_(torch.nan), "'model.norm.weight' holds NaN or infinite numbers; restore"),
        (lambda t: t[NORM][3].fill_(-torch.inf), "'model.norm.weight' holds NaN or infinite numbers"),
        (lambda t: t.update({NORM: torch.ones(16, dtype=torch.int8)}), r"holds torch.int8, which is no"),
    ],
    ids=["missing", "extra", "shape", "nan", "inf", "dtype"],
)
def test_weights_that_do_not_fit_are_one_sentence_naming_the_directory(tmp_path, change, sentence):
    save_model(tmp_path, model_of(TIED))
    tensors = {name: tensor.clone() for name, tensor in tensors_in(tmp_path).items()}
    change(tensors)
    rewrite(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path)) + ".*" + sentence):
        load_model(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_routed_experts"])
def test_more_layers_than_a_day_could_count_are_one_sentence_at_once(tmp_path, key):
    save_model(tmp_path, model_of(MLA))
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, key: 4_000}))
    with pytest.raises(CheckpointError, match=r"4,000 .* tensors cannot hold; restore config.json"):
        load_model(tmp_path, dtype=torch.float32)


def test_a_broken_model_is_not_saved(tmp_path):
    model = model_of(TIED)
    model.norm.weight.data[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"'norm\.weight' holds NaN"):
        save_model(tmp_path / "m", model)
    assert not (tmp_path / "m").exists()


def test_a_flipped_bit_is_noticed(tmp_path):
    save_model(tmp_path, model_of(TIED))
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"is no model directory \(no config.json in it\)"),
        ("{", "config.json is damaged: it is not valid JSON"),
        ("[]", "config.json is damaged: it holds no JSON object"),
        ('{"a": 1, "a": 2}', "config.json is damaged: .*the name 'a' comes twice"),
        ("[" * 100_000, "config.json is damaged: it is not valid JSON"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_sentence(tmp_path, text, sentence):
    save_model(tmp_path, model_of(TIED))
    path = tmp_path / "config.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        load_model(tmp_path, dtype=torch.float32)


def test_a_directory_of_another_tool_is_read_by_its_usual_keys(tmp_path):
    save_model(tmp_path, model_of(MLA))
    values = json.loads((tmp_path / "config.json").read_text())
    del values["tenth"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_config(tmp_path).mla == MLA.mla
    # what those keys cannot say falls back to the paper's values
    assert load_config(tmp_path).moe.bias_update_speed == 0.001


def as_0_2_wrote_it(directory: Path, model: Transformer) -> None:
    """Our own names, and our own configuration beside the usual keys."""
    save_model(directory, model)
    safetensors.torch.save_file(model.state_dict(), directory / "model.safetensors")
    values = json.loads((directory / "config.json").read_text())
    values["tenth"] |= {"config": dataclasses.asdict(model.config), "weights_hash": "0" * 32}
    (directory / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("config", [MLA, TIED], ids=lambda config: config.name)
def test_directories_of_tenth_0_2_are_read(tmp_path, config):
    model = model_of(config)
    as_0_2_wrote_it(tmp_path, model)
    back = load_model(tmp_path, dtype=torch.float32)
    assert back.config == config
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_without_its_draft_module_comes_back_without(tmp_path):
    model = model_of(MLA)
    save_model(tmp_path, model, keep_mtp=False)
    back = load_model(tmp_path, dtype=torch.float32)
    assert back.config == dataclasses.replace(MLA, num_nextn_predict_layers=0)
    assert torch.equal(back(IDS), model(IDS))


def test_a_checkpoint_whose_draft_module_another_tool_dropped_is_read(tmp_path):
    save_model(tmp_path, model_of(MLA))
    rewrite(tmp_path, {name: t for name, t in tensors_in(tmp_path).items() if "layers.2." not in name})
    assert load_model(tmp_path, dtype=torch.float32).config.num_nextn_predict_layers == 0


def test_fp8_loads_as_its_dequantised_numbers_bit_for_bit(tmp_path):
    save_model(tmp_path / "fp8", model_of(MLA), fp8=True)
    values = json.loads((tmp_path / "fp8" / "config.json").read_text())
    assert values["quantization_config"]["weight_block_size"] == [128, 128]
    plain = {}
    for name, tensor in (stored := tensors_in(tmp_path / "fp8")).items():
        scale = stored.get(f"{name}_scale_inv")
        if not name.endswith("_scale_inv"):
            plain[name] = tensor if scale is None else tensor.float() * scale  # one block: all are small
    values.pop("quantization_config")
    save_model(tmp_path / "plain", model_of(MLA))
    rewrite(tmp_path / "plain", plain)
    for dtype in (torch.float32, torch.bfloat16):
        found = load_model(tmp_path / "fp8", dtype=dtype).state_dict()
        expected = load_model(tmp_path / "plain", dtype=dtype).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_only_projections_are_stored_in_fp8(tmp_path):
    save_model(tmp_path, model_of(MLA), fp8=True)
    dtypes = {name: tensor.dtype for name, tensor in tensors_in(tmp_path).items()}
    fp8 = {name for name, dtype in dtypes.items() if dtype == torch.float8_e4m3fn}
    assert {name.rsplit(".", 2)[-2] for name in fp8} == {
        *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert dtypes["model.layers.1.mlp.gate.e_score_correction_bias"] == torch.float32
    assert dtypes["model.layers.2.eh_proj.weight"] == dtypes["lm_head.weight"] == torch.bfloat16


def test_what_ends_an_answer_is_told_to_other_tools(tmp_path):
    tokenizer = train_bpe(["a"], vocab_size=267)
    save_model(tmp_path, model_of(TIED), tokenizer=tokenizer)
    expected = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    for name in ("config.json", "generation_config.json"):
        assert expected.items() <= json.loads((tmp_path / name).read_text()).items()


def test_a_card_becomes_the_readme(tmp_path):
    card = ModelCard(name="little", licence="mit", base_model="a/b", scores={"sums": 0.5})
    save_model(tmp_path, model_of(TIED), card=card)
    assert (tmp_path / "README.md").read_text() == card.to_markdown()
