import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from reward_base import write_base

from tenth.base.errors import CheckpointError, DataError
from tenth.base.records import PreferencePair
from tenth.checkpoint.model_dir import load_model
from tenth.checkpoint.reward_dir import RewardKind, load_reward_model
from tenth.pipeline import reward_model
from tenth.pipeline.recipe import OptimSection
from tenth.pipeline.reward_model import (
    length_accuracy,
    open_reader,
    read_examples,
    split_examples,
    train_reward_model,
    train_reward_models,
)
from tenth.pipeline.reward_scorer import load_scorer, load_scorers
from tenth.tasks.general import preference_pairs, safety_pairs
from tenth.tasks.task import problem
from tenth.training.optim import OptimKind
from tenth.training.preference import IdPair, LabelledIds

SECTION = SimpleNamespace(
    epochs=4.0,
    batch_size=32,
    held_out_share=0.1,
    optim=OptimSection(kind=OptimKind.ADAMW, lr=5e-3, weight_decay=0.0),
    micro_batch_tokens=4096,
)
RULES = SimpleNamespace(checkpoint_every_seconds=1000.0, keep_checkpoints=2)
OFTEN = SimpleNamespace(checkpoint_every_seconds=0.0, keep_checkpoints=2)
HELPFUL, SAFE = preference_pairs(seed=1, count=300), safety_pairs(seed=1, count=150)
FIXED = {"section": SECTION, "seed": 1, "rules": RULES, "sinks": ()}
ASKED = problem("general/repeat", "Say blue three times.", "")
PRIVATE = problem("general/private", "What is the PIN of Tom?", "")
SUM = problem("chain_sum", "1+1", "2")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def stage(base, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("stage")
    train_reward_models(directory, base=base, helpful=HELPFUL, safe=SAFE, **FIXED)
    return directory


def test_both_models_learn_what_is_preferred_on_prompts_they_never_saw(stage):
    scores = json.loads((stage / "scores.json").read_text())
    assert scores["safe"]["accuracy"] > 0.9
    assert scores["helpful"]["accuracy"] > max(0.6, scores["helpful"]["longer_wins"])
    assert {row["loss"] > 0 for row in _metrics(stage / "train-helpful")} == {True}


def _metrics(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_directory_is_a_language_model_and_a_reward_model(stage):
    model, facts = load_reward_model(stage / "safe", dtype=torch.float32)
    assert facts.kind is RewardKind.SAFE
    assert facts.centre == 0.0
    assert model.head.weight.abs().max() > 0
    assert load_model(stage / "safe", dtype=torch.float32).config == model.body.config


def test_each_model_has_a_say_in_its_own_problems_and_its_rewards_are_bounded(stage):
    answer = "<think>\n</think>\nblue blue blue"
    scorers = load_scorers(stage)
    problems, texts = [ASKED, PRIVATE, SUM], [answer, answer, answer]
    helpful = scorers["helpful"].score(problems, texts, [(), (), ()])
    safe = scorers["safe"].score(problems, texts, [(), (), ()])
    assert helpful[1:] == [None, None]
    assert 0 < helpful[0] < 1
    assert safe[0] is None
    assert 0 < safe[1] < 1
    assert safe[2] is None


def test_the_helpful_model_sees_the_summary_alone_and_the_safe_one_everything(stage):
    texts = [
        "<think>\n</think>\nI can't say that.",
        "<think>\nI know it. It is 4711.\n</think>\nI can't say that.",
    ]
    helpful = load_scorer(stage / "helpful").score([ASKED, ASKED], texts, [(), ()])
    assert helpful[0] == pytest.approx(helpful[1], abs=1e-6)
    clean, leaking = load_scorer(stage / "safe").score([PRIVATE, PRIVATE], texts, [(), ()])
    assert clean > leaking


def test_an_answer_without_a_summary_earns_nothing(stage):
    texts = ["<think>\nblue blue", "<think>\nblue\n</think>\n", ""]
    for name, asked in (("helpful", ASKED), ("safe", PRIVATE)):
        assert load_scorer(stage / name).score([asked] * 3, texts, [()] * 3) == [0.0, 0.0, 0.0]


def test_an_endless_answer_is_read_at_its_end(stage):
    (reward,) = load_scorer(stage / "helpful").score([ASKED], ["blue " * 500], [()])
    assert 0 <= reward <= 1


def test_what_is_done_is_not_trained_again(stage, base, monkeypatch):
    monkeypatch.setattr(reward_model, "RewardTrainer", None)
    again = train_reward_models(stage, base=base, helpful=HELPFUL, safe=SAFE, **FIXED)
    assert again.summary == json.loads((stage / "scores.json").read_text())


class KilledError(Exception):
    pass


class _KillAt:
    """A sink that ends the process, so to speak, at a step."""

    def __init__(self, step):
        self.step = step

    def start_stage(self, stage, *, total_steps):
        pass

    def log(self, stage, step, metrics):
        if step == self.step:
            raise KilledError

    def end_stage(self, stage):
        pass


def test_a_continued_training_ends_where_an_uninterrupted_one_does(stage, base, tmp_path):
    given = FIXED | {"sinks": [_KillAt(7)], "rules": OFTEN}
    with pytest.raises(KilledError):
        train_reward_model(tmp_path, base=base, kind=RewardKind.SAFE, data=SAFE, **given)
    train_reward_model(tmp_path, base=base, kind=RewardKind.SAFE, data=SAFE, **FIXED)
    assert [row["loss"] for row in _metrics(tmp_path / "train-safe")] == [
        row["loss"] for row in _metrics(stage / "train-safe")
    ]
    one, other = ((place / "safe/value_head.safetensors").read_bytes() for place in (stage, tmp_path))
    assert one == other


def test_no_prompt_is_on_both_sides(base):
    read = read_examples(open_reader(base, RewardKind.HELPFUL), HELPFUL)
    training, held_out = split_examples(read, share=0.2)
    places = {id(example): prompt for example, prompt in zip(read.examples, read.prompts, strict=True)}
    assert len(training) + len(held_out) == 300
    assert not {places[id(each)] for each in training} & {places[id(each)] for each in held_out}


def test_pairs_that_are_too_long_are_counted(base):
    long = PreferencePair(prompt="q", chosen="blue " * 200, rejected="red")
    read = read_examples(open_reader(base, RewardKind.HELPFUL), [*HELPFUL[:3], long])
    assert (len(read.examples), read.num_too_long) == (3, 1)
    with pytest.raises(DataError, match="none of the 1 preferences fits into 128 tokens"):
        read_examples(open_reader(base, RewardKind.HELPFUL), [long])


def test_labels_are_no_pairs(base, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"prompt": "q", "response": "a", "label": 1}\n')
    with pytest.raises(DataError, match="train them with --kind safe"):
        read_examples(open_reader(base, RewardKind.HELPFUL), path)
    (example,) = read_examples(open_reader(base, RewardKind.SAFE), path).examples
    assert isinstance(example, LabelledIds)
    assert example.is_safe


def test_longer_wins_by_hand():
    # 3 against 2: right; 2 against 3: wrong; equal: a coin
    pairs = [IdPair(chosen=(1,) * long, rejected=(1,) * short) for long, short in ((3, 2), (2, 3), (2, 2))]
    assert length_accuracy(pairs) == pytest.approx(0.5)
    labels = [LabelledIds(ids=(1,) * n, is_safe=safe) for n, safe in ((5, True), (1, True), (3, False))]
    assert length_accuracy(labels) == pytest.approx(0.5)


def test_damage_is_a_sentence(stage, base, tmp_path):
    with pytest.raises(CheckpointError, match=r"reward.json is missing"):
        load_scorer(base)
    (stage / "safe/reward.json").rename(tmp_path / "kept")
    try:
        (stage / "safe/reward.json").write_text('{"kind": "kind"}')
        with pytest.raises(CheckpointError, match=r"reward.json is damaged"):
            load_scorer(stage / "safe")
    finally:
        (tmp_path / "kept").rename(stage / "safe/reward.json")
