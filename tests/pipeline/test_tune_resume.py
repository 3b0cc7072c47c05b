"""A tuning that is killed again and again ends bit for bit where an uninterrupted one ends."""

import signal

import pytest
from kill_points import Point, contents
from tune_models import REWARDS, make_model, sums, without_answers, write_rows

OFTEN = "checkpoint_every_seconds=1e-6"  # a checkpoint after every step
RL = (
    *("steps=4", "prompts_per_step=3", "num_generations=4", "max_completion_length=6", "eval_samples=2"),
    *("learning_rate=1e-2", "eval_problems=3", "beta=0.1"),
)
SFT = ("steps=6", "batch_size=4", "learning_rate=1e-2")
PLACES = {
    "rl": (
        Point(name="mid-rollout", stage="rl", target="tenth.engine.engine:draw", call=8),
        Point(name="mid-update", stage="rl", target="tenth.training.master:MasterWeights.publish", call=2),
        Point(name="saving", stage="rl", target="tenth.checkpoint.whole_dir:_take_name", call=2),
        Point(name="measuring", stage="measure-after", target="tenth.pipeline.tune_rl:write_lines", call=1),
    ),
    "sft": (
        Point(name="mid-step", stage="sft", target="tenth.training.optim:WeightUpdater.gather", call=3),
        Point(name="saving", stage="sft", target="tenth.checkpoint.whole_dir:_take_name", call=2),
        Point(name="measuring", stage="measure-after", target="tenth.pipeline.tune_sft:write_json", call=1),
    ),
}


@pytest.fixture
def values(tmp_path):
    """What the command line would hand over, by command."""
    model = make_model(tmp_path / "small")
    (tmp_path / "mine.py").write_text(REWARDS)
    tasks = write_rows(tmp_path / "prompts.jsonl", without_answers())
    rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in sums()]
    data = write_rows(tmp_path / "data.jsonl", rows)
    rewards = {f"{tmp_path / 'mine.py'}:odd_start": 1.0}
    return {
        "rl": {"model": str(model), "tasks": str(tasks), "rewards": rewards},
        "sft": {"model": str(model), "data": str(data)},
    }


@pytest.mark.parametrize("rank", [(), ("lora_rank=4",)], ids=["whole", "adapter"])
@pytest.mark.parametrize("kind", ["rl", "sft"])
def test_killed_at_several_places_a_tuning_ends_bit_for_bit_the_same(smoke, values, tmp_path, kind, rank):
    tune = {"kind": kind, "values": values[kind]}
    settings = (*(RL if kind == "rl" else SFT), *rank)
    assert smoke.run(tmp_path / "a", "checkpoint_every_seconds=1000", *settings, tune=tune) == 0
    for point in PLACES[kind]:
        status = smoke.run(tmp_path / "b", OFTEN, *settings, tune=tune, point=point.to_json())
        assert status == -signal.SIGKILL, point.name
    assert smoke.run(tmp_path / "b", OFTEN, *settings, tune=tune) == 0
    continued, uninterrupted = contents(tmp_path / "b" / "tuned"), contents(tmp_path / "a" / "tuned")
    assert continued.keys() == uninterrupted.keys()
    assert [name for name in continued if continued[name] != uninterrupted[name]] == []
