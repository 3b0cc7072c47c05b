"""`tenth distill`: an API's or a model's answers checked, learnt, asked for once; and distributions."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tune_models import DEEPSEEK, make_model, sums, without_answers, write_rows

from tenth.base.errors import CheckpointError, ConfigError, RunError
from tenth.base.files import read_json
from tenth.base.records import Finish, Reply
from tenth.checkpoint.model_dir import load_config, load_model
from tenth.endpoint.client import EndpointClient
from tenth.endpoint.responder import EndpointResponder
from tenth.endpoint.settings import EndpointSettings, Prices
from tenth.llm.llm import LLM
from tenth.pipeline.distill import run_distill
from tenth.pipeline.distill_sides import Teacher, default_rate
from tenth.rollout.responder import LocalResponder

sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint"))
from server import FINE, Server, error

SMALL = ("learning_rate=1e-2", "batch_size=4", "max_completion_length=64")
PRICES = Prices(hit_usd=0.14, miss_usd=0.55, output_usd=2.19)


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small")


def add(messages):
    """Thinks, and is wrong about every sum with a 7 in it."""
    a, b = map(int, messages[-1]["content"].removeprefix("What is ").removesuffix("?").split("+"))
    total = a + b + (1 if 7 in (a, b) else 0)
    return f"{a}+{b}={total}", f"The answer is \\boxed{{{total}}}."


def behind(server, directory, monkeypatch, *, budget_usd=None):
    """A teacher at an address."""
    monkeypatch.setenv("LOOPBACK_KEY", server.key)
    settings = EndpointSettings(
        base_url=server.url,
        model="reasoner",
        key_variable="LOOPBACK_KEY",
        prices=PRICES,
        budget_usd=budget_usd,
    )

    @contextmanager
    def opened():
        yield EndpointResponder(EndpointClient(settings, directory))

    return Teacher(name="reasoner", identity="reasoner", model_dir=None, open=opened)


def on_disk(directory):
    """A teacher in this process."""

    @contextmanager
    def opened():
        with LLM(directory, dtype=torch.float32) as llm:
            yield LocalResponder(llm)

    return Teacher(name=directory.name, identity=directory.name, model_dir=directory, open=opened)


def saying(*replies):
    """A teacher who gives these replies in turn, for what cannot be had from a server."""

    class Parrot:
        name = "parrot"

        def respond(self, conversations, params):
            return [[replies[i % len(replies)]] * params.n for i, _ in enumerate(conversations)]

    @contextmanager
    def opened():
        yield Parrot()

    return Teacher(name="parrot", identity="parrot", model_dir=None, open=opened)


@pytest.fixture
def distil(student, tmp_path):
    def call(teacher, *overrides, rows=None, model=student, out="out", say=print, **values):
        prompts = write_rows(tmp_path / "prompts.jsonl", rows or sums())
        given = {"teacher": teacher.name, "model": str(model), "prompts": str(prompts)} | values
        return run_distill(given, (*SMALL, *overrides), teacher=teacher, out=tmp_path / out, say=say)

    return call


def samples(out):
    return [json.loads(line) for line in (out / "01-answers" / "samples.jsonl").read_text().splitlines()]


def dropped(out):
    return {rule: each["samples"] for rule, each in read_json(out / "01-answers" / "dropped.json").items()}


# words


def test_only_right_answers_are_learnt_and_the_student_learns_them(distil, tmp_path, monkeypatch):
    with Server(answer=add) as server:
        result = distil(behind(server, tmp_path / "replies", monkeypatch))
        assert result.usd == pytest.approx(server.usd)
    wrong = sum("7" in row["prompt"].removeprefix("What is ").removesuffix("?").split("+") for row in sums())
    assert wrong > 0
    assert dropped(tmp_path / "out") == {"wrong": wrong}
    rows = samples(tmp_path / "out")
    assert len(rows) == 30 - wrong
    # 0+1: R1's shape, the reasoning from `reasoning_content`
    assert rows[0]["messages"] == [
        {"role": "user", "content": "What is 0+1?"},
        {"role": "assistant", "content": "<think>\n0+1=1\n</think>\nThe answer is \\boxed{1}."},
    ]
    assert rows[0]["lineage"]["model"] == "reasoner"
    assert rows[0]["lineage"]["verifier"] == "the file's answer"
    assert result.loss_after < 0.5 * result.loss_before
    load_model(tmp_path / "out" / "model", dtype=torch.float32)
    assert "Distilled from reasoner" in (tmp_path / "out" / "model" / "README.md").read_text()


def test_a_repeated_command_asks_and_pays_nothing(distil, tmp_path, monkeypatch):
    with Server(answer=add) as server:
        teacher = behind(server, tmp_path / "replies", monkeypatch)
        first = distil(teacher)
        usd, num_requests = server.usd, len(server.requests)
        assert distil(teacher) == first
        distil(teacher, out="other")  # the cache is shared
        assert (server.usd, len(server.requests)) == (usd, num_requests)


def test_a_budgets_end_keeps_what_was_paid_and_more_money_asks_the_rest(distil, tmp_path, monkeypatch):
    replies = tmp_path / "replies"
    with Server(answer=add) as server:
        with pytest.raises(
            RunError, match=r"the budget is spent with (\d+) of 30 prompts answered"
        ) as caught:
            distil(behind(server, replies, monkeypatch, budget_usd=0.0012))
        answered = int(str(caught.value).split("with ")[1].split(" of")[0])
        assert 0 < answered < 30
        assert answered == server.num_answered
        assert server.usd <= 0.0012
        distil(behind(server, replies, monkeypatch, budget_usd=1.0))
        assert server.num_answered == 30  # nobody twice


def test_with_partial_the_budgets_end_is_the_end_of_asking(distil, tmp_path, monkeypatch):
    said = []
    with Server(answer=add) as server:
        teacher = behind(server, tmp_path / "replies", monkeypatch, budget_usd=0.0012)
        distil(teacher, "partial=true", say=said.append)
        assert len(samples(tmp_path / "out")) + sum(dropped(tmp_path / "out").values()) == server.num_answered
    assert f"{30 - server.num_answered} of 30 prompts have no answer." in said[0]


def test_a_thought_that_never_ends_is_dropped_and_shown(distil, tmp_path, monkeypatch):
    def answer(messages):  # a token of this server is a byte, and 64 are allowed
        return ("and then " * 9, "") if messages[-1]["content"] == "What is 0+1?" else add(messages)

    with Server(answer=answer) as server:
        distil(behind(server, tmp_path / "replies", monkeypatch))
    assert dropped(tmp_path / "out")["unclosed_thinking"] == 1
    shown = read_json(tmp_path / "out" / "01-answers" / "dropped.json")["unclosed_thinking"]["examples"]
    assert shown == ["<think>" + ("and then " * 9)[:64]]


def test_where_nothing_is_kept_the_rule_that_dropped_it_is_named(distil, monkeypatch, tmp_path):
    with (
        Server(answer=lambda messages: ("so " * 5, "")) as server,
        pytest.raises(
            RunError, match=r"kept none of 30 samples; dropped were: unclosed_thinking 30 \(such as"
        ),
    ):
        distil(behind(server, tmp_path / "replies", monkeypatch))


def test_a_teacher_that_cannot_be_asked_is_said_so_and_asked_again_by_the_same_command(
    distil, monkeypatch, tmp_path
):
    is_ill = True
    with Server(answer=add, script=lambda *_: error(400) if is_ill else FINE) as server:
        teacher = behind(server, tmp_path / "replies", monkeypatch)
        with pytest.raises(
            RunError, match=r"no usable answer to any of 30 questions: http.* answered 400 .*"
        ):
            distil(teacher)
        is_ill = False
        distil(teacher)
    assert samples(tmp_path / "out")


def reply(text, *, reasoning=None, finish=Finish.STOP, error=None):
    return Reply(text=text, reasoning=reasoning, finish=finish, error=error)


def test_without_answers_only_what_cannot_be_read_goes(distil, tmp_path):
    teacher = saying(
        reply("Fine."),
        reply("It is five.", reasoning="2+3"),
        reply("I'm sorry, but I can't help with that."),
        reply("cut", finish=Finish.LENGTH),
        reply("", error="the endpoint ended the answer with 'content_filter'."),
        reply("again and again\n" * 9),
        reply("<think>never closed"),
        reply("  "),
    )
    distil(teacher, rows=without_answers(num=16))
    assert dropped(tmp_path / "out") == {
        "refusal": 2,
        "cut_off": 2,
        "failed": 2,
        "repetition": 2,
        "unclosed_thinking": 2,
        "empty": 2,
    }
    assert {row["lineage"]["verifier"] for row in samples(tmp_path / "out")} == {"none"}


def test_two_equal_answers_to_one_prompt_are_one(distil, tmp_path):
    distil(saying(reply("Fine.")), "samples=3", rows=without_answers(num=5))
    assert len(samples(tmp_path / "out")) == 5
    assert dropped(tmp_path / "out") == {"duplicate": 10}


def test_a_preset_begins_from_random_weights_with_its_teachers_vocabulary(distil, student, tmp_path):
    result = distil(
        on_disk(student),
        "temperature=1",
        "max_completion_length=60",
        rows=without_answers(),
        model="nano-student",
    )
    config = load_config(tmp_path / "out" / "model")
    assert (config.hidden_size, config.num_hidden_layers) == (32, 1)
    assert config.vocab_size == 304  # 300 tokens, in vectors of 16
    assert result.loss_after < result.loss_before


# distributions


@pytest.mark.parametrize("kind", ["logits", "on-policy"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_distributions_bring_a_student_nearer_to_its_teacher(distil, student, kind, direction, tmp_path):
    # The teacher's vocabulary has no padding rows, the student's has four.
    result = distil(
        on_disk(student),
        *(f"direction={direction}", "steps=12", "max_completion_length=60", "temperature=1", "top_k=20"),
        rows=without_answers(),
        model="nano-student",
        method=kind,
    )
    assert result.loss_after < 0.8 * result.loss_before


def test_stored_distributions_are_not_made_again(distil, student, tmp_path):
    settings = ("steps=1", "max_completion_length=60", "temperature=1")
    distil(on_disk(student), *settings, rows=without_answers(), model="nano-student", method="logits")
    shard = tmp_path / "out" / "02-top-k" / "00000.safetensors"
    before = shard.stat().st_mtime_ns
    (tmp_path / "out" / "02-top-k" / "DONE.json").unlink()
    distil(on_disk(student), *settings, rows=without_answers(), model="nano-student", method="logits")
    assert shard.stat().st_mtime_ns == before
    facts = read_json(shard.with_suffix(".json"))
    assert facts["k"] == 64
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"00000\.safetensors is damaged"):
        distil(on_disk(student), *settings, rows=without_answers(), model="nano-student", method="logits")


# what cannot work


def test_an_api_has_no_distributions(distil):
    with pytest.raises(ConfigError, match="--kind logits needs the teacher's distributions, and parrot is"):
        distil(saying(reply("x")), method="logits")


def test_a_preset_cannot_take_a_vocabulary_from_an_api(distil):
    with pytest.raises(ConfigError, match=r"a student from scratch \('nano-student'\) takes its vocabulary"):
        distil(saying(reply("x")), model="nano-student")


def test_distributions_over_different_vocabularies_are_refused(distil, student, tmp_path):
    other = make_model(tmp_path / "other", config=DEEPSEEK)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="have different vocabularies"):
        distil(on_disk(student), model=other, method="logits")


def test_another_setting_of_a_finished_run_is_refused_by_name(distil):
    teacher = saying(reply("Fine."))
    distil(teacher, rows=without_answers())
    with pytest.raises(RunError, match=r"was begun with epochs = 3\.0 and not 2\.0"):
        distil(teacher, "epochs=2.0", rows=without_answers())


def test_another_kind_of_distillation_is_another_run(distil, student):
    settings = ("steps=1", "max_completion_length=60", "temperature=1")
    distil(on_disk(student), *settings, rows=without_answers(), model="nano-student")
    with pytest.raises(RunError, match="was begun with method = 'sft' and not 'logits'"):
        distil(on_disk(student), *settings, rows=without_answers(), model="nano-student", method="logits")


@pytest.mark.parametrize(
    ("name", "rate"),
    [  # R1 (arXiv:2501.12948v2), table 15
        ("qwen2.5-1.5b", 1e-4),
        ("qwen2.5-7b", 8e-5),
        ("qwen2.5-14b", 7e-5),
        ("qwen2.5-32b", 6e-5),
        ("llama-3.3-70b", 2e-5),
    ],
)
def test_the_papers_rates_by_size(name, rate):
    assert default_rate(Path(name), lora_rank=None) == rate


def test_a_student_that_is_neither_a_model_nor_a_preset_is_told_the_presets():
    with pytest.raises(ConfigError, match=r"no model at nano-studnet, .* nano-student,"):
        default_rate(Path("nano-studnet"), lora_rank=None)
