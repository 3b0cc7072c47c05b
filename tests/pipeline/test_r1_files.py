"""R1 with the user's own conversations and preferences, and runs from before recipes could name them."""

import json
from pathlib import Path

import pytest
import torch

from tenth.base.config import load_recipe
from tenth.base.errors import ConfigError, DataError, RunError
from tenth.base.files import read_json, read_lines, text_hash, write_json, write_lines
from tenth.checkpoint.reward_dir import RewardKind
from tenth.pipeline.flow import Work
from tenth.pipeline.machine import Machine
from tenth.pipeline.r1 import CONTROL, STORY, run_r1
from tenth.pipeline.r1_data import sample_rejection_set
from tenth.pipeline.r1_files import content_hashes, file_preferences, general_rows
from tenth.pipeline.r1_recipe import R1Recipe, R1RewardModelSection
from tenth.pipeline.r1_rl import general_pools
from tenth.pipeline.stage import stage_dirs

R1_SMOKE = Path(__file__).parents[2] / "recipes/tiny/r1-smoke.toml"
DIRS = {name: f"{number:02d}-{name}" for number, name in enumerate((*STORY, *CONTROL), start=1)}
HELPFUL = [
    {"prompt": f"Name colour {n}.", "chosen": f"Blue, the colour {n}.", "rejected": "No."} for n in range(30)
]
DIALOGUES = [  # as Anthropic writes them
    {
        "chosen": f"\n\nHuman: Hi {n}\n\nAssistant: Hello.\n\nHuman: And you?\n\nAssistant: Well.",
        "rejected": f"\n\nHuman: Hi {n}\n\nAssistant: Hello.\n\nHuman: And you?\n\nAssistant: Go away.",
    }
    for n in range(30)
]
SAFE = [
    {"prompt": f"Her code {n // 2}?", "response": "4711" if n % 2 else "I can't say.", "label": 1 - n % 2}
    for n in range(60)
]


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


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path / "helpful.jsonl", HELPFUL)
    write_lines(tmp_path / "dialogues.jsonl", DIALOGUES)
    write_lines(tmp_path / "safe.jsonl", SAFE)
    return tmp_path


def work_on(run_dir, folder, *overrides):
    return Work(
        recipe=load_recipe(R1Recipe, R1_SMOKE, overrides),
        machine=Machine(compute_dtype=torch.float32, peaks={}),
        sinks=(),
        dirs=stage_dirs(run_dir, (*STORY, *CONTROL)),
        run_dir=run_dir,
        folder=folder,
    )


def rows(path):
    return [row for _, row in read_lines(path)]


def chat(*texts):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]}


def test_conversations_of_the_user_take_the_place_of_small_talk_each_once(r1_reference, tmp_path):
    given = [chat("Hi.", "Hello."), chat("Hi.", "Hello.", "And you?", "<think>\nhm\n</think>\nWell.")]
    write_lines(tmp_path / "mine.jsonl", [*given, {"prompt": "你好", "completion": "你好。"}])
    work = work_on(r1_reference, tmp_path, "rejection.general_files=['mine.jsonl']")
    outcome = sample_rejection_set(tmp_path / "set", work)
    general = [row for row in rows(tmp_path / "set/samples.jsonl") if row["domain"] == "general"]
    assert {row["messages"][-1]["content"] for row in general} == {
        "<think>\n</think>\nHello.",
        "<think>\nhm\n</think>\nWell.",
        "<think>\n</think>\n你好。",
    }
    assert {row["language"] for row in general} == {"en", "zh"}
    assert {row["lineage"]["prompt"] for row in general} == {f"mine.jsonl, line {n}" for n in (1, 2, 3)}
    assert outcome.summary["general"] == 3
    asked_for = round(outcome.summary["kept"] * 0.22 / 0.78)
    assert asked_for > 3
    note = f"3 conversations where general_share asks for {asked_for}"
    assert note in read_json(tmp_path / "set/card.json")["notes"][0]
    assert note in (tmp_path / "set/card.md").read_text()


def test_rows_keep_what_they_say_about_themselves(tmp_path):
    said = {"domain": "poetry", "language": "zh", "lineage": {"model": "qwen", "verifier": "people"}}
    write_lines(tmp_path / "a.jsonl", [chat("Hi.", "Hello.") | said])
    (row,) = general_rows(tmp_path, ["a.jsonl"], seed=1)
    assert (row["domain"], row["language"]) == ("poetry", "zh")
    assert row["lineage"] == {"model": "qwen", "verifier": "people", "prompt": "a.jsonl, line 1"}


def test_a_conversation_out_of_turn_is_named_before_the_first_step(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path, [chat("Hi.", "Hello."), chat("Hi.")])
    with pytest.raises(DataError, match=r"a.jsonl, line 2: its messages are from user, but user and assist"):
        run_r1(R1_SMOKE, [f"rejection.general_files=['{path}']"], runs_dir=tmp_path / "runs")
    with pytest.raises(DataError, match=r"none.jsonl is not a file"):
        run_r1(R1_SMOKE, ["reward_model.safe_files=['none.jsonl']"], runs_dir=tmp_path / "runs")
    assert not list(tmp_path.glob("runs/*/01-documents"))


def test_reward_models_and_the_last_rl_part_take_the_users_preferences(r1_finished, folder):
    names = [str(folder / name) for name in ("helpful.jsonl", "dialogues.jsonl")]
    given = [f"reward_model.helpful_files={names}", f"reward_model.safe_files=['{folder / 'safe.jsonl'}']"]
    with pytest.raises(KeyboardInterrupt):
        run_r1(r1_finished, given, yes=True, sinks=[StopAt("measure-r1")])
    scores = read_json(r1_finished / DIRS["reward-models"] / "scores.json")
    assert scores["helpful"]["held_out"] + scores["helpful"]["training"] == 60
    assert scores["safe"]["held_out"] + scores["safe"]["training"] == 60
    last = rows(max((r1_finished / DIRS["r1"] / "rollouts").glob("*.jsonl")))
    general = [row for row in last if row["task"].startswith("general/")]
    assert len(general) == 8  # two prompts, one for each model
    for row in general:
        is_safe = row["task"] == "general/private"
        assert set(row["rewards"]) == {"format", "language", "safe" if is_safe else "helpful"}  # no truth
    assert {row["task"] for row in general} == {"general/private", "general/helpful"}
    text = (r1_finished / DIRS["r1"] / "model/README.md").read_text()
    assert "helpfulness from helpful.jsonl, dialogues.jsonl and for safety from safe.jsonl" in text


def test_one_kind_of_files_leaves_the_other_kind_its_toys(r1_reference, folder):
    work = work_on(r1_reference, folder, "reward_model.helpful_files=['helpful.jsonl']")
    helpful, safe = general_pools(work)
    assert {each.prompt for each in helpful} == {row["prompt"] for row in HELPFUL}
    assert len(safe) > 20
    assert {each.task for each in safe} == {"general/private"}
    (toys,) = general_pools(work_on(r1_reference, folder))
    assert len(toys) == 600


def test_prompts_that_leave_no_room_for_an_answer_are_left_out(r1_reference, folder):
    long = HELPFUL[0] | {"prompt": "Name " * 3000}
    write_lines(folder / "helpful.jsonl", [long, HELPFUL[1]])
    work = work_on(r1_reference, folder, "reward_model.helpful_files=['helpful.jsonl']")
    assert [each.prompt for each in general_pools(work)[0]] == ["Name colour 1."]
    write_lines(folder / "helpful.jsonl", [long])
    with pytest.raises(ConfigError, match=r"all 1 prompts of reward_model.helpful_files are longer than"):
        general_pools(work)


def test_labels_are_no_preferences_for_the_helpful_model(folder):
    section = R1RewardModelSection(helpful_files=("safe.jsonl",))
    with pytest.raises(DataError, match=r"safe.jsonl, line 1 is a labelled answer, .* reward_model.safe_fil"):
        file_preferences(folder, section, RewardKind.HELPFUL)


def test_what_stands_in_a_file_counts_and_not_its_name(r1_finished, folder):
    (folder / "copy.jsonl").write_bytes((folder / "helpful.jsonl").read_bytes())
    one, other = (content_hashes(folder, [name]) for name in ("helpful.jsonl", "copy.jsonl"))
    assert one == other != content_hashes(folder, ["safe.jsonl"])
    path = folder / "helpful.jsonl"
    given = [f"reward_model.helpful_files=['{path}']"]
    with pytest.raises(KeyboardInterrupt):
        run_r1(r1_finished, given, yes=True, sinks=[StopAt("safe")])
    (r1_finished / DIRS["reward-models"] / "DONE.json").write_text("{}")  # as if it were done
    write_lines(path, HELPFUL[:10])
    with pytest.raises(RunError, match="files or results that they are made from have changed, so reward-mo"):
        run_r1(r1_finished)


def test_a_run_from_before_these_keys_is_done_and_stays_so(r1_finished):
    younger = {"rewriter", "judge", "general_files", "helpful_files", "safe_files"}
    made = {}
    for name in (*STORY, *CONTROL):  # the records as they were written without the keys
        path = r1_finished / DIRS[name] / "inputs.json"
        record = read_json(path)
        settings = record["settings"]
        if isinstance(settings, dict):
            settings = {key: value for key, value in settings.items() if key not in younger}
        needs = {need: made[need] for need in record["needs"]}
        made[name] = text_hash("record 2", name, json.dumps(settings, sort_keys=True), *needs.values())
        write_json(path, record | {"settings": settings, "needs": needs, "fingerprint": made[name]})
    recipe = read_json(r1_finished / "recipe.json")
    for section in ("cold_start", "rejection", "reward_model"):
        recipe[section] = {key: value for key, value in recipe[section].items() if key not in younger}
    write_json(r1_finished / "recipe.json", recipe)
    before = {path: path.stat().st_mtime_ns for path in r1_finished.glob("*/DONE.json")}
    run_r1(r1_finished)
    assert {path: path.stat().st_mtime_ns for path in r1_finished.glob("*/DONE.json")} == before
    assert read_json(r1_finished / DIRS["rejection-data"] / "inputs.json")["settings"]["judge"] is None
