"""`tenth eval` as its users meet it: an API beside a model on disk in one table, one sentence when wrong."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenth.base.records import Usage
from tenth.cli.eval_targets import Target, parse_prices
from tenth.cli.main import commands
from tenth.reports.runs import Run, Stage

sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint"))
from server import Server, error

STORIES = (
    Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints" / "stories260K" / "stories260K.bin"
)
KEY = "TENTH_TEST_KEY"
ROWS = [{"input": f"What is {number} and {number}?", "target": 2 * number} for number in range(1, 7)]


def answer(messages):
    """Right for odd numbers."""
    number = int(messages[-1]["content"].split()[2])
    return "hm", f"The answer is \\boxed{{{2 * number if number % 2 else 0}}}."


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "multiarith.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "data"


@pytest.fixture
def server(monkeypatch):
    with Server(answer) as running:
        monkeypatch.setenv(KEY, running.key)
        yield running


def run(*arguments):
    return CliRunner().invoke(commands, ["eval", *map(str, arguments)])


def asked(server, data, out, *more):
    return run(server.url, "--model", "r1", "--key-env", KEY, "--suite", "multiarith", "--data", data,
               "--out", out, "--prices", "0.14/0.55/2.19", *more)  # fmt: skip


def test_an_api_is_measured_with_its_dollars_and_asked_nothing_twice(server, data, tmp_path):
    done = asked(server, data, tmp_path / "out", "--samples", 2)
    assert done.exit_code == 0, done.output
    (score,) = json.loads((tmp_path / "out" / "results.json").read_text())["scores"]
    assert (score["model"], score["suite"], score["accuracy"]) == ("r1", "multiarith", 0.5)
    assert (score["problems"], score["samples"], score["unparsed"]) == (6, 12, 0)
    assert score["usd"] == pytest.approx(server.usd)
    assert server.num_answered == 12
    rows = (tmp_path / "out" / "r1" / "multiarith.jsonl").read_text().splitlines()
    assert len(rows) == 12
    assert server.key not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())

    again = asked(server, data, tmp_path / "out", "--samples", 2)
    assert again.exit_code == 0
    assert server.num_answered == 12
    assert "50.0" in again.output


def test_a_model_that_answers_nothing_ends_in_a_sentence_and_a_failure(data, tmp_path, monkeypatch):
    with Server(script=lambda number, body: error(400)) as broken:
        monkeypatch.setenv(KEY, broken.key)
        done = asked(broken, data, tmp_path / "out", "--limit", 2)
    assert done.exit_code == 1
    assert "not one answer of r1 could be judged" in str(done.exception)
    assert "2 failed, most often" in done.output


def test_a_suite_of_files_asks_for_their_directory(server):
    done = run(server.url, "--model", "r1", "--key-env", KEY, "--suite", "gsm8k")
    assert done.exit_code == 1
    assert "give --data DIR, the directory that holds gsm8k*test*.jsonl" in str(done.exception)


def test_more_questions_are_asked_in_addition(server, data, tmp_path):
    asked(server, data, tmp_path / "out", "--limit", 2)
    assert server.num_answered == 2
    assert "6×1" in asked(server, data, tmp_path / "out").output
    assert server.num_answered == 6


def test_a_budget_stops_asking_and_what_was_paid_for_is_shown(server, data, tmp_path):
    # 2.19 dollars per million tokens: an answer of at most 1000 tokens may cost some 0.0022.
    stopped = asked(server, data, tmp_path / "out", "--budget", "0.0025", "max_tokens=1000", "batch=1")
    assert stopped.exit_code == 1
    assert "budget of $0.0025" in str(stopped.exception)
    assert 1 <= server.num_answered < 6
    assert f"{server.num_answered}×1" in stopped.output


@pytest.mark.skipif(not STORIES.exists(), reason="the optional ../shared/data is not here")
def test_a_model_on_disk_stands_beside_an_api_in_one_table(server, data, tmp_path):
    done = asked(server, data, tmp_path / "out", STORIES, "--limit", 2, "max_tokens=8", "--usd-per-hour", 1)
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "out" / "results.json").read_text())["scores"]
    assert [score["model"] for score in scores] == ["r1", "stories260K"]
    assert scores[1]["truncated"] > 0
    assert scores[1]["usd"] > 0
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| multiarith | r1 |" in table
    assert "| multiarith | stories260K |" in table


def test_what_would_be_asked_can_be_seen_without_asking(server, data, tmp_path):
    shown = asked(server, data, tmp_path / "out", "--show")
    assert "[user] What is 1 and 1?\nPlease reason step by step" in shown.output
    assert server.num_answered == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["URL", "--suite", "multiarith"], "name one with --model"),
        (["URL", "--suite", "lambada", "--model", "x"], "needs likelihoods"),
        (["URL", "--suite", "families", "--model", "x"], "name a run"),
        (["URL", "--suite", "gsm9k", "--model", "x"], "there is no suite 'gsm9k'"),
        (["URL", "--suite", "arena-hard", "--model", "x"], "no right answers"),
        (["URL", "--suite", ",", "--model", "x"], "names no suite"),
        (["URL", "--suite", "multiarith", "--model", "x", "--prices", "1/b"], "no price list"),
        (["URL", "--suite", "multiarith", "--model", "x", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["URL", "--suite", "multiarith", "--model", "x", "--model", "y"], "given 2 times for 1 addresses"),
        (["URL", "--suite", "multiarith", "--model", "x", "--budget", "1"], "and --prices"),
        (["URL", "--suite", "multiarith", "--model", "x", "--concurrency", "0"], "--concurrency 0"),
        (
            ["URL", "--suite", "multiarith", "--model", "x", "--prices", "1/2", "--budget", "0"],
            "--budget 0 must be",
        ),
        (["nowhere", "--suite", "multiarith", "--budget", "1"], "--budget 1 is kept by"),
        (["URL", "--suite", "multiarith", "--model", "x", "temprature=1"], "did you mean 'temperature'"),
        (["URL", "--suite", "multiarith", "--model", "x", "temperature=0", "samples=2"], "same answer"),
        (["URL", "--suite", "multiarith", "--model", "x", "shots=2"], "shots=0"),
        (["nowhere", "--suite", "multiarith"], "no model is at nowhere"),
        (["nowhere", "--suite", "multiarith", "--model", "x"], "--model goes with an address"),
        (["temperature=1", "--suite", "multiarith"], "nothing to measure"),
        (["ftp://x/v1", "--suite", "multiarith", "--model", "x"], "no address"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_nothing_is_asked(server, data, tmp_path, arguments, part):
    texts = [server.url if each == "URL" else each for each in arguments]
    (data / "lm").mkdir()
    (data / "lm" / "lambada.jsonl").write_text(json.dumps({"context": "a", "continuation": "b"}) + "\n")
    done = run(*texts, "--data", data, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert part in str(done.exception)
    assert "\n" not in str(done.exception)
    assert server.num_answered == 0


@pytest.mark.parametrize(
    ("stage", "is_zero"),
    [("base", True), ("zero", True), ("control-sft", True), ("cold-start", False), ("r1", False)],
)
def test_a_runs_models_are_read_in_the_shape_that_they_learnt(tmp_path, stage, is_zero):
    stages = (Stage(path=tmp_path / f"04-{stage}", number=4, name=stage, done=None),)
    run_of = Run(path=tmp_path, name="r", info={}, recipe={}, stages=stages)
    assert Target(name="r", model_dir=tmp_path / f"04-{stage}" / "model", run=run_of).is_zero is is_zero


def test_prices_are_read_with_and_without_a_cache():
    assert parse_prices("1/2/3").usd(
        Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=1)
    ) == pytest.approx(8e-6)
    assert parse_prices("2/3").usd(
        Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=1)
    ) == pytest.approx(9e-6)


def test_answers_under_other_settings_are_not_mixed(server, data, tmp_path):
    asked(server, data, tmp_path / "out", "--limit", 1)
    refused = asked(server, data, tmp_path / "out", "seed=9")
    assert "seed = 1, and now it is 9" in str(refused.exception)
    assert server.num_answered == 1
