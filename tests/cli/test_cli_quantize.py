import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tenth.base.errors import CheckpointError, ConfigError, DataError
from tenth.checkpoint.model_dir import load_quantisation, save_model
from tenth.cli.main import commands
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.train import train_bpe

TEXT = "User: What is 3+4?\nAssistant:<answer>7</answer>"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model directory with its tokenizer."""
    tokenizer = train_bpe([TEXT] * 20, vocab_size=300)
    config = ModelConfig(
        name="little",
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=32),
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    directory = tmp_path_factory.mktemp("made") / "m"
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=tokenizer)
    return directory


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, ["quantize", *map(str, arguments)])


def test_the_new_model_stands_beside_the_old_one_and_says_its_bits(made):
    done = run(made)
    assert done.exit_code == 0, done.output
    assert load_quantisation(made.with_name("m-8bit")).bits == 8


def test_sizes_and_bits_per_weight_are_printed(made, tmp_path):
    # four bits, and eight in the table, which is the head as well and here almost half of the weights
    done = run(made, tmp_path / "small", "--bits", 4)
    assert done.exit_code == 0, done.output
    assert re.search(r"KiB -> \S*small: [\d.]+ KiB \(\d\d%\), 6\.\d\d bits per weight", done.output)
    assert "divergence" not in done.output


def test_with_a_text_the_loss_is_printed(made, tmp_path):
    (tmp_path / "text").write_text(TEXT * 20)
    done = run(made, tmp_path / "small", "--bits", 4, "--text", tmp_path / "text")
    assert done.exit_code == 0, done.output
    assert re.search(
        r"on [\d,]+ tokens: KL divergence [\de.-]+ nats per token \(99th percentile [\de.-]+\), "
        r"same likeliest token \d\d\.\d\d%",
        done.output,
    )


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (["{made}", "{new}", "--bits", "5"], ConfigError, "--bits 5 is not known; choose 8 or 4"),
        (["{new}"], CheckpointError, "is no model directory"),
        (["{made}", "{made}"], CheckpointError, "m exists; name another directory, or remove it first"),
        (["{made}", "{new}", "--text", "{new}"], DataError, "could not read .*name a text file in UTF-8"),
        (["{made}", "{new}", "--text", "{made}"], DataError, "could not read .*name a text file in UTF-8"),
        (["{made}", "{new}", "--text", "/dev/null"], DataError, "/dev/null is empty"),
    ],
    ids=["bits", "nothing", "itself", "no text", "a directory", "empty"],
)
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_written(
    made, tmp_path, arguments, error, sentence
):
    done = run(*(argument.format(made=made, new=tmp_path / "new") for argument in arguments))
    assert isinstance(done.exception, error)
    assert re.search(sentence, str(done.exception))
    assert not list(tmp_path.iterdir())
