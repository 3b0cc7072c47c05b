import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tenth.base.errors import CheckpointError, ConfigError, TenthError
from tenth.checkpoint.model_dir import (
    has_interleaved_rope,
    load_config,
    load_model,
    load_quantisation,
    save_model,
)
from tenth.checkpoint.quantized_dir import quantize_directory
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.quantize import Quantisation, quantisation_of, quantize_model
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.train import train_bpe

MLA = ModelConfig(
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
    initializer_range=0.2,
)
TIED = dataclasses.replace(
    MLA,
    name="tied",
    mla=None,
    moe=None,
    num_nextn_predict_layers=0,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
    tie_word_embeddings=True,
)
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def model_of(config: ModelConfig) -> Transformer:
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    save_model(tmp_path / "m", model_of(TIED), tokenizer=train_bpe(["a"], vocab_size=267))
    return tmp_path / "m"


def rewrite(directory: Path, **changed: torch.Tensor) -> None:
    """As another tool would: other weights, and no checksums of ours."""
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file({**tensors, **changed}, directory / "model.safetensors")


# a quantised model as a directory


@pytest.mark.parametrize("is_interleaved", [True, False])
def test_a_quantised_model_takes_the_adapters_of_the_model_it_was_made_from(tmp_path, is_interleaved):
    save_model(tmp_path / "m", model_of(MLA))
    values = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(values | {"rope_interleave": is_interleaved}))
    quantize_directory(tmp_path / "m", tmp_path / "q", bits=8)
    assert has_interleaved_rope(tmp_path / "q") == has_interleaved_rope(tmp_path / "m") == is_interleaved


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("config", [MLA, TIED], ids=lambda config: config.name)
def test_a_quantised_model_comes_back_bit_for_bit(tmp_path, config, bits):
    model = quantize_model(model_of(config), bits)
    save_model(tmp_path / "m", model)
    back = load_model(tmp_path / "m", dtype=torch.float32)
    assert quantisation_of(back) == load_quantisation(tmp_path / "m") == Quantisation(bits=bits)
    assert back.config == config == load_config(tmp_path / "m")
    found, expected = back.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == tensor.dtype for name, tensor in expected.items())
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    ids = torch.tensor([IDS])
    assert torch.equal(back.logits(back(ids)), model.logits(model(ids)))


def test_tensors_are_named_as_the_modules_name_them(tmp_path):
    save_model(tmp_path, quantize_model(model_of(TIED), 4))
    names = set(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert {
        "embed.codes",
        "embed.scales",
        "layers.0.attention.qkv.codes",
        "layers.0.attention.qkv.bias",
    } < names
    assert "embed.weight" not in names


def test_config_json_says_how_the_matrices_are_stored(tmp_path):
    save_model(tmp_path, quantize_model(model_of(TIED), 4))
    assert json.loads((tmp_path / "config.json").read_text())["tenth"]["quantisation"] == {
        "bits": 4,
        "head_bits": 8,
        "group": 32,
    }


def test_config_json_names_a_method_that_no_other_tool_has(tmp_path):
    save_model(tmp_path, quantize_model(model_of(TIED), 4))
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["quantization_config"] == {"quant_method": "tenth"}


def test_a_flipped_bit_is_noticed(tmp_path):
    save_model(tmp_path, quantize_model(model_of(TIED), 4))
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path, dtype=torch.float32)


def test_a_plain_model_says_nothing_about_it(original):
    assert load_quantisation(original) is None
    assert "quantisation" not in json.loads((original / "config.json").read_text())["tenth"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"embed.codes": torch.zeros(24, 16, dtype=torch.uint8)},
            r"'embed.codes' has shape \(24, 16\) and the",
        ),
        ({"embed.scales": torch.zeros(24, 2).half()}, r"'embed.scales' has shape \(24, 2\) and the"),
        (
            {"embed.codes": torch.zeros(24, 32)},
            "'embed.codes' holds torch.float32 and its quantisation asks for",
        ),
        ({"embed.scales": torch.full((24, 1), torch.nan).half()}, "'embed.scales' holds NaN"),
        ({"embed.weight": torch.zeros(24, 32)}, "0 tensors missing .*, 1 not recognised"),
    ],
    ids=["codes", "scales", "dtype", "nan", "extra"],
)
def test_tensors_that_do_not_fit_the_quantisation_are_one_sentence(tmp_path, changed, sentence):
    save_model(tmp_path, quantize_model(model_of(TIED), 4))
    rewrite(tmp_path, **changed)
    with pytest.raises(CheckpointError, match=sentence):
        load_model(tmp_path, dtype=torch.float32)


@pytest.mark.parametrize("values", [{"bits": 3}, {"bits": 4, "group": 64}, {"width": 4}, 4, [4]])
def test_a_quantisation_that_is_not_known_is_one_sentence(tmp_path, values):
    save_model(tmp_path, quantize_model(model_of(TIED), 4))
    path = tmp_path / "config.json"
    described = json.loads(path.read_text())
    described["tenth"]["quantisation"] = values
    path.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=r"the key tenth\.quantisation does not fit"):
        load_model(tmp_path, dtype=torch.float32)


# one directory made from another


def test_the_new_directory_holds_the_quantised_model_and_everything_else(original, tmp_path):
    quantize_directory(original, tmp_path / "small", bits=4)
    back = load_model(tmp_path / "small", dtype=torch.float32)
    expected = quantize_model(model_of(TIED), 4).state_dict()
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in back.state_dict().items()
        if name.endswith(("codes", "scales"))
    )
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_account_is_of_the_files_and_of_the_tensors(original, tmp_path):
    done = quantize_directory(original, tmp_path / "small", bits=8)
    for directory, size in ((original, done.bytes_before), (tmp_path / "small", done.bytes_after)):
        assert size == sum(path.stat().st_size for path in directory.iterdir())
    # table 24 x 32; per layer 64 x 32 (qkv), 32 x 32 (o), 64 x 32, 32 x 32: 13,056 weights of 8.5 bits;
    # 2 x 64 biases of 16 bits and 5 x 32 numbers of norms of 32 bits
    weights, bits = 13056 + 128 + 160, 13056 * 8.5 + 128 * 16 + 160 * 32
    assert done.bits_per_weight == pytest.approx(bits / weights)
    assert done.divergence is None


def test_the_loss_is_measured_on_what_was_written(original, tmp_path):
    four = quantize_directory(original, tmp_path / "four", bits=4, ids=IDS).divergence
    eight = quantize_directory(original, tmp_path / "eight", bits=8, ids=IDS).divergence
    assert four.tokens == eight.tokens == len(IDS)
    assert 0 < eight.kl_mean < four.kl_mean


def test_a_quantised_directory_is_not_quantised_again(original, tmp_path):
    quantize_directory(original, tmp_path / "small", bits=8)
    with pytest.raises(CheckpointError, match=r"small is quantised already \(8 bits\); name the model"):
        quantize_directory(tmp_path / "small", tmp_path / "smaller", bits=4)


@pytest.mark.parametrize("target", ["m", "there"])
def test_nothing_that_exists_is_overwritten(original, tmp_path, target):
    (tmp_path / "there").mkdir()
    before = (original / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=f"{target} exists; name another directory"):
        quantize_directory(original, tmp_path / target, bits=8)
    assert (original / "model.safetensors").read_bytes() == before


def test_a_failure_leaves_no_half_directory(original, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TenthError, match="No space left on device"):
        quantize_directory(original, tmp_path / "small", bits=8)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_directory_that_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="is no model directory"):
        quantize_directory(tmp_path / "nothing", tmp_path / "small", bits=8)


def test_a_model_too_small_for_groups_is_one_sentence(tmp_path):
    save_model(
        tmp_path / "m",
        model_of(dataclasses.replace(TIED, hidden_size=16, num_attention_heads=1, intermediate_size=24)),
    )
    with pytest.raises(ConfigError, match="no matrix whose width is a multiple of 32"):
        quantize_directory(tmp_path / "m", tmp_path / "small", bits=8)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
