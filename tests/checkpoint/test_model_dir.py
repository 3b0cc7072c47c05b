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
    """As another tool would: other weights, and no hash of ours."""
    safetensors.torch.save_file(tensors, directory / "model.safetensors")
    values = json.loads((directory / "config.json").read_text())
    del values["tenth"]["weights_hash"]
    (directory / "config.json").write_text(json.dumps(values))


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
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]


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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("norm.weight"), r"1 tensors missing \(first \['norm.weight'\]\), 0 not recognised"),
        (
            lambda t: t.update(extra=torch.zeros(1)),
            r"0 tensors missing .*, 1 not recognised \(first \['extra'\]\)",
        ),
        (
            lambda t: t.update({"norm.weight": torch.zeros(17)}),
            r"'norm.weight' has shape \(17,\) and the configuration asks for \(16,\)",
        ),
        (
            lambda t: t["norm.weight"].fill_(float("nan")),
            "'norm.weight' holds NaN or infinite numbers; use an earlier",
        ),
        (lambda t: t["norm.weight"][3].fill_(-torch.inf), "'norm.weight' holds NaN or infinite numbers"),
    ],
    ids=["missing", "extra", "shape", "nan", "inf"],
)
def test_weights_that_do_not_fit_are_one_sentence_naming_the_file(tmp_path, change, sentence):
    save_model(tmp_path, model_of(TIED))
    tensors = {name: tensor.clone() for name, tensor in tensors_in(tmp_path).items()}
    change(tensors)
    rewrite(tmp_path, tensors)
    with pytest.raises(
        CheckpointError, match=re.escape(str(tmp_path / "model.safetensors")) + ".*" + sentence
    ):
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
        ('{"tenth": {"config": {"name": 3}}}', r"the key tenth.config does not fit"),
        ('{"tenth": {"config": [1]}}', r"the key tenth.config does not fit"),
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
