"""A student's stages: its data, and a control that gets the compute that distillation took, no more."""

from pathlib import Path

import pytest
import torch

from tenth.base.config import load_recipe
from tenth.base.files import read_json, read_lines
from tenth.checkpoint.model_dir import load_config, load_model
from tenth.model.counts import flops_per_token
from tenth.model.presets import preset
from tenth.pipeline.distill_stages import COMPUTE, EARLY_MODEL, MODEL, control_recipe
from tenth.pipeline.r1_data import distinct_problems
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.pipeline.zero_rl import reinforce_zero
from tenth.tasks.task import Split, split_of
from tenth.tokenizer.tokenizer import Tokenizer

R1_SMOKE = Path(__file__).parents[2] / "recipes/tiny/r1-smoke.toml"


@pytest.fixture(scope="module")
def r1_recipe():
    return load_recipe(R1Recipe, R1_SMOKE)


def stage(run_dir, name):
    return next(run_dir.glob(f"[0-9][0-9]-{name}"))


def done(run_dir, name):
    return read_json(stage(run_dir, name) / "DONE.json")


def flops_by_step(run_dir, recipe):
    """Summed up from the control's rollouts: training and two forward passes of every token, one without a
    reference."""
    config = load_config(stage(run_dir, "student-base") / "model")
    passes, total, found = (2 if recipe.student.rl.beta else 1), 0.0, []
    for _, row in read_lines(stage(run_dir, "student-control") / "metrics.jsonl"):
        rollouts = recipe.student.rl.prompts_per_step * recipe.student.rl.num_generations
        costs = flops_per_token(config, context_tokens=max(1, round(row["num_tokens"] / rollouts)))
        total += row["num_tokens"] * (costs.training + passes * costs.forward)
        found.append(total)
    return found


def test_the_control_gets_the_compute_of_either_comparison_and_at_most_a_step_more(r1_reference, r1_recipe):
    compute = read_json(stage(r1_reference, "student-control") / COMPUTE)
    learning, sampling = done(r1_reference, "student")["flops"], done(r1_reference, "student-data")["flops"]
    assert compute["distillation"]["training_flops"] == learning
    assert compute["distillation"]["teacher_sampling_flops"] == sampling
    spent = flops_by_step(r1_reference, r1_recipe)
    for key, budget in (
        ("control_without_sampling", learning),
        ("control_with_sampling", learning + sampling),
    ):
        steps = compute[key]["steps"]
        assert compute[key]["flops"] == pytest.approx(spent[steps - 1])
        assert spent[steps - 1] >= budget
        assert steps == 1 or spent[steps - 2] < budget
    assert done(r1_reference, "student-control")["flops"] == compute["control_with_sampling"]["flops"]


def test_both_states_of_the_control_can_be_loaded_and_have_the_students_shape(r1_reference):
    for name in (EARLY_MODEL, MODEL):
        config = load_config(stage(r1_reference, "student-control") / name)
        assert config.hidden_size == preset("nano-student").hidden_size
        assert config.moe is None


def test_the_teachers_sampling_counts_every_answer_and_its_prompt(r1_reference, r1_recipe):
    directory = stage(r1_reference, "student-data")
    answers = [row for path in sorted(directory.glob("parts/*.jsonl")) for _, row in read_lines(path)]
    assert len(answers) == r1_recipe.student.prompts
    tokens, cost = done(r1_reference, "student-data")["tokens"], done(r1_reference, "student-data")["flops"]
    assert tokens > sum(row["tokens"] for row in answers) + 3 * len(answers)  # bos, roles, a question
    config = load_config(stage(r1_reference, "r1") / "model")
    least, most = (flops_per_token(config, context_tokens=context).forward for context in (1, 512))
    assert tokens * least < cost < tokens * most


def test_a_students_problems_are_distinct_training_problems_of_every_family_in_turn(r1_recipe):
    problems = distinct_problems(r1_recipe, 40, stream="distill-problems")
    assert len({problem.problem_id for problem in problems}) == 40
    assert {split_of(problem.problem_id) for problem in problems} == {Split.TRAIN}
    assert [problem.task for problem in problems[:4]] == ["boolean", "modular"] * 2
    assert problems == distinct_problems(r1_recipe, 40, stream="distill-problems")


def test_families_that_have_no_more_problems_give_what_they_have(r1_recipe):
    sections = tuple(section.model_copy(update={"levels": (2, 2)}) for section in r1_recipe.families[:1])
    few = r1_recipe.model_copy(update={"families": sections})
    problems = distinct_problems(few, 100_000, stream="distill-problems")
    assert 0 < len(problems) < 100_000
    assert len({problem.problem_id for problem in problems}) == len(problems)


def test_a_course_that_ends_by_its_budget_goes_on_from_there_with_a_larger_one(reference, recipe, tmp_path):
    tokenizer = Tokenizer.load(reference / "01-documents")

    def reinforced(directory, *budgets):
        for budget in budgets:
            model = load_model(reference / "02-base" / "model", dtype=torch.float32)
            outcome = reinforce_zero(
                tmp_path / directory, recipe, model, tokenizer, sinks=(), budget_flops=budget
            )
        return outcome, load_model(tmp_path / directory / "model", dtype=torch.float32).state_dict()

    one_step = reinforced("first", 1.0)[0].flops
    at_once, weights = reinforced("at-once", 3 * one_step)
    in_two, others = reinforced("in-two", one_step, 3 * one_step)
    assert (at_once.flops, at_once.summary) == (in_two.flops, in_two.summary)
    assert at_once.summary["steps"] >= 3
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_control_is_reinforced_as_r1_zero_is(r1_recipe):
    control = control_recipe(r1_recipe, budget_flops=1e12)
    assert control.template == r1_recipe.template
    assert control.model == "nano-student"
    assert (control.rl.accuracy_weight, control.rl.language_weight) == (1.0, 0.0)
    assert control.rl.format_weight == r1_recipe.rl.format_weight
