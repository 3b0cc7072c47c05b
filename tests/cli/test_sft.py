"""`tenth sft` as it is typed."""

import json

import pytest
import torch
from test_rl import typed  # noqa: F401  the same person's directory
from tune_models import sums, write_rows

from tenth.checkpoint.model_dir import load_model


@pytest.fixture
def data(tmp_path):
    rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in sums()]
    write_rows(tmp_path / "pairs.jsonl", rows)


@pytest.mark.usefixtures("data")
def test_a_model_and_a_file_are_all_that_must_be_said(typed, tmp_path):  # noqa: F811
    done = typed("sft", "small", "--data", "pairs.jsonl", "--steps", "3", "--lr", "0.01", "--plain")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "runs/small-sft: 3 steps × 16 examples, drawn from 27; "
        "3 others are set aside and measured before and after."
    )
    (loss,) = (line.split()[-2:] for line in lines if line.startswith("loss, nats per token"))
    assert float(loss[1]) < float(loss[0])
    assert lines[-1] == "The model is in runs/small-sft/model."
    load_model(tmp_path / "runs" / "small-sft" / "model", dtype=torch.float32)


@pytest.mark.usefixtures("data")
def test_an_adapter_may_be_asked_for_and_has_a_rate_of_its_own(typed, tmp_path):  # noqa: F811
    done = typed("sft", "small", "--data", "pairs.jsonl", "--steps", "1", "--lora", "2", "--out", "adapted")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adapted" / "model" / "adapter_model.safetensors").exists()
    recipe = json.loads((tmp_path / "adapted" / "recipe.json").read_text())
    assert (recipe["lora_rank"], recipe["learning_rate"]) == (2, 2e-4)


@pytest.mark.usefixtures("data")
def test_epochs_and_steps_contradict_each_other(typed):  # noqa: F811
    done = typed("sft", "small", "--data", "pairs.jsonl", "--steps", "1", "--epochs", "2")
    assert (done.returncode, done.stderr) == (
        1,
        "--epochs 2 and --steps 1 both say how long; give one of them.\n",
    )
