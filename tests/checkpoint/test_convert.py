"""Conversions: every way between the formats, what comes along beside the weights, and nothing left half."""

import dataclasses
import errno
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tenth.base.errors import CheckpointError, ConfigError
from tenth.checkpoint import convert as convert_module
from tenth.checkpoint.block_fp8 import dequantise_blocks
from tenth.checkpoint.convert import convert
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.opened import open_checkpoint
from tenth.checkpoint.peft import save_adapter
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.lora import LoraConfig, attach_lora, lora_parameters, merge_lora
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.chat import Template
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(["What is 3+45?\nthe answer is 48"] * 3, vocab_size=280)
LATENT = ModelConfig(
    name="little",
    vocab_size=TOKENIZER.vocab_size + 8,
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
    LATENT,
    name="dense",
    mla=None,
    moe=None,
    num_nextn_predict_layers=0,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    tie_word_embeddings=True,
)
STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints" / "stories260K"


def model_of(config: ModelConfig) -> Transformer:
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(0))


def saved(directory: Path, config: ModelConfig, **settings) -> Path:
    """A directory with everything beside its weights, and a program that nobody asked for."""
    save_model(directory, model_of(config), tokenizer=TOKENIZER, template=Template.DEEPSEEK, **settings)
    (directory / "LICENSE").write_text("free")
    (directory / "README.md").write_text("# little")
    (directory / "modeling.py").write_text("raise SystemExit")
    return directory


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path, dtype=torch.float32).state_dict()


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# from format to format


@pytest.mark.parametrize("config", [LATENT, DENSE], ids=["latent", "dense"])
def test_a_directory_becomes_the_same_model_in_many_files(tmp_path, config):
    source = saved(tmp_path / "a", config)
    done = convert(source, tmp_path / "b", max_shard_bytes=30_000)
    assert (tmp_path / "b" / "model.safetensors.index.json").exists()
    assert_same(state(tmp_path / "b"), state(source))
    assert done.num_bytes == sum(file.stat().st_size for file in (tmp_path / "b").iterdir())
    assert open_checkpoint(tmp_path / "b").config == config


def test_a_directory_becomes_a_gguf_file_and_comes_back(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    convert(source, tmp_path / "b.gguf", dtype="f32")
    convert(tmp_path / "b.gguf", tmp_path / "c")
    assert_same(state(tmp_path / "c"), state(source))
    text = "What is <think> 48"
    assert Tokenizer.load(tmp_path / "c").encode(text) == TOKENIZER.encode(text)
    assert json.loads((tmp_path / "c" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.skipif(not STORIES.exists(), reason="the optional ../shared/data is not here")
def test_a_real_llama2c_file_becomes_a_directory_with_its_vocabulary(tmp_path):
    convert(STORIES / "stories260K.bin", tmp_path / "b")
    assert_same(state(tmp_path / "b"), state(STORIES / "stories260K.bin"))
    assert Tokenizer.load(tmp_path / "b").eos_ids == (1, 2)
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text())["eos_token_id"] == [1, 2]


def test_experts_in_one_tensor_are_written_one_by_one(tmp_path):
    source = saved(tmp_path / "a", LATENT)
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    prefix = "model.layers.1.mlp.experts."
    gates = [
        torch.cat([tensors.pop(f"{prefix}{e}.{part}_proj.weight") for part in ("gate", "up")])
        for e in range(4)
    ]
    tensors[f"{prefix}gate_up_proj"] = torch.stack(gates)
    tensors[f"{prefix}down_proj"] = torch.stack(
        [tensors.pop(f"{prefix}{e}.down_proj.weight") for e in range(4)]
    )
    safetensors.torch.save_file(tensors, source / "model.safetensors")
    convert(source, tmp_path / "b")
    names = open_checkpoint(tmp_path / "b").stored
    assert f"{prefix}3.up_proj.weight" in names
    assert f"{prefix}gate_up_proj" not in names
    assert_same(state(tmp_path / "b"), state(source))


# types


def test_the_type_is_kept_unless_another_is_asked_for(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    for dtype, name in ((None, "float32"), ("bf16", "bfloat16")):
        convert(source, tmp_path / name, dtype=dtype)
        assert {str(info.dtype) for info in open_checkpoint(tmp_path / name).stored.values()} == {
            f"torch.{name}"
        }
        assert json.loads((tmp_path / name / "config.json").read_text())["torch_dtype"] == name


def test_the_bias_that_chooses_experts_stays_float32(tmp_path):
    convert(saved(tmp_path / "a", LATENT), tmp_path / "b", dtype="bf16")
    stored = open_checkpoint(tmp_path / "b").stored
    assert stored["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32
    assert stored["model.layers.1.mlp.gate.weight"].dtype == torch.bfloat16


def test_fp8_codes_that_stay_fp8_are_copied_bit_for_bit_and_come_back_as_plain_numbers(tmp_path):
    source = saved(tmp_path / "a", LATENT, fp8=True)
    convert(source, tmp_path / "b", dtype="fp8")
    before, after = (
        safetensors.torch.load_file(path / "model.safetensors") for path in (source, tmp_path / "b")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8)) for name in before)
    convert(source, tmp_path / "c", dtype="f32")
    name = "model.layers.0.self_attn.q_b_proj.weight"
    plain = safetensors.torch.load_file(tmp_path / "c" / "model.safetensors")
    assert torch.equal(plain[name], dequantise_blocks(before[name], before[f"{name}_scale_inv"]))
    assert "quantization_config" not in json.loads((tmp_path / "c" / "config.json").read_text())


def test_plain_numbers_become_fp8_as_saving_makes_it(tmp_path):
    convert(saved(tmp_path / "a", LATENT), tmp_path / "b", dtype="fp8")
    wanted = saved(tmp_path / "c", LATENT, fp8=True)
    assert_same(state(tmp_path / "b"), state(wanted))
    values = json.loads((tmp_path / "b" / "config.json").read_text())
    assert values["quantization_config"]["weight_block_size"] == [128, 128]


# draft layers and adapters


def test_draft_layers_are_kept_or_dropped(tmp_path):
    source = saved(tmp_path / "a", LATENT)
    convert(source, tmp_path / "kept")
    convert(source, tmp_path / "dropped", keep_mtp=False)
    assert open_checkpoint(tmp_path / "kept").stored.keys() == open_checkpoint(source).stored.keys()
    dropped = open_checkpoint(tmp_path / "dropped")
    assert dropped.config.num_nextn_predict_layers == 0
    assert not [name for name in dropped.stored if name.startswith("model.layers.2.")]


def test_an_adapter_is_merged_on_the_way(tmp_path):
    model = model_of(DENSE)
    save_model(tmp_path / "a", model, tokenizer=TOKENIZER)
    attach_lora(
        model,
        LoraConfig(rank=2, alpha=4.0, targets=("q_proj", "down_proj")),
        generator=torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    save_adapter(tmp_path / "lora", model, base_model="a")
    assert not convert(tmp_path / "a", tmp_path / "b", adapter=tmp_path / "lora").warnings
    merge_lora(model)
    merged = model.state_dict()
    for name, tensor in state(tmp_path / "b").items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=1e-5)
    (tmp_path / "b").rename(tmp_path / "other")
    (warning,) = convert(tmp_path / "other", tmp_path / "c", adapter=tmp_path / "lora").warnings
    assert "says that it was trained on a" in warning


# what lies beside the weights


def test_what_lies_beside_the_weights_comes_along_and_programs_do_not(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    done = convert(source, tmp_path / "b")
    assert done.warnings == ()
    names = {file.name for file in (tmp_path / "b").iterdir()}
    beside = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"}
    assert names == beside | {"LICENSE", "README.md", "config.json", "model.safetensors"}
    for name in beside | {"LICENSE", "README.md"}:
        assert (tmp_path / "b" / name).read_bytes() == (source / name).read_bytes()


def test_a_checkpoint_without_a_tokenizer_is_converted_with_a_warning(tmp_path):
    save_model(tmp_path / "a", model_of(DENSE))
    done = convert(tmp_path / "a", tmp_path / "b")
    assert "has no tokenizer beside its weights" in done.warnings[0]


def test_keys_of_the_configuration_that_nobody_here_knows_are_kept(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    values = json.loads((source / "config.json").read_text())
    added = {"pretraining_tp": 1, "auto_map": {"AutoConfig": "evil.Config"}}
    (source / "config.json").write_text(json.dumps(values | added))
    convert(source, tmp_path / "b")
    written = json.loads((tmp_path / "b" / "config.json").read_text())
    assert written["pretraining_tp"] == 1
    assert "auto_map" not in written


def test_a_link_out_of_the_directory_is_not_followed(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    (source / "LICENSE.txt").symlink_to(tmp_path / "secret" / "key")
    with pytest.raises(CheckpointError, match=r"LICENSE\.txt is a link to .*key, outside the directory"):
        convert(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


# nothing half


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path):
    source = tmp_path / "a"
    save_model(source, model_of(dataclasses.replace(DENSE, vocab_size=100)), tokenizer=TOKENIZER)
    with pytest.raises(CheckpointError, match="280 tokens and the embedding only 100 rows"):
        convert(source, tmp_path / "b")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_stops_the_conversion_and_is_named(tmp_path, value):
    source = saved(tmp_path / "a", DENSE)
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 3] = value
    safetensors.torch.save_file(tensors, source / "model.safetensors")
    for target in ("b", "b.gguf"):
        with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.down_proj\.weight"):
            convert(source, tmp_path / target)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("name", ["q_b_proj.weight", "q_b_proj.weight_scale_inv"])
def test_fp8_that_is_copied_is_looked_at_too(tmp_path, name):
    source = saved(tmp_path / "a", LATENT, fp8=True)
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    tensors[f"model.layers.0.self_attn.{name}"].view(torch.uint8)[0, :4] = 0xFF  # NaN, as codes and as scales
    safetensors.torch.save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{name}' .* holds NaN"):
        convert(source, tmp_path / "b", dtype="fp8")


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch, failure):
    source = saved(tmp_path / "a", DENSE)

    class Failing(convert_module.HfWriter):
        def add(self, name, tensor, **options):
            super().add(name, tensor, **options)
            if "layers.1." in name:
                raise failure

    monkeypatch.setattr(convert_module, "HfWriter", Failing)
    with pytest.raises((CheckpointError, KeyboardInterrupt), match=r"No space left|^$"):
        convert(source, tmp_path / "b")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]


def test_nothing_is_written_over_or_into_what_is_read(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    (tmp_path / "there.gguf").write_text("mine")
    for target in (source, tmp_path / "there.gguf"):
        with pytest.raises(CheckpointError, match="exists; name another place"):
            convert(source, target)
    with pytest.raises(CheckpointError, match="would lie inside"):
        convert(source, source / "b")
    assert (tmp_path / "there.gguf").read_text() == "mine"


@pytest.mark.parametrize(
    ("target", "dtype", "reason"),
    [
        ("b", "q8_0", "not written to a Hugging Face directory; choose one of f32, bf16, fp8"),
        ("b.gguf", "fp8", "not written to a GGUF file; choose one of f32, bf16, q8_0, q4_0"),
        ("b.safetensors", None, "is the name of a file"),
    ],
)
def test_a_type_or_a_name_that_cannot_be_written_is_refused(tmp_path, target, dtype, reason):
    with pytest.raises(ConfigError, match=reason):
        convert(tmp_path / "a", tmp_path / target, dtype=dtype)


def test_a_part_that_is_missing_is_found_before_anything_is_written(tmp_path):
    source = saved(tmp_path / "a", DENSE)
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing \(first: 'model\.norm\.weight'\)"):
        convert(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_progress_ends_at_the_whole(tmp_path):
    heard: list[tuple[int, int]] = []
    convert(saved(tmp_path / "a", LATENT), tmp_path / "b", on_progress=lambda *each: heard.append(each))
    done = [each for each, _ in heard]
    assert done == sorted(done)
    assert heard[-1][0] == heard[-1][1]
