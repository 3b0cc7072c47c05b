"""What is said of a checkpoint without reading it: groups of tensors, what is missing, what lies beside."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch
from test_convert import DENSE, LATENT, TOKENIZER, model_of, saved

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint.convert import convert
from tenth.checkpoint.inspection import group_tensors, inspect_checkpoint
from tenth.checkpoint.model_dir import save_model
from tenth.checkpoint.names import expected_hf
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.presets import preset
from tenth.model.quantize import quantize_model


def test_the_largest_published_model_fits_a_screen():
    shapes = expected_hf(preset("v3-671b"), mtp=True)
    groups = group_tensors(
        {name: TensorInfo(dtype=torch.bfloat16, shape=shape) for name, shape in shapes.items()}
    )
    assert len(shapes) > 45_000
    assert len(groups) < 40
    (gates,) = (group for group in groups if group.pattern.endswith(".experts.*.gate_proj.weight"))
    # 58 layers of experts and the draft layer, 256 in each, 2048 x 7168
    assert (gates.count, gates.shapes) == (59 * 256, ((2048, 7168),))
    assert gates.num_bytes == 59 * 256 * 2048 * 7168 * 2


def test_scales_count_as_bytes_of_their_matrix(tmp_path):
    found = inspect_checkpoint(saved(tmp_path / "a", LATENT, fp8=True))
    (group,) = (group for group in found.groups if group.pattern.endswith("q_a_proj.weight"))
    # 2 layers and the draft layer: 32 x 32 codes of a byte, one scale of four bytes
    assert (group.count, group.dtypes, group.num_bytes) == (3, ("fp8",), 3 * (32 * 32 + 4))
    assert not [group for group in found.groups if "scale" in group.pattern]


@pytest.mark.parametrize(("config", "family"), [(LATENT, "deepseek_v3"), (DENSE, "llama")])
def test_a_whole_directory_misses_nothing(tmp_path, config, family):
    found = inspect_checkpoint(saved(tmp_path / "a", config))
    assert (found.format, found.family, found.config) == ("safetensors", family, config)
    assert (found.fit.missing, found.fit.unexpected, found.fit.misshapen) == ((), (), ())
    assert found.has_mtp == (config is LATENT)
    assert found.tokenizer.startswith("BPE over bytes, 280 tokens, begins <｜begin▁of▁sentence｜> (0), ends ")
    assert found.template == "tenth's deepseek"


def test_what_is_missing_unexpected_or_misshapen_is_listed(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.extra.weight"] = torch.zeros(2)
    tensors["model.layers.1.input_layernorm.weight"] = torch.zeros(31)
    safetensors.torch.save_file(tensors, source / "model.safetensors")
    fit = inspect_checkpoint(source).fit
    assert fit.missing == ("model.norm.weight",)
    assert fit.unexpected == ("model.layers.0.extra.weight",)
    assert fit.misshapen == ("model.layers.1.input_layernorm.weight is (31,) and not (32,)",)


def test_dropped_draft_layers_are_not_missing(tmp_path):
    convert(saved(tmp_path / "a", LATENT), tmp_path / "b", keep_mtp=False)
    found = inspect_checkpoint(tmp_path / "b")
    assert not found.has_mtp
    assert found.fit.missing == ()


def test_our_own_codes_are_shown_under_our_own_names(tmp_path):
    model = quantize_model(model_of(dataclasses.replace(DENSE, tie_word_embeddings=False)), 8)
    save_model(tmp_path / "a", model, tokenizer=TOKENIZER)
    found = inspect_checkpoint(tmp_path / "a")
    assert (found.format, found.fit) == ("tenth's own codes", None)
    assert "layers.*.attention.qkv" in " ".join(group.pattern for group in found.groups)


def test_a_tokenizer_or_template_that_cannot_be_used_is_said_and_the_rest_is_shown(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    (source / "chat_template.jinja").write_bytes(b"\xff")
    assert inspect_checkpoint(source).template.startswith("cannot be used: ")
    (source / "tokenizer.json").write_text("{")
    found = inspect_checkpoint(source)
    assert found.tokenizer.startswith("cannot be used: ")
    assert found.fit.missing == ()


def test_an_unknown_architecture_says_which_are_known(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    values = json.loads((source / "config.json").read_text())
    values |= {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (source / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"'MambaForCausalLM' .* is not known; known: .*LlamaForCausalLM"):
        inspect_checkpoint(source)


def test_a_pickle_is_refused_with_the_reason(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    (source / "model.safetensors").unlink()
    torch.save({}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is a pickle, and reading one runs whatever program it holds"):
        inspect_checkpoint(source)
