"""`tenth sft` from a model directory to a model directory: measured, trained, measured, refused."""

import json
import math

import pytest
import torch
from kill_points import contents
from tune_models import CONTEXT, make_model, sums, write_rows

from tenth.base.errors import ConfigError, DataError, RunError, TenthError
from tenth.base.files import read_json
from tenth.checkpoint.companions import load_tokenizer
from tenth.checkpoint.model_dir import load_model
from tenth.pipeline import sft_trainer
from tenth.pipeline.sft_trainer import ExampleSplit, SftPlan, SftTrainer, split_examples
from tenth.pipeline.tune_sft import run_sft
from tenth.tokenizer.chat import Template, TrainingExample
from tenth.training.batches import TrainedSequence
from tenth.training.guard import GuardConfig
from tenth.training.optim import OptimConfig

SMALL = ("learning_rate=1e-2", "batch_size=4", "max_length=40")


def pairs(*, num=30):
    return [{"prompt": row["prompt"], "completion": f"It is {row['answer']}."} for row in sums(num=num)]


def conversations(*, num=30):
    return [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in pairs(num=num)
    ]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def run(model, tmp_path):
    default = write_rows(tmp_path / "pairs.jsonl", pairs())

    def call(*overrides, data=default, out="out", say=print, **values):
        given = {"model": str(model), "data": str(data)} | values
        return run_sft(given, (*SMALL, *overrides), out=tmp_path / out, command="tenth sft X", say=say)

    return call


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_lowers_the_held_out_loss_and_leaves_a_model_with_its_card(run, tmp_path):
    said = []
    result = run(say=said.append)
    out = tmp_path / "out"
    assert said == [
        f"{out}: 21 steps × 4 examples, drawn from 27; 3 others are set aside and measured before and after."
    ]  # 3 epochs of 27 / 4 steps, each rounded up
    assert result.num_held_out == 3
    assert result.loss_after < 0.5 * result.loss_before
    steps = rows(out / "02-sft" / "metrics.jsonl")
    assert len(steps) == 21
    assert steps[-1]["val_loss"] == pytest.approx(result.loss_after, rel=0.02)  # stored and loaded again
    assert load_tokenizer(out / "model").eos_id == 1
    load_model(out / "model", dtype=torch.float32)
    assert (
        f"| held-out loss after (3 examples, nats per token) | {result.loss_after:.3f} |"
        in (out / "model" / "README.md").read_text()
    )


def test_the_rate_warms_up_and_falls_along_a_cosine(run, tmp_path):
    run("steps=10", "warmup_ratio=0.2")
    rates = [row["learning_rate"] for row in rows(tmp_path / "out" / "02-sft" / "metrics.jsonl")]
    assert rates[:3] == pytest.approx([0.005, 0.01, 0.01])
    # half way from step 2 to step 10 the cosine is at half
    assert rates[6] == pytest.approx(0.005)
    assert rates[9] == pytest.approx(0.01 * 0.5 * (1 + math.cos(math.pi * 7 / 8)))


@pytest.mark.parametrize("form", [pairs, conversations])
def test_both_shapes_of_a_file_teach_the_same(run, tmp_path, form):
    reference = run("steps=3", out="reference")
    result = run("steps=3", data=write_rows(tmp_path / "form.jsonl", form()))
    assert (result.loss_before, result.loss_after) == (reference.loss_before, reference.loss_after)


def test_packing_changes_rounding_only(run):
    packed, padded = (run("steps=3", f"packing={flag}", out=flag) for flag in ("true", "false"))
    assert packed.loss_after == pytest.approx(padded.loss_after, rel=0.02)


def test_the_loss_falls_on_the_assistant_alone(run, tmp_path, monkeypatch):
    trained = []
    real = sft_trainer.sft_gradients

    def spy(model, updater, examples, **settings):
        trained.extend(examples)
        return real(model, updater, examples, **settings)

    monkeypatch.setattr(sft_trainer, "sft_gradients", spy)
    chat = make_model(tmp_path / "chat", template=Template.DEEPSEEK)
    run("steps=1", model=str(chat), data=write_rows(tmp_path / "chat.jsonl", conversations()))
    tokenizer = load_tokenizer(chat)
    answers = {row["completion"] for row in pairs()}
    for example in trained:
        learnt = [each for each, is_trained in zip(example.ids, example.trained, strict=True) if is_trained]
        assert learnt[-1] == tokenizer.eos_id
        assert tokenizer.decode(learnt) in answers


def test_an_adapter_is_trained_beside_its_base(run, tmp_path):
    result = run("steps=12", lora_rank=4)
    assert result.loss_after < result.loss_before
    assert read_json(tmp_path / "out/model/adapter_config.json")["target_modules"] == [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ]


def example(*ids, answer):
    return TrainingExample(ids=(*ids, *answer), loss_mask=(0,) * len(ids) + (1,) * len(answer))


def test_answers_to_one_prompt_stay_on_one_side(tmp_path):
    examples = [example(0, i, answer=(7, k, 1)) for i in range(20) for k in range(3)]
    split = split_examples(examples, most=100, source=tmp_path)
    sides = [{each.ids[:2] for each in side} for side in (split.training, split.held_out)]
    assert [len(side) for side in sides] == [18, 2]
    assert sides[0].isdisjoint(sides[1])
    assert (len(split.training), len(split.held_out)) == (54, 6)


def test_long_examples_are_left_out_and_counted(run, tmp_path):
    long = {"prompt": "What is " + "1+" * CONTEXT + "1?", "completion": "Much."}
    said = []
    run("steps=1", data=write_rows(tmp_path / "some.jsonl", [*pairs(), long]), say=said.append)
    assert said[0] == "1 of 31 examples are longer than 40 tokens and are left out."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"text": "a"}\n', r"line 1: no field 'messages' and none of completion, .*\(fields: \['text'\]\)"),
        ("", "holds no example"),
        ('{"prompt": "a", "completion": "b"}\n', "has 1 distinct prompt, but one is held out"),
    ],
)
def test_a_file_without_usable_rows_is_refused(run, tmp_path, content, sentence):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=sentence):
        run(data=path)
    assert not (tmp_path / "out").exists()


def test_unknown_and_impossible_settings_are_refused(run):
    for override, sentence in (("epoch=2", "did you mean 'epochs'?"), ("batch_size=0", "batch_size = 0")):
        with pytest.raises(TenthError) as caught:
            run(override)
        assert sentence in str(caught.value)


def test_a_quantised_model_needs_an_adapter(run, monkeypatch):
    monkeypatch.setattr("tenth.pipeline.tune.load_quantisation", lambda _: "int8")
    with pytest.raises(ConfigError, match="is quantised, and whole numbers cannot learn; give --lora 16"):
        run()


def test_other_settings_in_the_same_directory_are_named(run, tmp_path):
    run("steps=2")
    before = contents(tmp_path / "out")
    with pytest.raises(RunError, match="was begun with steps = 2 and not 3; repeat its own settings"):
        run("steps=3")
    assert contents(tmp_path / "out") == before


def test_steps_that_are_no_numbers_are_skipped_and_a_row_of_them_stops_the_run(model):
    plan = SftPlan(steps=8, batch_size=16, warmup_share=0, floor=0, micro_batch_tokens=8192, seed=1)
    network = load_model(model, dtype=torch.float32)
    examples = (TrainedSequence(ids=(0, 5, 6), trained=(False, True, True)),)
    split = ExampleSplit(training=examples, held_out=examples)
    trainer = SftTrainer(network, split, OptimConfig(lr=1e-3), plan, pad_id=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        network.norm.weight.fill_(math.inf)
        before["norm.weight"].fill_(math.inf)
    for step in range(GuardConfig().max_skips):
        assert trainer.step(step)["skipped_updates"] == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    with pytest.raises(RunError, match="out of all proportion for the 4th step in a row; lower the learning"):
        trainer.step(3)
