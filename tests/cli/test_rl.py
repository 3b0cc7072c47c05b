"""`tenth rl` as it is typed: options, the lines of a terminal, the last table, errors as sentences."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from tune_models import REWARDS, make_model, without_answers, write_rows

from tenth.base.errors import RunError
from tenth.checkpoint.model_dir import load_model
from tenth.cli import main
from tenth.cli.eval_targets import refuse_run

ROOT = Path(__file__).parents[2]
STORIES = ROOT.parent / "shared/data/checkpoints/stories260K/stories260K.bin"
SMALL = ("prompts_per_step=2", "num_generations=2", "max_completion_length=4", "eval_problems=2")


def python(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )


@pytest.fixture
def typed(tmp_path):
    """What somebody has: a model, a file, a reward. Runs `tenth` in their directory."""
    make_model(tmp_path / "small")
    (tmp_path / "mine.py").write_text(REWARDS)
    write_rows(tmp_path / "prompts.jsonl", without_answers())
    return lambda *arguments: python("-m", "tenth.cli.main", *arguments, cwd=tmp_path)


def test_a_model_a_file_and_a_reward_are_all_that_must_be_said(typed, tmp_path):
    command = ("rl", "small", "--tasks", "prompts.jsonl", "--reward", "mine.py:odd_start=0.5", "--steps", "2")
    done = typed(*command, "--plain", *SMALL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "runs/small-rl: each step is 2 prompts × 2 samples = 4 rollouts = 1 minibatch × 4."
    assert lines[1] == "Reward: 0.5 × odd_start."
    assert any(line.startswith("rl ") and "reward" in line for line in lines)
    assert any(line.split()[0:1] == ["odd_start"] for line in lines)
    assert lines[-1] == "The model is in runs/small-rl/model."
    load_model(tmp_path / "runs" / "small-rl" / "model", dtype=torch.float32)
    card = (tmp_path / "runs" / "small-rl" / "model" / "README.md").read_text()
    assert f"tenth {' '.join(command)} --plain" in card
    recipe = json.loads((tmp_path / "runs" / "small-rl" / "recipe.json").read_text())
    assert (recipe["steps"], recipe["learning_rate"], recipe["num_generations"]) == (2, 1e-6, 2)
    listed = typed("runs", "list")
    assert "small-rl" in listed.stdout
    assert typed("report", "small-rl").returncode == 0
    page = (tmp_path / "runs" / "small-rl" / "report.html").read_text()
    assert "Reinforcement learning" in page
    assert page.count("<svg") >= 3  # its curves


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--tasks", "none.jsonl"), "problem file none.jsonl does not exist; check the path."),
        (("--tasks", "prompts.jsonl"), "(the columns are: prompt, wish)."),
        (("--tasks", "prompts.jsonl", "--reward", "mine.py"), "reward 'mine.py' is not file.py:function"),
        (("--tasks", "prompts.jsonl", "--reward", "mine.py:odd_start", "betta=1"), "did you mean 'beta'?"),
    ],
)
def test_what_can_be_mended_is_one_sentence(typed, tmp_path, arguments, sentence):
    done = typed("rl", "small", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs" / "small-rl").exists()


@pytest.mark.skipif(not STORIES.exists(), reason="the trained stories260K is not here")
def test_the_example_reinforces_a_real_model(tmp_path):
    example = ROOT / "examples" / "reinforce_stories.py"
    settings = ("prompts_per_step=2", "max_completion_length=24", "eval_problems=4")
    done = python(example, STORIES, "--steps", "2", "--out", tmp_path / "stories", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "stories" / "01-measure-before" / "scores.json").read_text())
    assert 0 < scores["reward"] < 0.4
    assert load_model(tmp_path / "stories" / "model", dtype=torch.float32).config.vocab_size == 512


@pytest.mark.parametrize("kind", ["rl", "sft"])
def test_ctrl_c_says_what_to_type_to_continue(monkeypatch, tmp_path, kind):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"tenth.pipeline.tune_{kind}.run_{kind}", interrupted)
    monkeypatch.chdir(tmp_path)
    arguments = [kind, "a b", "--tasks" if kind == "rl" else "--data", "x.jsonl", "--lora", "4", "seed=2"]
    monkeypatch.setattr(sys, "argv", ["tenth", *arguments])
    done = CliRunner().invoke(main.commands, arguments)
    assert done.exit_code == 130
    again = shlex.join(["tenth", *arguments])
    assert done.stderr == f"Stopped; all that was saved is kept. To continue: {again}\n"


def test_a_run_in_the_place_of_a_model_is_told_by_the_name_of_its_model(tmp_path):
    run = tmp_path / "story"
    for stage in ("02-base", "04-zero"):
        (run / stage / "model").mkdir(parents=True)
    (run / "run.json").write_text('{"format_version": 1, "name": "story"}')
    (run / "recipe.json").write_text("{}")
    with pytest.raises(RunError, match=f"story is a run, .* name the run's: {run / '04-zero' / 'model'}"):
        refuse_run(run)
    refuse_run(run / "04-zero" / "model")
