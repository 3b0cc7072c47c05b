"""R1's stages with models behind endpoints: paid once, named in every row, and the key is in no file."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint"))
from server import FINE, HIT_USD, MISS_USD, OUTPUT_USD, Server, error

from tenth.base.config import load_recipe
from tenth.base.errors import BudgetExceeded, ConfigError, EndpointError
from tenth.base.files import read_json, read_lines, write_lines
from tenth.pipeline.distill_stages import distinct_problems
from tenth.pipeline.flow import Work
from tenth.pipeline.machine import Machine
from tenth.pipeline.r1 import CONTROL, STORY, run_r1
from tenth.pipeline.r1_data import sample_rejection_set
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.pipeline.stage import stage_dirs
from tenth.tasks.shape import R1_SHAPE

R1_SMOKE = Path(__file__).parents[2] / "recipes/tiny/r1-smoke.toml"
KEY, KEY_VARIABLE = "sk-loopback-0123456789", "TENTH_LOOPBACK_KEY"
GARBAGE = "I would rather talk about the weather."
COLD = "06-cold-start-data"


class StopAt:
    """A sink that ends the run where a stage begins."""

    def __init__(self, stage):
        self.stage = stage

    def start_stage(self, stage, *, total_steps):
        if stage == self.stage:
            raise KeyboardInterrupt

    def log(self, stage, step, metrics):
        pass

    def end_stage(self, stage):
        pass


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)


@pytest.fixture
def run(r1_finished):
    """A run that has come as far as R1-Zero."""
    for name in (*STORY, *CONTROL)[5:]:
        shutil.rmtree(stage_dirs(r1_finished, (*STORY, *CONTROL))[name])
    return r1_finished


def rewrite(messages):
    """What it was asked for; garbage to every question about 'and'."""
    asked = messages[-1]["content"]
    answer = re.search(r"Answer of the notes:\n(.*)\n", asked)[1]
    if is_unlucky(asked):
        return None, GARBAGE
    thought = "我先算一步，再算一步。" if "in Chinese" in asked else "I go step by step."
    said = "答案是" if "in Chinese" in asked else "The answer is "
    return None, (f"<reasoning>\n{thought}\n</reasoning>\n<summary>\n{said}\\boxed{{{answer}}}.\n</summary>")


def is_unlucky(asked):
    return " and " in re.search(r"Question:\n(.*?)\n\nNotes:", asked, re.DOTALL)[1]


def section(server, **changed):
    values = {
        "base_url": server.url,
        "model": "deepseek-chat",
        "max_tokens": 200,
        "key_variable": KEY_VARIABLE,
        "prices": {"hit_usd": HIT_USD, "miss_usd": MISS_USD, "output_usd": OUTPUT_USD},
        "budget_usd": 1.0,
        "concurrency": 1,
    } | changed
    return "{" + ", ".join(f"{key} = {toml(value)}" for key, value in values.items()) + "}"


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {each!r}" for key, each in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def rewritten(run_dir, *overrides, **call):
    """Until the cold start's data are there."""
    with pytest.raises(KeyboardInterrupt):
        run_r1(run_dir, overrides, sinks=[StopAt("cold-start")], **call)


def rows(path):
    return [row for _, row in read_lines(path)]


def test_a_rewriter_writes_the_cold_start_and_what_it_garbles_is_dropped_and_counted(run):
    with Server(rewrite) as server:
        rewritten(run, f"cold_start.rewriter={section(server)}")
        asked = [each.body["messages"][-1]["content"] for each in server.requests]
    unlucky = sum(map(is_unlucky, asked))
    assert 0 < unlucky < len(asked)
    card, kept = read_json(run / COLD / "card.json"), rows(run / COLD / "samples.jsonl")
    assert card["dropped"]["rewrite_failed"] == unlucky
    assert len(kept) == len(asked) - unlucky
    for row in kept:
        assert row["lineage"]["rewriter"] == "deepseek-chat"
        assert "step by step" in row["messages"][-1]["content"] or "一步" in row["messages"][-1]["content"]
    assert card["paid"]["model"] == "deepseek-chat"
    assert card["paid"]["usd"] == pytest.approx(server.usd, rel=1e-9)
    assert server.usd > 0
    assert f"deepseek-chat in this run: ${server.usd:.4f}" in (run / COLD / "card.md").read_text()
    assert read_json(run / COLD / "DONE.json")["summary"]["usd"] == card["paid"]["usd"]


def test_no_file_of_the_run_holds_the_key(run):
    with Server(rewrite, script=[error(429), error(401)]) as server:
        with pytest.raises(EndpointError, match="401"):
            run_r1(run, [f"cold_start.rewriter={section(server)}"])
        rewritten(run)
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len([path for path in files if path.is_relative_to(run / "replies/rewriter")]) > 2
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY_VARIABLE in (run / "recipe.json").read_text()


def test_an_empty_account_stops_the_stage_and_topped_up_it_goes_on_without_paying_twice(run):
    with Server(rewrite, script=lambda number, _: error(402) if number == 3 else FINE) as server:
        with pytest.raises(EndpointError, match="the account is empty; every reply that was paid for stays"):
            run_r1(run, [f"cold_start.rewriter={section(server)}"])
        assert server.num_answered == 3
        assert not (run / COLD / "DONE.json").exists()
        rewritten(run)
    assert set(server.answered.values()) <= {0, 1}
    assert server.num_answered == len(server.requests) - 1
    assert read_json(run / COLD / "card.json")["paid"]["usd"] == pytest.approx(server.usd, rel=1e-9)


def test_a_spent_budget_stops_the_stage_and_raised_it_goes_on_and_nothing_is_outdated(run):
    with Server(rewrite) as server:
        with pytest.raises(BudgetExceeded, match=r"the budget of \$0.004 leaves no room.* raise the budget"):
            run_r1(run, [f"cold_start.rewriter={section(server, budget_usd=0.004)}"])
        assert 0 < server.usd <= 0.004
        rewritten(run, "cold_start.rewriter.budget_usd=1.0")
        assert set(server.answered.values()) == {1}
        done = (run / COLD / "DONE.json").stat().st_mtime_ns
        free = ["budget_usd=2.0", "concurrency=4", f"key_variable={KEY_VARIABLE}2", "prices.hit_usd=0.1"]
        rewritten(run, *(f"cold_start.rewriter.{each}" for each in free))  # the key is not asked for any more
        assert (run / COLD / "DONE.json").stat().st_mtime_ns == done


def test_a_stage_that_is_made_again_finds_its_replies(run):
    with Server(rewrite) as server:
        rewritten(run, f"cold_start.rewriter={section(server)}")
        paid, before = len(server.requests), (run / COLD / "samples.jsonl").read_bytes()
        run_r1(run, again="cold-start-data")
        assert (run / COLD / "samples.jsonl").read_bytes() == before
        rewritten(run, "cold_start.readable.max_repetition=0.31", yes=True)
        assert len(server.requests) == paid


def test_a_key_that_is_missing_is_said_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE)
    with Server() as server, pytest.raises(ConfigError, match=f"{KEY_VARIABLE} holds no API key"):
        run_r1(R1_SMOKE, [f"rejection.judge={section(server)}"], runs_dir=tmp_path)
    assert not list(tmp_path.glob("*/01-documents"))


def test_an_endpoint_that_cannot_be_asked_is_refused_by_name(tmp_path):
    where = 'cold_start.rewriter={base_url="ftp://x", model="m"}'
    with pytest.raises(ConfigError, match=r"cold_start.rewriter: 'ftp://x' is no address of an endpoint"):
        run_r1(R1_SMOKE, [where], runs_dir=tmp_path)
    where = 'rejection.judge={base_url="https://api.example.com", model="m", budget_usd=1.0}'
    with pytest.raises(ConfigError, match=r"rejection.judge: budget_usd = 1 cannot be kept without prices"):
        run_r1(R1_SMOKE, [where], runs_dir=tmp_path)


def test_a_judge_decides_about_the_problems_whose_rows_say_so_and_is_named_beside_them(
    r1_reference, tmp_path
):
    drawn = distinct_problems(load_recipe(R1Recipe, R1_SMOKE), 24, stream="for-the-judge")
    path = tmp_path / "open.jsonl"
    write_lines(path, ({"prompt": each.prompt, "answer": "unknown", "verifier": "judge"} for each in drawn))

    def judge(messages):
        is_right = "modulo" in messages[-1]["content"] or "mod" in messages[-1]["content"]
        return None, '{"reason": "so", "verdict": "%s"}' % ("correct" if is_right else "incorrect")

    with Server(judge) as server:
        recipe = load_recipe(
            R1Recipe, R1_SMOKE, [f"problem_files=['{path}']", f"rejection.judge={section(server)}"]
        )
        work = Work(
            recipe=recipe,
            machine=Machine(compute_dtype=torch.float32, peaks={}),
            sinks=(),
            dirs=stage_dirs(r1_reference, (*STORY, *CONTROL)),
            run_dir=tmp_path,
            folder=tmp_path,
        )
        outcome = sample_rejection_set(tmp_path / "set", work)
    judged = [row for row in rows(tmp_path / "set/samples.jsonl") if row["domain"] == "open"]
    assert judged
    assert {row["lineage"]["verifier"] for row in judged} == {"deepseek-chat"}
    assert all("mod" in row["messages"][0]["content"] for row in judged)
    others = [row for row in rows(tmp_path / "set/samples.jsonl") if row["domain"] in ("boolean", "modular")]
    assert {row["lineage"]["verifier"] for row in others} == {"rules"}
    assert all(R1_SHAPE.extract(row["messages"][-1]["content"]) for row in others)
    assert outcome.summary["usd"] == pytest.approx(server.usd, rel=1e-9)
    assert (tmp_path / "replies/judge/spent.jsonl").exists()
