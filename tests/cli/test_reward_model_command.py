import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenth.base.errors import ConfigError, DataError, RunError
from tenth.cli.main import commands
from tenth.pipeline.reward_scorer import load_scorer
from tenth.tasks.general import preference_pairs, safety_pairs

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from reward_base import write_base

FAST = ["optim.lr=5e-3", "batch_size=32", "epochs=2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model")


def file_of(directory: Path, pairs) -> str:
    path = directory / "pairs.jsonl"
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(commands, ["reward-model", *map(str, arguments)])


def test_preferences_become_a_measured_reward_model_and_the_command_repeated_does_nothing_again(
    base, tmp_path
):
    data, out = file_of(tmp_path, safety_pairs(seed=1, count=60)), tmp_path / "out"
    command = [base, "--data", data, *FAST, "--kind", "safe", "--folds", 3, "--repeats", 1, "--out", out]
    result = run(*command)
    assert result.exit_code == 0, result.exception
    check = json.loads((out / "check.json").read_text())
    names = [each["name"] for each in check["candidates"]]
    assert names == ["longer wins", "shorter wins", "bag of words", "reward model"]
    assert all(len(each["accuracies"]) == 3 for each in check["candidates"])
    assert check["sentence"] in result.output.replace("\n", " ")
    assert load_scorer(out / "safe").facts.kind == "safe"
    assert "fold 3 of 3" in result.output
    assert "fold" not in run(*command).output.replace("3 folds", "")


def test_other_settings_in_the_same_directory_are_refused(base, tmp_path):
    data, out = file_of(tmp_path, preference_pairs(seed=1, count=12)), tmp_path / "out"
    assert run(base, "--data", data, "--folds", 2, "--repeats", 1, "--out", out).exit_code == 0
    other = run(base, "--data", data, "--folds", 2, "--repeats", 2, "--out", out)
    assert isinstance(other.exception, RunError)
    assert "choose another --out" in str(other.exception)


def test_wrong_arguments_are_sentences(base, tmp_path):
    data = file_of(tmp_path, preference_pairs(seed=1, count=5))
    cases = [
        ([base, "--data", data, "--kind", "kind"], ConfigError, "choose helpful or safe"),
        ([base, "--data", tmp_path / "none.jsonl"], DataError, "is not a file"),
        ([base, "--data", data, "nothing=1"], ConfigError, "unknown key 'nothing'"),
        ([base, "--data", data, "--folds", 1], ConfigError, "at least 2 folds"),
    ]
    for arguments, error, words in cases:
        found = run(*arguments, "--out", tmp_path / "out")
        assert isinstance(found.exception, error)
        assert words in str(found.exception)
