"""The whole story on the smoke recipe: what is in the run directory, and what a second call does."""

import json
from pathlib import Path

import pytest
from kill_points import contents

from tenth.base.config import build_recipe
from tenth.base.files import read_json, read_lines
from tenth.base.records import Rollout
from tenth.data.shards import load_tokens
from tenth.pipeline.frozen import held_out_problems
from tenth.pipeline.measure import FOUR_WAYS, base_modes
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.run_dir import describe_run
from tenth.pipeline.zero import run_zero
from tenth.reports.page import write_report
from tenth.reports.runs import read_run
from tenth.rollout.evaluate import Answer, scores_by_family
from tenth.tokenizer.tokenizer import Tokenizer

SMOKE = Path(__file__).parents[2] / "recipes/tiny/smoke.toml"
STAGES = ["01-documents", "02-base", "03-measure-base", "04-zero", "05-measure-zero"]


def rows(path):
    return [row for _, row in read_lines(path)]


def metrics(run_dir, stage):
    return rows(run_dir / stage / "metrics.jsonl")


def test_every_stage_is_there_and_done(reference):
    assert sorted(path.parent.name for path in reference.glob("*/DONE.json")) == STAGES
    for stage in STAGES:
        done = read_json(reference / stage / "DONE.json")
        assert done["seconds"] > 0
        assert done["tokens"] > 0
        assert (done["flops"] is None) == (stage == "01-documents")


def test_the_resolved_recipe_is_saved_and_can_be_read_back(reference):
    saved = build_recipe(ZeroRecipe, read_json(reference / "recipe.json"), source="recipe.json")
    assert (saved.name, saved.rl.steps, saved.rl.beta) == ("smoke", 6, 0.001)  # the last one is a default


def test_the_run_says_what_made_it(reference):
    info = read_json(reference / "run.json")
    assert info["format_version"] == 1
    assert info["threads"] == 1
    assert {"machine", "torch", "commit", "compute_dtype", "created", "price_usd_per_hour"} <= info.keys()
    assert set(info["matmul_peak_flops"]) == {"bf16", "fp32"}


def test_a_run_finds_its_recipes_folder_from_wherever_it_is_continued(monkeypatch, tmp_path):
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    describe_run(tmp_path / "run", name="x", recipe_folder=Path("recipes"), price_usd_per_hour=None)
    assert read_json(tmp_path / "run" / "run.json")["recipe_folder"] == str(tmp_path / "recipes")


def test_the_corpus_says_what_it_holds(reference):
    corpus = read_json(reference / "01-documents" / "corpus.json")
    assert corpus["tokens"] >= 60_000
    assert corpus["vocab_size"] <= 320
    assert corpus["longest_in_documents"] == {"chain_sum": 3, "modular": 3}
    assert sum(corpus["kinds"].values()) >= corpus["documents"]


def test_no_held_out_text_is_trained_on(reference):
    tokenizer = Tokenizer.load(reference / "01-documents")

    def texts(part):
        ids = load_tokens(reference / "01-documents" / part).open_tokens().tolist()
        documents, last = set(), 0
        for end in (i for i, token in enumerate(ids) if token == tokenizer.eos_id):
            documents.add(tokenizer.decode(ids[last:end]))
            last = end + 1
        return documents

    train, held_out = texts("train"), texts("held-out")
    assert len(held_out) >= 50
    assert train.isdisjoint(held_out)


def test_pre_training_tells_every_step(reference):
    steps = metrics(reference, "02-base")
    assert [row["step"] for row in steps] == list(range(32))
    assert steps[-1]["num_tokens"] >= 60_000
    assert steps[0]["batch_tokens"] == 16 * 64  # the ramp begins here
    assert steps[-1]["batch_tokens"] == 32 * 64
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    values = [row["val_bpb"] for row in steps if "val_bpb" in row]
    assert values[-1] == read_json(reference / "02-base" / "DONE.json")["summary"]["val_bpb"] < values[0]


RL_METRICS = {
    "reward", "reward_std", "rewards/accuracy/mean", "rewards/format/mean", "frac_reward_zero_std", "kl",
    "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean",
    "completions/mean_length", "completions/min_length", "completions/max_length",
    "completions/clipped_ratio", "completions/mean_terminated_length", "num_tokens", "step_time", "grad_norm",
    "learning_rate", "loss", "mismatch_kl", "accuracy/chain_sum", "accuracy/modular", "think_share",
    "reflection_per_1k", "time/rollout", "time/train", "verifier_error_ratio",
}  # fmt: skip


def test_reinforcement_tells_every_step_by_trls_names(reference):
    steps = metrics(reference, "04-zero")
    assert [row["step"] for row in steps] == list(range(6))
    assert all(row.keys() >= RL_METRICS for row in steps)
    assert all(abs(row["mismatch_kl"]) < 0.02 for row in steps)  # sampler and trainer agree (bfloat16)


def test_every_rollout_is_stored_and_readable(reference):
    files = sorted((reference / "04-zero" / "rollouts").glob("*.jsonl"))
    assert [path.name for path in files] == [f"{step:06d}.jsonl" for step in range(6)]
    for step, path in enumerate(files):
        rollouts = [Rollout.from_dict(row) for row in rows(path)]
        assert len(rollouts) == 6 * 4
        assert {rollout.policy_step for rollout in rollouts} == {step}
        assert {rollout.task for rollout in rollouts} == {"chain_sum", "modular"}
        assert [len({r.problem_id for r in rollouts if r.group_id == g}) for g in range(6)] == [1] * 6


@pytest.mark.parametrize("stage", ["03-measure-base", "05-measure-zero"])
def test_an_evaluation_asks_every_test_problem_in_every_mode(reference, recipe, stage):
    evaluation = read_json(reference / stage / "eval.json")
    modes = base_modes(recipe) if stage == "03-measure-base" else FOUR_WAYS
    asked = [problem.problem_id for problem in held_out_problems(recipe)]
    assert set(evaluation["modes"]) == {mode.name for mode in modes}
    for mode in modes:
        answers = [
            Answer.from_dict(row) for row in rows(reference / stage / "samples" / f"{mode.name}.jsonl")
        ]
        samples = mode.samples or recipe.eval.samples
        assert [answer.problem_id for answer in answers] == [each for each in asked for _ in range(samples)]
        groups = [answers[i : i + samples] for i in range(0, len(answers), samples)]
        assert evaluation["modes"][mode.name] == json.loads(json.dumps(scores_by_family(groups)))
        assert all(answer.text.startswith(mode.prefill) for answer in answers)
    assert evaluation["guess"].keys() == {"chain_sum", "modular"}
    assert evaluation["longest_in_documents"] == {"chain_sum": 3, "modular": 3}


def test_before_and_after_show_the_same_problems(reference):
    shown = [
        {(row["mode"], row["problem_id"]) for row in read_json(reference / stage / "eval.json")["examples"]}
        for stage in ("03-measure-base", "05-measure-zero")
    ]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 4 * 2 * 2  # modes, families, examples


def test_the_report_can_be_written(finished):
    page = write_report(finished).read_text(encoding="utf-8")
    for word in ("chain_sum", "modular", "Before and after", "forced to think"):
        assert word in page
    run = read_run(finished)
    assert [stage.name for stage in run.stages if stage.done] == [name[3:] for name in STAGES]


def test_running_again_changes_nothing(finished, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("nothing is left to do")

    for work in ("base.write_documents", "base.pretrain", "reinforce_zero", "measure"):
        monkeypatch.setattr(f"tenth.pipeline.zero.{work}", fail)
    before = contents(finished)
    assert run_zero(finished) == finished
    assert contents(finished) == before


def test_controls_are_added_to_a_finished_run(finished):
    before = contents(finished)
    run_zero(finished, ["controls.enabled=true"])
    after = contents(finished)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {
        "06-control-format",
        "07-control-sft",
        "08-measure-controls",
    }
    assert set(read_json(finished / "08-measure-controls" / "eval.json")["modes"]) == {
        "format_only",
        "sft_steps",
    }
    # Equal tokens: SFT stops with the step in which it has seen as many as R1-Zero.
    seen = read_json(finished / "07-control-sft" / "DONE.json")["tokens"]
    steps = [0, *(row["num_tokens"] for row in metrics(finished, "07-control-sft"))]
    assert steps[-2] < read_json(finished / "04-zero" / "DONE.json")["tokens"] <= steps[-1] == seen
    for row in rows(finished / "06-control-format" / "rollouts" / "000000.jsonl"):
        assert row["reward"] == row["rewards"]["format"]  # being right pays nothing


def test_a_continued_run_keeps_its_type_and_says_when_it_has_moved(finished):
    info = read_json(finished / "run.json")
    moved = info | {"threads": 64, "compute_dtype": "torch.float32"}
    (finished / "run.json").write_text(json.dumps(moved))
    run_zero(finished)
    assert read_json(finished / "run.json") == moved | {"continued_elsewhere": True}


def test_overrides_become_part_of_the_run(tmp_path):
    class Stop:
        def start_stage(self, stage, *, total_steps):
            raise KeyboardInterrupt

    said = []
    with pytest.raises(KeyboardInterrupt):
        run_zero(SMOKE, ["name=other", "rl.steps=2"], runs_dir=tmp_path, sinks=[Stop()], say=said.append)
    assert read_json(tmp_path / "other" / "recipe.json")["rl"]["steps"] == 2
    assert "6 prompts × 4 samples = 24 rollouts = 2 minibatches × 16 (the last has 8)" in said[0]


def test_the_card_of_each_model_tells_what_made_it_at_what_price_and_what_it_can_do(reference):
    cards = {
        stage: (reference / stage / "model" / "README.md").read_text(encoding="utf-8")
        for stage in ("02-base", "04-zero")
    }
    for text in cards.values():
        assert "pre-trained from random weights on 60,000 tokens, seed 1" in text
        assert "generated solutions of chain_sum, modular" in text
        assert "at $0.1 an hour" in text
        assert "accuracy, sampled, chain_sum" in text
    assert "GRPO" not in cards["02-base"]
    assert (
        "Reinforced by GRPO, rewards by rule (accuracy x 1, format x 0.2): 6 steps of 6" in cards["04-zero"]
    )
