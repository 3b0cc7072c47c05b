"""`tenth rl` from model directory to model directory: measured, reinforced, measured, continued, refused."""

import json

import pytest
import torch
from kill_points import contents
from tune_models import CONTEXT, DEEPSEEK, REWARDS, make_model, sums, without_answers, write_rows

from tenth.base.errors import ConfigError, DataError, RunError, TenthError
from tenth.base.files import read_json
from tenth.checkpoint.model_dir import load_model
from tenth.checkpoint.peft import load_adapter
from tenth.checkpoint.quantized_dir import quantize_directory
from tenth.model.lora import merge_lora
from tenth.pipeline.tune_problems import parse_rewards
from tenth.pipeline.tune_rl import run_rl
from tenth.tokenizer.chat import Template

SMALL = (
    *("steps=4", "prompts_per_step=3", "num_generations=4", "max_completion_length=6", "eval_samples=2"),
    *("learning_rate=1e-2", "eval_problems=3"),
)
STAGES = ("01-measure-before", "02-rl", "03-measure-after")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def run(model, tmp_path):
    """Runs in `tmp_path`; without `tasks` on problems without answers, rewarded for odd lengths."""
    (tmp_path / "mine.py").write_text(REWARDS)
    default = write_rows(tmp_path / "prompts.jsonl", without_answers())

    def call(
        *overrides, tasks=default, rewards=("odd_start",), out="out", sinks=(), say=lambda _: None, **values
    ):
        specs = [f"{tmp_path / 'mine.py'}:{name}" for name in rewards]
        given = {"model": str(model), "tasks": str(tasks), "rewards": parse_rewards(specs)} | values
        return run_rl(
            given, (*SMALL, *overrides), out=tmp_path / out, command="tenth rl X", sinks=sinks, say=say
        )

    return call


class StopAt:
    """A sink that interrupts the run when a step of a stage has been logged."""

    def __init__(self, stage, step):
        self.stage, self.step = stage, step

    def start_stage(self, stage, *, total_steps):
        pass

    def log(self, stage, step, metrics):
        if (stage, step) == (self.stage, self.step):
            raise KeyboardInterrupt

    def end_stage(self, stage):
        pass


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(directory):
    return load_model(directory, dtype=torch.float32).state_dict()


def test_a_run_measures_reinforces_measures_and_leaves_a_model_with_its_card(run, model, tmp_path):
    said = []
    result = run(say=said.append)
    out = tmp_path / "out"
    assert said == [
        f"{out}: each step is 3 prompts × 4 samples = 12 rollouts = 1 minibatch × 12.",
        "Reward: 1 × odd_start.",
        "27 problems to train on; 3 others are set aside and measured before and after, 2 samples each.",
    ]
    steps = rows(out / "02-rl" / "metrics.jsonl")
    assert [row["step"] for row in steps] == [0, 1, 2, 3]
    assert all("rewards/odd_start/mean" in row and "accuracy" not in row for row in steps)
    assert (result.before.problems, result.before.samples) == (3, 2)
    assert result.after.rewards == {"odd_start": result.after.reward}
    before, after = weights(model), weights(out / "model")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    card = (out / "model" / "README.md").read_text()
    assert 'base_model: "small"' in card
    assert f"| held-out reward after (3 problems × 2 samples) | {result.after.reward:.3f} |" in card
    assert "tenth rl X" in card
    assert ", 1 threads" not in card


def test_held_out_problems_are_never_trained_on(run, tmp_path):
    run("steps=12")  # more than one pass over the file
    trained = {row["prompt"] for path in (tmp_path / "out/02-rl/rollouts").iterdir() for row in rows(path)}
    measured = {row["prompt"] for row in rows(tmp_path / "out/01-measure-before/answers.jsonl")}
    assert (len(trained), len(measured)) == (27, 3)
    assert trained.isdisjoint(measured)


def test_the_sampler_and_the_trainer_hold_the_same_weights_in_every_step(run, tmp_path):
    for name, lora in (("whole", None), ("adapter", 4)):
        run(out=name, lora_rank=lora)
        for row in rows(tmp_path / name / "02-rl" / "metrics.jsonl"):
            assert abs(row["mismatch_kl"]) < 1e-3  # bfloat16 where the processor has it


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_an_interrupted_run_continues_to_the_same_bits(run, tmp_path, lora_rank):
    run(out="whole", lora_rank=lora_rank, beta=0.1)
    saving = "checkpoint_every_seconds=1e-6"
    for stage, step in (("rl", 2), ("measure-after", 0)):
        with pytest.raises(KeyboardInterrupt):
            run(saving, lora_rank=lora_rank, beta=0.1, sinks=[StopAt(stage, step)])
    result = run(saving, lora_rank=lora_rank, beta=0.1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    again = contents(tmp_path / "out")
    assert run(saving, lora_rank=lora_rank, beta=0.1) == result  # nothing is left to do
    assert contents(tmp_path / "out") == again


def test_an_adapter_learns_beside_a_base_that_stays_and_is_its_own_reference(run, model, tmp_path):
    base = weights(model)
    run(lora_rank=4, beta=0.1)
    out = tmp_path / "out"
    assert sorted(path.name for path in (out / "model").iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors"),
    ]
    assert read_json(out / "model" / "adapter_config.json")["r"] == 4
    card = (out / "model" / "README.md").read_text()
    assert f"tenth convert {model} MERGED --adapter ADAPTER" in card
    assert "library_name: peft" in card
    state = next((out / "02-rl" / "checkpoint").glob("*/"), None)
    assert state is None or not any("reference/" in name for name in state.iterdir())
    steps = rows(out / "02-rl" / "metrics.jsonl")
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["kl"] > 1e-7
    adapted = load_adapter(load_model(model, dtype=torch.float32), out / "model")
    merged = merge_lora(adapted).state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {
        name for name in base if name.endswith(("qkv.weight", "o.weight", "gate_up.weight", "down.weight"))
    }


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_a_model_of_deepseeks_shape_learns_and_keeps_its_draft_layers(run, tmp_path, lora_rank):
    deepseek = make_model(tmp_path / "deepseek", config=DEEPSEEK)
    run(model=str(deepseek), lora_rank=lora_rank)
    if lora_rank is None:
        before, after = weights(deepseek), weights(tmp_path / "out" / "model")
        drafts = [name for name in before if name.startswith("mtp.")]
        assert drafts
        assert all(torch.equal(before[name], after[name]) for name in drafts)
    else:
        targets = read_json(tmp_path / "out" / "model" / "adapter_config.json")["target_modules"]
        # kv_b_proj could not be served beside others; PEFT takes gate_proj for the routed experts'
        assert set(targets) == {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"}


def test_a_quantised_model_learns_by_an_adapter_only(run, model, tmp_path):
    quantize_directory(model, tmp_path / "int8", bits=8)
    with pytest.raises(ConfigError, match="is quantised, and whole numbers cannot learn; give --lora 16"):
        run(model=str(tmp_path / "int8"))
    assert not (tmp_path / "out").exists()
    run(model=str(tmp_path / "int8"), lora_rank=4)
    steps = rows(tmp_path / "out" / "02-rl" / "metrics.jsonl")
    assert any(row["grad_norm"] > 0 for row in steps)


def test_an_answer_column_is_judged_unless_there_is_a_function_of_ones_own_or_both_are_asked_for(
    run, tmp_path
):
    tasks = write_rows(tmp_path / "sums.jsonl", sums())
    said = []
    run(tasks=tasks, rewards=(), out="judged", say=said.append)
    assert "Reward: 1 × accuracy." in said
    run(tasks=tasks, out="own", say=said.append)
    assert "Reward: 1 × odd_start." in said
    both = {"accuracy_weight": 1.0, "format_weight": 0.2}
    run(tasks=tasks, rewards=("odd_start=0.5",), out="both", say=said.append, **both)
    assert "Reward: 1 × accuracy + 0.2 × format + 0.5 × odd_start." in said
    names = {
        key for row in rows(tmp_path / "both/02-rl/metrics.jsonl") for key in row if key.endswith("/mean")
    }
    assert names == {f"rewards/{name}/mean" for name in ("accuracy", "format", "odd_start")}


def test_columns_reach_the_reward(run, tmp_path):
    run(rewards=("wanted",))
    wishes = {row["prompt"]: row["wish"] for row in rows(tmp_path / "prompts.jsonl")}
    for row in rows(tmp_path / "out/02-rl/rollouts/000000.jsonl"):
        assert row["reward"] == float(wishes[row["prompt"]] in row["text"])


def test_a_conversation_is_asked_with_its_system_message_in_the_models_own_template(tmp_path, run):
    chat = make_model(tmp_path / "chat", template=Template.DEEPSEEK)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 1+1?"}]
    asked = [{"prompt": [*messages[:1], {"role": "user", "content": f"What is {i}+1?"}]} for i in range(20)]
    plain = [{"prompt": each["prompt"][1]["content"]} for each in asked]
    run(tasks=write_rows(tmp_path / "chat.jsonl", asked), out="chat-run", model=str(chat))
    run(tasks=write_rows(tmp_path / "plain.jsonl", plain), out="plain-run", model=str(chat))
    tokens = [
        read_json(tmp_path / name / "02-rl" / "DONE.json")["tokens"] for name in ("chat-run", "plain-run")
    ]
    assert tokens[0] > tokens[1] + 4 * 12  # at least a few more tokens in every prompt


def test_prompts_without_room_are_left_out_and_counted(run, tmp_path):
    long = {"prompt": "What is " + "1+" * CONTEXT + "1?"}
    said = []
    run(tasks=write_rows(tmp_path / "some.jsonl", [*without_answers(), long]), say=said.append)
    assert said[0] == f"1 of 31 prompts are longer than {CONTEXT - 6} tokens and are left out."
    with pytest.raises(ConfigError, match=rf"none of 1 prompts fits: .* context of {CONTEXT}; lower"):
        run(tasks=write_rows(tmp_path / "all.jsonl", [long]), out="other")


def test_a_conversation_that_nobody_can_continue_is_named(run, tmp_path):
    ended = [{"role": "user", "content": "What is 1+1?"}, {"role": "assistant", "content": "2"}]
    tasks = write_rows(tmp_path / "ended.jsonl", [*without_answers(), {"prompt": ended}])
    with pytest.raises(DataError, match=r"the prompt 'What is 1\+1\?' cannot be asked: a prompt must end"):
        run(tasks=tasks)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("num_generation=4", "tenth rl: unknown key 'num_generation'; did you mean 'num_generations'?"),
        (
            "num_generations=1",
            "tenth rl: num_generations = 1, but an answer is judged against its group's mean",
        ),
        ("lora_alpha=8", "lora_alpha and lora_targets are of an adapter; give --lora RANK, too"),
        ("steps=0", "steps = 0"),
        ("overlong_buffer=9", "grpo.overlong_buffer = 9 must be between 1 and max_completion_length = 6"),
        ("rewards={}", "line 1: no answer"),
        ("lora_rank=2\nlora_targets=['kv_b_proj']", "has no kv_b_proj that can be adapted"),
        ("lora_rank=2\nlora_targets=['lm_head']", "['lm_head'] cannot be adapted; choose from"),
    ],
)
def test_settings_that_cannot_run_are_refused_and_leave_nothing(run, tmp_path, override, sentence):
    with pytest.raises(TenthError) as caught:
        run(*override.split("\n"))
    assert sentence in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nothing_to_reward_is_refused(run, tmp_path):
    with pytest.raises(DataError, match=r"line 1: no answer; .* \(the columns are: prompt, wish\)"):
        run(rewards=())
    with pytest.raises(ConfigError, match="has no answers to be accurate about"):
        run(accuracy_weight=1)
    with pytest.raises(ConfigError, match="tenth rl: accuracy_weight, format_weight and language_weight are"):
        run(tasks=write_rows(tmp_path / "sums.jsonl", sums()), rewards=(), accuracy_weight=0)


def test_every_rule_that_has_a_weight_counts(run, tmp_path):
    tasks = write_rows(tmp_path / "sums.jsonl", sums())
    result = run(tasks=tasks, rewards=(), steps=1, format_weight=0.1, language_weight=0.2)
    assert set(result.before.rewards) == {"accuracy", "format", "language"}


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ("raises", "KeyError: 'no such column'"),
        ("short", "returned 1 values for 6 completions"),
        ("nan", "returned nan; only finite numbers and None are rewards"),
        ("hangs", "ran past its deadline of 2 s"),
    ],
)
def test_a_reward_that_fails_is_quoted_before_anything_is_trained(run, tmp_path, reward, sentence):
    seconds = 2 if reward == "hangs" else 60
    with pytest.raises(RunError, match="01-measure-before: not one of 6 answers could be scored") as caught:
        run(f"reward_timeout_seconds={seconds}", rewards=(reward,))
    assert sentence in str(caught.value)
    text = (tmp_path / "mine.py").read_text().replace(f"def {reward}(", "def broken(")
    (tmp_path / "mine.py").write_text(text + f"\n{reward} = odd_start\n")
    run("reward_timeout_seconds=30", rewards=(reward,))  # mended, the run goes on


def test_a_reward_may_read_the_column_that_is_the_prompt(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def asks(completions, question, **kwargs):\n    return [float('What' in q) for q in question]\n"
    )
    asked = [{"question": row["prompt"]} for row in without_answers()]
    result = run("steps=1", tasks=write_rows(tmp_path / "asked.jsonl", asked), rewards=("asks",))
    assert result.before.rewards == {"asks": 1.0}


def test_a_reward_that_wants_a_column_which_no_row_has_is_refused_before_anything_runs(run, tmp_path):
    columns = r"prompt, task, level, language, problem_id\.$"
    tasks = write_rows(tmp_path / "bare.jsonl", [{"prompt": row["prompt"]} for row in without_answers()])
    with pytest.raises(
        ConfigError, match=rf"no column of the problems is called 'wish'; there are {columns}"
    ):
        run(tasks=tasks, rewards=("wanted",))
    assert not (tmp_path / "out" / "recipe.json").exists()


def test_a_reward_that_is_no_function_of_the_file_is_refused(run):
    with pytest.raises(ConfigError, match="has no function 'absent'"):
        run(rewards=("absent",))


def test_a_changed_reward_file_is_said_and_kept(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("checkpoint_every_seconds=1e-6", sinks=[StopAt("rl", 1)])
    with (tmp_path / "mine.py").open("a") as file:
        file.write("# a remark\n")
    said = []
    run(say=said.append)
    assert (
        f"{tmp_path / 'mine.py'} has changed since the run began; from here on it counts as it is now."
        in said
    )
    (hashes,) = read_json(tmp_path / "out" / "recipe.json")["reward_hashes"].values()
    assert len(set(hashes)) == 2


def test_other_settings_in_the_same_directory_are_named_and_nothing_is_lost(run, tmp_path):
    run()
    before = contents(tmp_path / "out")
    with pytest.raises(RunError, match=r"was begun with seed = 1 and not 2, steps = 4 and not 5; repeat"):
        run("steps=5", "seed=2")
    other = write_rows(tmp_path / "other.jsonl", without_answers(num=20))
    with pytest.raises(
        RunError, match=r"begun with tasks = '.*prompts.jsonl' and not '.*other.jsonl'; repeat"
    ):
        run(tasks=other)
    rows_before = (tmp_path / "prompts.jsonl").read_text()
    write_rows(tmp_path / "prompts.jsonl", without_answers(num=20))
    with pytest.raises(RunError, match=r"other contents of tasks = '.*prompts.jsonl', steps = 4 and not 5;"):
        run("steps=5")
    (tmp_path / "prompts.jsonl").write_text(rows_before)
    with pytest.raises(RunError, match=r"begun with model = '.*small' and not '.*out/model'; repeat"):
        run(model=str(tmp_path / "out" / "model"))  # alike but for its weights
    assert contents(tmp_path / "out") == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="exists and is not a run"):
        run(out="thesis")
    with pytest.raises(RunError, match="is a file; name a directory"):
        run(out=other)


def test_a_model_too_big_for_the_memory_is_refused_with_numbers_before_it_is_read(run, monkeypatch, tmp_path):
    monkeypatch.setattr("tenth.pipeline.tune_memory.free_memory_bytes", lambda: 1 << 20)
    with pytest.raises(RunError, match=r"all of them takes about .* but 1.0 MiB are free; use --lora 16"):
        run()
    with pytest.raises(RunError, match=r"to tune an adapter of it takes about .* use a smaller model or"):
        run(lora_rank=2)
    assert not (tmp_path / "out").exists()
