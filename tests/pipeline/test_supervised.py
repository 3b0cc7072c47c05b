"""A supervised stage: from a model and a file of samples to a fine-tuned model, kills included."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from kill_points import contents
from sample_fakes import r1
from tune_models import CONTEXT, DEEPSEEK, make_model, write_rows

from tenth.base.errors import DataError
from tenth.checkpoint.companions import load_template, load_tokenizer
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.model_dir import load_model
from tenth.pipeline import sft_trainer
from tenth.pipeline.r1_recipe import SftSection
from tenth.pipeline.recipe import OptimSection
from tenth.pipeline.supervised import supervise
from tenth.tokenizer.chat import Template
from tenth.training.optim import OptimKind

SECTION = SftSection(
    epochs=2, batch_size=4, optim=OptimSection(kind=OptimKind.ADAMW, lr=1e-2, weight_decay=0.0)
)


class KilledError(Exception):
    """Stands for the signal: nothing behind it runs."""


@pytest.fixture(scope="module", params=["dense", "experts and drafts"])
def base(request, tmp_path_factory):
    settings = {} if request.param == "dense" else {"config": DEEPSEEK}
    return make_model(tmp_path_factory.mktemp("models") / "base", **settings)


@pytest.fixture
def samples(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}+1?"},
                {"role": "assistant", "content": r1(f"{n}+1={n + 1}", n + 1)},
            ],
            "domain": "sums",
        }
        for n in range(30)
    ]
    return write_rows(tmp_path / "samples.jsonl", rows)


@pytest.fixture
def run(base, samples, tmp_path):
    def call(out, *, every_seconds=1000.0, section=SECTION, card=None):
        (tmp_path / out).mkdir(exist_ok=True)
        return supervise(
            tmp_path / out,
            model=load_model(base, dtype=torch.float32),
            tokenizer=load_tokenizer(base),
            samples=samples,
            template=Template.DEEPSEEK,
            section=section,
            seed=1,
            rules=SimpleNamespace(checkpoint_every_seconds=every_seconds, keep_checkpoints=2),
            sinks=(),
            card=card,
        )

    return call


def test_what_is_held_out_is_told_better_afterwards_and_the_directory_is_a_model(run, tmp_path, base):
    outcome = run("a", card=ModelCard(name="dev1"))
    # 30 prompts: 3 held out, 27 to learn from; 2 passes of 7 steps
    assert {name: outcome.summary[name] for name in ("examples", "held_out", "too_long", "steps")} == {
        **{"examples": 27, "held_out": 3},
        **{"too_long": 0, "steps": 14},
    }
    assert outcome.summary["loss_after"] < outcome.summary["loss_before"]
    assert outcome.summary["loss_before"] == pytest.approx(math.log(load_tokenizer(base).vocab_size), abs=1)
    model = tmp_path / "a/model"
    assert load_template(model) == load_template(make_model(tmp_path / "b", template=Template.DEEPSEEK))
    card = (model / "README.md").read_text()
    assert "# dev1" in card
    assert f"| {outcome.summary['loss_after']:.3f} |" in card
    metrics = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "val_loss" in row] == [6, 13]  # once a pass


def test_the_rate_warms_up_and_falls_to_its_floor(run, tmp_path):
    section = SECTION.model_copy(update={"warmup_share": 0.15, "floor": 0.1})
    run("a", section=section)
    metrics = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in metrics]
    assert rates[:2] == pytest.approx([0.5e-2, 1e-2])  # 14 steps, 2 of them warming up
    # the last step: 13/14 of the stage is (13/14 - 2/14) / (1 - 2/14) = 11/12 of the fall
    assert rates[-1] == pytest.approx(1e-2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 11 / 12))))


def test_a_stage_that_dies_and_goes_on_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch):
    run("a")
    real, calls = sft_trainer.sft_gradients, []

    def dies(*args, **settings):
        calls.append(1)
        if len(calls) in (6, 9):
            raise KilledError
        return real(*args, **settings)

    monkeypatch.setattr(sft_trainer, "sft_gradients", dies)
    for _ in range(2):
        with pytest.raises(KilledError):
            run("b", every_seconds=1e-9)
    outcome = run("b", every_seconds=1e-9)
    assert len(calls) == 14 + 2  # nothing was done twice
    whole, continued = (contents(tmp_path / name / "model") for name in "ab")
    assert whole == continued
    assert outcome.summary["loss_before"] == run("c").summary["loss_before"]


def test_draft_modules_stay_as_they_were(run, base, tmp_path):
    before = load_model(base, dtype=torch.float32).state_dict()
    run("a")
    after = load_model(tmp_path / "a/model", dtype=torch.float32).state_dict()
    assert before.keys() == after.keys()
    drafts = [name for name in before if name.startswith("mtp")]
    assert all(torch.equal(before[name], after[name]) for name in drafts)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_samples_over_the_context_are_counted_and_one_prompt_is_too_few(run, samples):
    rows = samples.read_text().splitlines()
    long = json.loads(rows[0])
    long["messages"][1]["content"] += "7 " * CONTEXT
    samples.write_text("\n".join([*rows[1:], json.dumps(long)]))
    assert run("a").summary["too_long"] == 1
    samples.write_text(rows[0])
    with pytest.raises(DataError, match="has 1 distinct prompt"):
        run("b")
