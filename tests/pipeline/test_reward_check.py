from types import SimpleNamespace

import pytest
from reward_base import write_base

from tenth.base.records import PreferencePair
from tenth.checkpoint.reward_dir import RewardKind
from tenth.data.preferences import LabelledAnswer, PreferenceSet
from tenth.pipeline.recipe import OptimSection
from tenth.pipeline.reward_check import (
    LONGER,
    SHORTER,
    WORDS,
    baselines,
    read_units,
    sentence,
    to_learn,
    tuned,
    verdict,
)
from tenth.pipeline.reward_folds import CrossValidated, cross_validate, draw_folds
from tenth.pipeline.reward_model import open_reader
from tenth.training.optim import OptimKind
from tenth.training.preference import IdPair, LabelledIds

PAIRS = tuple(
    PreferencePair(
        prompt=f"q{i}",
        chosen="<think>\nbad\n</think>\nblue" + " sun" * (i % 2),
        rejected="red" + " sky" * i,
    )
    for i in range(20)
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "model")


def test_words_and_lengths_are_those_that_the_model_sees(base):
    helpful = read_units(open_reader(base, RewardKind.HELPFUL), PreferenceSet(pairs=PAIRS))
    safe = read_units(open_reader(base, RewardKind.SAFE), PreferenceSet(pairs=PAIRS))
    assert helpful.better[0] == "blue"
    assert safe.better[0] == "<think>\nbad\n</think>\nblue"
    places = list(range(20))
    # "blue" (4) against "red" (3), "blue sun" (8) against "red sky" (7), then the rejected one is longer
    longer, shorter = (baselines(helpful)[name](places, places, 1) for name in (LONGER, SHORTER))
    assert [margin > 0 for margin in longer] == [True] * 2 + [False] * 18
    assert [margin > 0 for margin in shorter] == [False] * 2 + [True] * 18


def test_a_safe_model_learns_from_each_answer_of_a_pair_by_itself():
    pair = IdPair(chosen=(1, 2), rejected=(1, 3))
    assert to_learn([pair], RewardKind.HELPFUL) == [pair]
    assert to_learn([pair], RewardKind.SAFE) == [
        LabelledIds(ids=(1, 2), is_safe=True),
        LabelledIds(ids=(1, 3), is_safe=False),
    ]


def test_labels_without_pairs_are_judged_one_by_one(base):
    labelled = tuple(
        LabelledAnswer(prompt=f"q{i}", response="no" if i % 4 else "yes", is_safe=bool(i % 4), metadata={})
        for i in range(40)
    )
    units = read_units(open_reader(base, RewardKind.SAFE), PreferenceSet(pairs=(), labelled=labelled))
    drawn = draw_folds(units.prompts, folds=4, repeats=1, seed=1)
    found = cross_validate({WORDS: baselines(units)[WORDS]}, drawn, seed=1)
    assert found[WORDS].interval.mean == 1.0


def test_a_model_that_falls_short_gets_a_curve_and_one_that_does_not_gets_none(base):
    units = read_units(open_reader(base, RewardKind.HELPFUL), PreferenceSet(pairs=PAIRS * 3))
    drawn = draw_folds(units.prompts, folds=4, repeats=2, seed=1)
    candidates = baselines(units) | {
        "coin": lambda trained, tested, seed: [float((place * seed) % 3 - 1) for place in tested],
        "oracle": lambda trained, tested, seed: [1.0 for _ in tested],
    }
    short = {name: candidates[name] for name in (LONGER, SHORTER, "coin", "oracle")}
    found = cross_validate(short | {WORDS: candidates["coin"]}, drawn, seed=1)
    coin = verdict(found, "coin", candidates["coin"], drawn, curve_runs=4, seed=1)
    assert coin["best_baseline"] == SHORTER
    assert not coin["is_above"]
    assert len(coin["curve"]["points"]) == 4
    assert "coin does not lie above shorter wins" in sentence("coin", coin)
    oracle = verdict(found, "oracle", candidates["oracle"], drawn, curve_runs=4, seed=1)
    assert oracle["is_above"]
    assert "curve" not in oracle
    assert "oracle lies above shorter wins" in sentence("oracle", oracle)


def test_so_few_examples_that_the_interval_is_everything_allow_no_statement():
    found = {
        name: CrossValidated(name=name, accuracies=rates, tested_per_trained=1.0, num_examples=100)
        for name, rates in {
            LONGER: (0.4, 0.2),
            SHORTER: (0.6, 0.8),
            WORDS: (0.5, 0.5),
            "it": (0.2, 0.4),
        }.items()
    }
    check = verdict(found, "it", lambda *_: pytest.fail("no curve"), (), curve_runs=2, seed=1)
    said = sentence("It", check)
    assert "so few examples allow no other statement" in said
    assert "pairs" not in said
    assert "curve" not in check


def test_the_tuned_network_learns_anew_in_every_fold(base):
    settings = SimpleNamespace(
        epochs=6.0,
        batch_size=8,
        optim=OptimSection(kind=OptimKind.ADAMW, lr=1e-2, weight_decay=0.0),
        micro_batch_tokens=4096,
    )
    units = read_units(open_reader(base, RewardKind.HELPFUL), PreferenceSet(pairs=PAIRS))
    judge = tuned(units, base=base, kind=RewardKind.HELPFUL, settings=settings, pad_id=0)
    first, again = (judge(list(range(16)), list(range(16, 20)), 1) for _ in range(2))
    assert first == again
    assert all(margin > 0 for margin in first)
