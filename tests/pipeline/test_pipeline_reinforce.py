"""One reinforcement step at a time: the reference, the draws, dynamic sampling, and a state that restores."""

import json

import pytest
import torch

from tenth.base.errors import RunError
from tenth.checkpoint.model_dir import load_model
from tenth.pipeline.controls import format_only
from tenth.pipeline.reinforce import Learner, batch_plan, build_pool, reinforce
from tenth.pipeline.saver import Saver
from tenth.pipeline.zero_rl import family_problems, zero_course
from tenth.rollout.collect import groups_of, has_signal
from tenth.tasks.rewards import Scored
from tenth.tokenizer.tokenizer import Tokenizer

CLOCK = ("step_time", "time/rollout", "time/train")


class ByLength:
    """Rewards answers of an odd length, so that a base that can do nothing has something to learn."""

    def score(self, problems, texts, *, completion_ids):
        accuracies = [float(len(ids) % 2) for ids in completion_ids]
        return [Scored(rewards={"accuracy": each}, reward=each) for each in accuracies]


@pytest.fixture
def make_learner(reference, recipe):
    """A learner that begins from the smoke run's base."""

    def make(**changes):
        tokenizer = Tokenizer.load(reference / "01-documents")
        model = load_model(reference / "02-base" / "model", dtype=torch.float32)
        changed = recipe.model_copy(update={"rl": recipe.rl.model_copy(update=changes)})
        pool = build_pool(model, tokenizer, changed.rl)
        return Learner(zero_course(changed, tokenizer), model, tokenizer, pool, ByLength())

    return make


def same_weights(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def timeless(metrics):
    return {name: value for name, value in metrics.items() if name not in CLOCK}


def test_the_reference_is_the_base_until_it_is_refreshed(make_learner):
    learner = make_learner(reference_refresh_steps=2, minibatch_size=24)  # one update a step
    base = snapshot(learner.model)
    first, _ = learner.step(0)
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    second, _ = learner.step(1)
    assert second["kl"] > 1e-9  # the policy has moved, the reference has not
    assert all(torch.equal(base[name], tensor) for name, tensor in learner.reference.state_dict().items())
    before_third = snapshot(learner.model)
    third, _ = learner.step(2)
    assert third["kl"] < second["kl"]
    assert all(
        torch.equal(before_third[name], tensor) for name, tensor in learner.reference.state_dict().items()
    )
    assert not same_weights(learner.model, learner.reference)


def test_without_a_kl_term_there_is_no_reference(make_learner):
    learner = make_learner(beta=0.0)
    metrics, _ = learner.step(0)
    assert learner.reference is None
    assert metrics.get("kl", 0.0) == 0.0
    assert not any(name.startswith("reference/") for name in learner.capture())


def test_a_restored_learner_does_what_the_first_one_would_have_done(make_learner):
    learner = make_learner(reference_refresh_steps=2)
    for step in range(3):
        learner.step(step)
    tensors, facts = {k: v.clone() for k, v in learner.capture().items()}, learner.facts()
    expected_metrics, expected_rollouts = learner.step(3)
    again = make_learner(reference_refresh_steps=2)
    again.restore(tensors, facts)
    metrics, rollouts = again.step(3)
    assert rollouts == expected_rollouts
    assert timeless(metrics) == timeless(expected_metrics)
    assert same_weights(again.model, learner.model)
    assert (again.num_tokens, again.flops, again.totals()) == (
        learner.num_tokens,
        learner.flops,
        learner.totals(),
    )


def test_sampler_and_trainer_agree_on_every_token(make_learner):
    metrics, _ = make_learner().step(0)
    assert abs(metrics["mismatch_kl"]) < 1e-5  # float32


def test_every_family_has_its_turn_in_a_step_and_steps_differ(recipe):
    draw = family_problems(recipe)
    problems = [draw(step, 6, draw=0) for step in range(3)]
    assert [sorted(p.task for p in each) for each in problems] == [["chain_sum"] * 3 + ["modular"] * 3] * 3
    assert len({p.problem_id for each in problems for p in each}) > 10
    assert draw(1, 6, draw=0) == problems[1]
    assert draw(1, 6, draw=1) != problems[1]


def test_the_learning_rate_warms_up(make_learner):
    learner = make_learner(warmup_steps=3)
    rates = [learner.step(step)[0]["learning_rate"] for step in range(2)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3])
    assert learner._lr_factor(10) == 1.0


def test_dynamic_sampling_keeps_groups_that_teach_and_draws_once_more(make_learner):
    learner = make_learner(dynamic_sampling=True, num_generations=2)
    _, rollouts = learner.step(0)
    groups = groups_of(rollouts)
    assert list(groups) == list(range(len(groups)))
    assert 1 <= len(groups) <= 6
    assert all(has_signal(group) for group in groups.values())
    plain = make_learner(num_generations=2)._sample(0)
    assert any(not has_signal(group) for group in groups_of(plain).values())


def test_where_no_group_teaches_the_step_is_still_whole(make_learner):
    learner = make_learner(dynamic_sampling=True, temperature=1e-4)  # every sample of a group is the same
    metrics, rollouts = learner.step(0)
    assert len(rollouts) == 24
    assert metrics["frac_reward_zero_std"] == 1.0


class Broken:
    """Rewards that fail from a call on."""

    def __init__(self, *, first_bad):
        self.calls, self.first_bad = 0, first_bad

    def score(self, problems, texts, *, completion_ids):
        self.calls += 1
        if self.calls > self.first_bad:
            return [Scored(rewards={}, reward=0.0, error="reward 'mine': it crashed") for _ in texts]
        return ByLength().score(problems, texts, completion_ids=completion_ids)


def test_a_reward_that_goes_on_failing_stops_the_run_and_a_bad_step_does_not(make_learner, recipe, tmp_path):
    learner = make_learner(steps=20)
    learner.rewards = Broken(first_bad=2)
    with pytest.raises(RunError, match=r"04-zero, step 4: not one of 24 answers could be scored"):
        reinforce(tmp_path / "04-zero", learner, Saver(tmp_path / "04-zero", recipe), sinks=())
    rows = [json.loads(line) for line in (tmp_path / "04-zero" / "metrics.jsonl").read_text().splitlines()]
    assert [row["verifier_error_ratio"] for row in rows] == [0, 0, 1, 1, 1]


def test_several_passes_move_further_than_one(make_learner):
    one, three = make_learner(num_iterations=1), make_learner(num_iterations=3)
    base = snapshot(one.model)
    distance = []
    for learner in (one, three):
        learner.step(0)
        moved = learner.model.state_dict()
        distance.append(sum((moved[name] - base[name]).norm() for name in base))
    assert distance[1] > 1.5 * distance[0]


def test_the_format_control_is_paid_for_tags_alone(recipe):
    changed = format_only(recipe)
    assert (changed.rl.accuracy_weight, changed.rl.format_weight) == (0.0, 1.0)
    assert changed.rl.reward_functions == {}
    assert changed.rl.steps == recipe.rl.steps


def test_the_batch_rule_is_said_with_its_numbers(recipe):
    assert batch_plan(recipe.rl).sentence() == (
        "6 prompts × 4 samples = 24 rollouts = 2 minibatches × 16 (the last has 8)"
    )
