"""`tenth distill` as it is typed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_rl import typed  # noqa: F401  the same person's directory
from tune_models import sums, without_answers, write_rows

from tenth.checkpoint.model_dir import load_model

sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint"))
from server import Server


@pytest.fixture
def files(tmp_path):
    write_rows(tmp_path / "tasks.jsonl", sums())
    write_rows(tmp_path / "prompts.jsonl", without_answers())


@pytest.mark.usefixtures("files")
def test_an_address_a_model_and_a_file_are_all_that_must_be_said(typed, tmp_path, monkeypatch):  # noqa: F811
    answers = {row["prompt"]: row["answer"] for row in sums()}
    with Server(answer=lambda messages: ("So.", answers[messages[-1]["content"]])) as server:
        monkeypatch.setenv("SOME_KEY", server.key)
        endpoint = ("--model", "reasoner", "--key-env", "SOME_KEY", "--prices", "0.14/0.55/2.19")
        command = ("distill", server.url, "small", "--tasks", "tasks.jsonl", *endpoint, "--plain")
        done = typed(*command, "--lr", "0.01", "--steps", "3")
        num_requests = len(server.requests)
        again = typed(*command, "--lr", "0.01", "--steps", "3")
        assert len(server.requests) == num_requests == 30
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("reasoner: 30 of 30 answers are kept (dropped: none, $0.") for line in lines)
    (loss,) = (line.split()[-2:] for line in lines if line.startswith("loss, nats per token"))
    assert float(loss[1]) < float(loss[0])
    assert lines[-2] == "The model is in runs/small-distill/model."
    assert lines[-1] == f"The teacher's answers cost ${server.usd:.4f}."
    assert again.stdout.splitlines()[-4:] == lines[-4:]
    load_model(tmp_path / "runs" / "small-distill" / "model", dtype=torch.float32)
    assert server.key not in "".join(
        path.read_text(errors="replace")
        for path in (tmp_path / "runs").rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", ".md")
    )


@pytest.mark.usefixtures("files")
def test_a_local_teacher_and_a_preset_learn_by_distributions(typed, tmp_path):  # noqa: F811
    done = typed(
        *("distill", "small", "nano-student", "--prompts", "prompts.jsonl", "--kind", "on-policy"),
        *("--steps", "2", "--out", "near", "--plain", "max_completion_length=9", "batch_size=4"),
    )
    assert done.returncode == 0, done.stderr
    assert "KL to the teacher, nats per token" in done.stdout
    recipe = json.loads((tmp_path / "near" / "recipe.json").read_text())
    assert (recipe["method"], recipe["learning_rate"], recipe["lr_floor"]) == ("on-policy", 1e-4, 0.1)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("small", "small", "--prompts", "a", "--tasks", "b"), "give one of --prompts FILE"),
        (("small", "nobody", "--prompts", "prompts.jsonl"), "there is no model at nobody, and no preset"),
        (("http://127.0.0.1:9/v1", "small", "--prompts", "prompts.jsonl"), "name one with --model"),
        (("small", "small", "--prompts", "prompts.jsonl", "--kind", "words"), "method = 'words'"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_begins_no_run(typed, tmp_path, arguments, sentence):  # noqa: F811
    done = typed("distill", *arguments, "--out", "run")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "run" / "recipe.json").exists()
