import dataclasses
import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tenth.base.errors import CheckpointError, TenthError
from tenth.checkpoint.model_dir import load_config, load_model, save_model
from tenth.checkpoint.names import expected_hf
from tenth.checkpoint.opened import open_checkpoint
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.quantize import quantize_model
from tenth.model.transformer import Transformer, initialise

CONFIG = ModelConfig(
    name="little",
    vocab_size=24,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    mla=MlaConfig(q_lora_rank=32, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16),
    moe=MoeConfig(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=32),
    num_nextn_predict_layers=1,
    max_position_embeddings=64,
)
DENSE = dataclasses.replace(
    CONFIG,
    name="dense",
    mla=None,
    moe=None,
    num_nextn_predict_layers=0,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
)


def model_of(config: ModelConfig) -> Transformer:
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(0))


def change_config(directory: Path, **changed: object) -> None:
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, **changed}))


def test_a_directory_is_opened_without_reading_a_tensor(tmp_path):
    save_model(tmp_path, model_of(CONFIG))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "safetensors"
    assert checkpoint.config == CONFIG
    assert checkpoint.has_mtp
    assert {name: info.shape for name, info in checkpoint.stored.items()} == expected_hf(CONFIG, mtp=True)


def test_fp8_is_shown_as_it_is_stored_and_read_as_plain_numbers(tmp_path):
    save_model(tmp_path, model_of(CONFIG), fp8=True)
    checkpoint, name = open_checkpoint(tmp_path), "model.layers.0.self_attn.o_proj.weight"
    assert checkpoint.stored[name].dtype == torch.float8_e4m3fn
    assert checkpoint.stored[f"{name}_scale_inv"].shape == (1, 1)
    assert checkpoint.source.infos()[name].dtype == checkpoint.source.read(name).dtype == torch.float32
    assert f"{name}_scale_inv" not in checkpoint.source.infos()


def test_a_directory_of_tenth_0_2_shows_hugging_face_names(tmp_path):
    model = model_of(CONFIG)
    save_model(tmp_path, model)
    expected = {
        name: open_checkpoint(tmp_path).source.read(name).clone() for name in expected_hf(CONFIG, mtp=True)
    }
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.has_mtp
    for name in checkpoint.source.infos():
        assert torch.equal(checkpoint.source.read(name), expected[name])


def test_a_quantised_directory_of_ours_is_one_sentence(tmp_path):
    save_model(tmp_path, quantize_model(model_of(DENSE), 8))
    with pytest.raises(
        CheckpointError, match="made for tenth's own kernels; name the model that it was made"
    ):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("described", [{"quant_method": "awq"}, {"quant_method": "fp8"}, "odd", [1]])
def test_another_tools_quantisation_is_one_sentence(tmp_path, described):
    save_model(tmp_path, model_of(DENSE))
    if described == {"quant_method": "fp8"}:
        described = {**described, "weight_block_size": [64, 64]}
    change_config(tmp_path, quantization_config=described)
    with pytest.raises(CheckpointError, match=r"are not read, only FP8 in blocks of \[128, 128\]"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "m.pth"]
)
def test_a_directory_of_pickles_is_refused_with_the_way_to_convert(tmp_path, name):
    save_model(tmp_path, model_of(DENSE))
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    with pytest.raises(
        CheckpointError, match=f"{name} is a pickle, .* runs whatever program .*save_pretrained"
    ):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model"])
def test_a_file_that_is_a_pickle_is_refused_whatever_its_name(tmp_path, name, is_zip):
    torch.save({"a": torch.ones(2)}, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=f"{name} is a pickle"):
        open_checkpoint(tmp_path / name)


def test_safetensors_beside_pickles_are_read(tmp_path):
    save_model(tmp_path, model_of(DENSE))
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x04.")
    assert open_checkpoint(tmp_path).config == DENSE


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nothing", "is no file and no directory"), ("model.safetensors", "name a Hugging Face directory")],
)
def test_a_path_that_is_no_checkpoint_is_one_sentence(tmp_path, name, sentence):
    save_model(tmp_path, model_of(DENSE))
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(tmp_path / name)


def test_an_unknown_architecture_is_one_sentence_that_says_which_are_known(tmp_path):
    save_model(tmp_path, model_of(DENSE))
    change_config(tmp_path, architectures=["MambaForCausalLM"], model_type="mamba")
    with pytest.raises(TenthError, match=r"MambaForCausalLM.* known.*DeepseekV3ForCausalLM"):
        load_config(tmp_path)


def test_a_config_with_any_bytes_changed_is_read_or_refused(tmp_path):
    save_model(tmp_path, model_of(DENSE))
    path, rng = tmp_path / "config.json", random.Random(0)
    original = path.read_bytes()
    for _ in range(100):
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[start] = rng.choice(b'0123456789[]{},:"-e')
            else:
                del data[start : start + rng.randint(1, 30)]
        path.write_bytes(data)
        with suppress(TenthError):
            load_model(tmp_path, dtype=torch.float32)
