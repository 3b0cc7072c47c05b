"""`tenth convert` and `tenth inspect` of checkpoints, as commands: what they print, how they refuse."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from tenth.base.errors import TenthError
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.cli.main import commands
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.chat import Template
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(["What is 3+45?\nthe answer is 48"] * 3, vocab_size=280)
CONFIG = ModelConfig(
    name="little",
    vocab_size=280,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    max_position_embeddings=64,
)


@pytest.fixture
def source(tmp_path) -> Path:
    model = initialise(Transformer(CONFIG), generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "a", model, tokenizer=TOKENIZER, template=Template.ZERO)
    return tmp_path / "a"


def run(*arguments: object):
    return CliRunner().invoke(
        commands, [str(each) for each in arguments], catch_exceptions=False, env={"COLUMNS": "100"}
    )


def refusal(*arguments: object) -> str:
    """The sentence of a refused command."""
    with pytest.raises(TenthError) as raised:
        run(*arguments)
    return str(raised.value)


# convert


def test_converting_says_what_was_written(source, tmp_path):
    done = run("convert", source, tmp_path / "b", "--dtype", "bf16", "--shard-size", "1MB")
    assert done.exit_code == 0
    assert f"{source} -> {tmp_path / 'b'}: " in done.stdout
    ours = load_model(tmp_path / "b", dtype=torch.float32).embed.weight
    assert torch.equal(ours, load_model(source, dtype=torch.bfloat16).embed.weight.float())


def test_a_missing_tokenizer_is_warned_of(source, tmp_path):
    (source / "tokenizer.json").unlink()
    done = run("convert", source, tmp_path / "b")
    assert "warning: " in done.stderr
    assert "has no tokenizer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere", "b"), "is no file and no directory; check the path"),
        (("a", "a"), "exists; name another place"),
        (("a", "b", "--dtype", "q8_0"), "--dtype q8_0 is not written to a Hugging Face directory"),
        (("a", "b", "--shard-size", "12"), "--shard-size 12 is less than 1M"),
        (("a", "b", "--shard-size", "big"), "is no size; write it like 500M"),
        (("a", "b.bin"), "is the name of a file"),
        (("a/config.json", "b"), "is no checkpoint that can be read"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(
    source, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal("convert", *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def damage_shape(directory: Path) -> None:
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(31)
    safetensors.torch.save_file(tensors, directory / "model.safetensors")


def damage_number(directory: Path) -> None:
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    safetensors.torch.save_file(tensors, directory / "model.safetensors")


def damage_file(directory: Path) -> None:
    data = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(data[:-10])


def damage_type(directory: Path) -> None:
    values = json.loads((directory / "config.json").read_text())
    values |= {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (directory / "config.json").write_text(json.dumps(values))


def damage_index(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "../../secret.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def damage_into_pickle(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    torch.save({}, directory / "pytorch_model.bin")


def damage_vocabulary(directory: Path) -> None:
    small = dataclasses.replace(CONFIG, vocab_size=100)
    model = initialise(Transformer(small), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=TOKENIZER)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damage_shape, "do not have the shape that config.json asks for"),
        (damage_number, "'model.norm.weight' (torch.float32) holds NaN"),
        (damage_file, "is cut off"),
        (damage_type, "known: DeepseekV3ForCausalLM"),
        (damage_index, "no safetensors file of this directory"),
        (damage_into_pickle, "is a pickle, and reading one runs whatever program it holds"),
        (damage_vocabulary, "the tokenizer has 280 tokens and the embedding only 100 rows"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence_and_leaves_nothing(source, tmp_path, damage, sentence):
    damage(source)
    message = refusal("convert", source, tmp_path / "b")
    assert sentence in message
    assert "\n" not in message
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


# inspect


def test_a_checkpoint_is_shown_with_its_tensors_and_what_lies_beside(source):
    text = run("inspect", source).stdout
    assert "llama, safetensors: 21 tensors" in text
    assert "model.layers.*.mlp.down_proj" in text
    assert "missing: none" in text
    assert "tokenizer: BPE over bytes, 280 tokens" in text
    assert "template: tenth's zero" in text
    assert "model.layers.1.mlp.down_proj.weight" in run("inspect", source, "--tensors").stdout


def test_the_json_has_the_same(source):
    found = json.loads(run("inspect", source, "--json", "--tensors").stdout)
    assert found["parameters"]["total"] == sum(
        torch.Size(each["shape"]).numel() for each in found["checkpoint"]["every_tensor"].values()
    )
    assert found["checkpoint"]["missing"] == []
    assert found["name"] == "a"


def test_names_of_strangers_cannot_move_the_cursor(source):
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    tensors["\x1b[2Jgone"] = torch.zeros(1)
    safetensors.torch.save_file(tensors, source / "model.safetensors")
    text = run("inspect", source).stdout
    assert "[2Jgone" in text
    assert "\x1b" not in text


def test_a_damaged_checkpoint_is_refused_by_inspect_too(source):
    damage_file(source)
    assert "is cut off" in refusal("inspect", source)
    damage_into_pickle(source)
    assert "is a pickle" in refusal("inspect", source)


def test_the_directory_one_stands_in_is_a_model_like_any_other(source, tmp_path, monkeypatch):
    monkeypatch.chdir(source)
    assert "missing: none" in run("inspect", ".").stdout
    run("export", ".", "--type", "f32")
    assert (tmp_path / "a-f32.gguf").is_file()
    assert load_model(Path(), dtype=torch.float32).config.hidden_size == CONFIG.hidden_size


def test_a_path_that_does_not_exist_is_no_model_and_no_preset(tmp_path):
    assert f"no model is at {tmp_path / 'b'}, and there is no preset" in refusal("inspect", tmp_path / "b")


def test_a_directory_around_a_model_names_the_model_in_it(source, tmp_path):
    for command in (("inspect", tmp_path), ("export", tmp_path), ("quantize", tmp_path)):
        assert refusal(*command).endswith(f"(no config.json in it); name one in it: {source}.")


def test_an_adapter_is_no_model_and_says_how_to_become_one(source, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(source)})
    )
    for command in (("inspect",), ("export",), ("quantize",)):
        assert refusal(*command, tmp_path / "lora").endswith(
            f"merge the two first: tenth convert {source} MERGED --adapter {tmp_path / 'lora'}"
        )


def test_help_does_not_import_torch():
    code = "import sys; import tenth.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
