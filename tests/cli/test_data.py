import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenth.base.errors import TenthError
from tenth.base.seeds import stream_random
from tenth.cli.data import app
from tenth.tasks.generated import FAMILIES
from tenth.tasks.task import Split, sample_problems


def run(*words):
    """The command as typed; a TenthError is what `tenth` prints as one sentence before it exits with 1."""
    return CliRunner().invoke(app, [str(word) for word in words])


def sentence(result):
    assert isinstance(result.exception, TenthError), result.output
    return str(result.exception)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"document number {n}"}) + "\n" for n in range(20)))
    return path


def test_what_was_prepared_passes_the_check(corpus, tmp_path):
    out = tmp_path / "out"
    result = run("prepare", corpus, "--out", out, "validation_share=0.3")
    assert result.exit_code == 0, result.output
    assert "Not decontaminated" in result.output
    assert run("check", out / "train.jsonl", out / "validation.jsonl").exit_code == 0


def test_a_leak_is_exit_code_one(corpus, tmp_path):
    copy = tmp_path / "b.jsonl"
    copy.write_bytes(corpus.read_bytes())
    result = run("check", corpus, copy)
    assert result.exit_code == 1
    assert "LEAK  in two files: 20 rows" in result.output


def test_nothing_is_overwritten_without_being_said(corpus, tmp_path):
    out = tmp_path / "out"
    assert run("prepare", corpus, "--out", out).exit_code == 0
    before = (out / "card.json").stat().st_mtime_ns
    assert "exists; choose another directory, or add --overwrite" in sentence(
        run("prepare", corpus, "--out", out)
    )
    assert (out / "card.json").stat().st_mtime_ns == before
    assert run("prepare", corpus, "--out", out, "--overwrite").exit_code == 0


def test_somebody_elses_files_are_never_replaced(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "holds 'thesis.txt'" in sentence(run("prepare", corpus, "--out", tmp_path / "mine", "--overwrite"))
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_failure_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    assert "nothing was written" in sentence(run("prepare", tmp_path / "a.jsonl", "--out", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.jsonl"], r"gone\.jsonl is not a file"),
        (["validation_share=0.1"], "no file among"),
        (["a.jsonl", "a.jsonl"], "is named twice"),
        (["a.jsonl", "near_treshold=1"], "unknown key 'near_treshold'; did you mean 'near_threshold'"),
        (["a.jsonl", "validation_share=x"], "validation_share = 'x'"),
        (["a.jsonl", "--against", "gone"], "gone is none of|gone is not a file"),
    ],
)
def test_a_wrong_word_is_answered_with_a_sentence(corpus, monkeypatch, words, message):
    monkeypatch.chdir(corpus.parent)
    result = run("check", *words)
    with pytest.raises(TenthError, match=message):
        raise result.exception


def test_questions_that_a_family_keeps_for_tests_are_found(tmp_path):
    family = FAMILIES["gcd"]
    path = tmp_path / "a.jsonl"
    splits = {}
    for split in Split:
        (problem,) = sample_problems(family, levels=[2], split=split, count=1, seed=0)
        splits[split] = {"task": problem.task, "prompt": problem.prompt, "answer": problem.answer}
    path.write_text("".join(json.dumps(splits[split]) + "\n" for split in Split))
    result = run("check", path)
    assert result.exit_code == 1
    assert "held-out question of a family: 2 rows" in result.output
    assert "gcd keeps this question for dev" in result.output
    path.write_text(json.dumps(splits[Split.TRAIN]) + "\n")
    assert run("check", path).exit_code == 0


def test_a_terminal_is_not_moved_by_what_a_row_says(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "\x1b[2Jx", "rejected": "\x1b[2Jx"}) + "\n")
    assert "\x1b" not in run("check", path).output


def test_killed_in_the_middle_leaves_nothing_and_the_next_run_is_whole(tmp_path):
    rng = stream_random(0, "corpus")
    path = tmp_path / "a.jsonl"
    words = [f"w{n}" for n in range(1000)]
    lines = [json.dumps({"text": " ".join(rng.choices(words, k=200))}) for _ in range(4000)]
    path.write_text("\n".join(lines))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tenth.cli.main", "data", "prepare", str(path), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment)
    while not out.with_name("out.partial").exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not out.exists()
    path.write_text("\n".join(lines[:20]))
    assert run("prepare", path, "--out", out).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]
