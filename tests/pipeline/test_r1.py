"""The whole flow on its smoke recipe: what every stage leaves behind, and what it was made from."""

from pathlib import Path

import pytest

from tenth.base.config import load_recipe
from tenth.base.errors import ConfigError
from tenth.base.files import read_json, read_lines
from tenth.pipeline.frozen import held_out_problems
from tenth.pipeline.r1 import CONTROL, STORY, run_r1
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.reports.page import write_report
from tenth.tasks.shape import r1_format_score
from tenth.tokenizer.chat import Template

R1_SMOKE = Path(__file__).parents[2] / "recipes/tiny/r1-smoke.toml"
DIRS = {name: f"{number:02d}-{name}" for number, name in enumerate((*STORY, *CONTROL), start=1)}
MODELS = ("cold-start", "reasoning-rl", "general-sft", "r1", "student")  # that answer in R1's shape


def rows(path):
    return [row for _, row in read_lines(path)]


def test_every_stage_is_there_and_done(r1_reference):
    done = sorted(path.parent.name for path in r1_reference.glob("*/DONE.json"))
    assert done == sorted(DIRS.values())
    assert len(done) == 22


def test_r1_zero_lies_where_its_own_recipe_puts_it(r1_reference):
    zero = ["01-documents", "02-base", "03-measure-base", "04-zero", "05-measure-zero"]
    assert sorted(path.name for path in r1_reference.glob("0[1-5]-*")) == zero


@pytest.mark.parametrize("stage", MODELS)
def test_every_stage_is_measured_on_reasoning_and_beside_it_on_small_talk(r1_reference, stage):
    evaluation = read_json(r1_reference / DIRS[f"measure-{stage}"] / "eval.json")
    sampled = evaluation["modes"]["sampled"]
    for score in (sampled["overall"], *sampled["families"].values()):
        assert {"accuracy", "low", "high", "language", "format", "readable", "mean_tokens", "truncated"} <= (
            score.keys()
        )
        assert 0 <= score["readable"] <= 1
    assert set(sampled["families"]) == {"boolean", "modular"}
    assert all(name.startswith("general/") for name in evaluation["general"]["families"])


def test_fine_tuning_brings_r1s_form_which_the_base_does_not_have(r1_reference):
    for stage in ("cold-start", "general-sft"):
        sampled = read_json(r1_reference / DIRS[f"measure-{stage}"] / "eval.json")["modes"]["sampled"]
        assert sampled["overall"]["format"] > 0.5


@pytest.mark.parametrize("stage", ["cold-start-data", "rejection-data", "student-data"])
def test_sets_hold_well_formed_answers_and_no_test_question(r1_reference, stage):
    asked = {problem.prompt for problem in held_out_problems(load_recipe(R1Recipe, R1_SMOKE))}
    samples = rows(r1_reference / DIRS[stage] / "samples.jsonl")
    assert samples
    for row in samples:
        question, answer = (turn["content"] for turn in row["messages"])
        assert question not in asked
        assert r1_format_score(answer) == 1.0
        assert row["lineage"]["model"]


def test_the_second_fine_tuning_begins_from_the_base_again(r1_reference):
    needs = read_json(r1_reference / DIRS["general-sft"] / "inputs.json")["needs"]
    assert set(needs) == {"documents", "base", "rejection-data"}


def test_general_prompts_and_reward_models_come_in_the_last_steps_alone(r1_reference):
    steps = [rows(path) for path in sorted((r1_reference / DIRS["r1"] / "rollouts").glob("*.jsonl"))]
    assert len(steps) == 3  # one of them with preferences
    for step in steps[:2]:
        assert not any(row["task"].startswith("general/") for row in step)
        assert all(set(row["rewards"]) == {"accuracy", "format", "language"} for row in step)
    general = [row for row in steps[2] if row["task"].startswith("general/")]
    assert len(general) == 8  # a quarter of 6 prompts, rounded, with 4 answers each
    for row in general:
        judged_by = "safe" if row["task"] == "general/private" else "helpful"
        # "truth" is watched and pays nothing: what the rule of the domain says
        assert set(row["rewards"]) == {"format", "language", judged_by, "truth"}
    reasoning = [row for row in steps[2] if row not in general]
    assert len(reasoning) == 16
    assert all(set(row["rewards"]) == {"accuracy", "format", "language"} for row in reasoning)


def test_every_card_tells_the_lineage_the_price_and_the_scores(r1_reference):
    text = (r1_reference / DIRS["r1"] / "model" / "README.md").read_text()
    order = [
        "Base: nano-zero",
        "Cold start:",
        "Reinforced on reasoning",
        "Rejection sampling",
        "all scenarios",
    ]
    assert [text.index(each) for each in order] == sorted(text.index(each) for each in order)
    assert "an hour" in text
    assert "accuracy, sampled" in text


@pytest.mark.parametrize("stage", MODELS)
def test_models_say_that_they_speak_in_role_tokens(r1_reference, stage):
    template = (r1_reference / DIRS[stage] / "model" / "chat_template.jinja").read_text()
    assert "<｜User｜>" in template


def test_the_report_can_be_written(r1_finished):
    assert write_report(r1_finished).exists()


def test_a_student_that_does_not_exist_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="there is no preset 'nano-studen'; did you mean 'nano-student'"):
        run_r1(R1_SMOKE, ["student.model=nano-studen"], runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"all_rl.max_completion_length = 900, but model .* takes 512"):
        run_r1(R1_SMOKE, ["all_rl.max_completion_length=900"], runs_dir=tmp_path)
    assert not (tmp_path / "r1-smoke").exists()


def test_a_section_of_the_recipe_keeps_the_defaults_that_it_does_not_name():
    recipe = load_recipe(R1Recipe, R1_SMOKE)
    assert (recipe.reasoning_rl.epsilon, recipe.reasoning_rl.language_weight) == (10.0, 0.2)
    assert (recipe.all_rl.epsilon, recipe.all_rl.temperature) == (10.0, 0.7)
    assert recipe.templates == (Template.ZERO_SHORT, Template.DEEPSEEK)
