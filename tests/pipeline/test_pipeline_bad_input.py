"""Bad input gets one sentence with the remedy, and nothing that was there is lost."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from tenth.base.config import load_recipe
from tenth.base.errors import CheckpointError, ConfigError, DataError, RunError, TenthError
from tenth.base.files import read_json
from tenth.data.shards import load_tokens
from tenth.pipeline.frozen import held_out_problems
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.zero import run_zero
from tenth.tokenizer.tokenizer import Tokenizer

SMOKE = Path(__file__).parents[2] / "recipes/tiny/smoke.toml"


def smoke(tmp_path, *overrides, sinks=()):
    return run_zero(SMOKE, overrides, runs_dir=tmp_path / "runs", sinks=sinks)


def refused(tmp_path, *overrides):
    """The sentence of a refusal that left no run behind."""
    with pytest.raises(TenthError) as caught:
        smoke(tmp_path, *overrides)
    assert not (tmp_path / "runs" / "smoke" / "recipe.json").exists()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rl.stepz=3", "unknown key 'rl.stepz'; did you mean 'steps'?"),
        ("pretrain.optim.momentums=1", "unknown key 'pretrain.optim.momentums'"),
        ("rl.num_generations=1", "num_generations = 1, but an answer is judged against its group's mean"),
        ("rl.accuracy_weight=0\nrl.format_weight=0", "nothing is rewarded"),
        ("rl.steps=0", "rl.steps = 0"),
        ("documents.text_share=0.5", "text_files names 0 files and text_share = 0.5; set both or neither"),
        ("documents.text_files=['a.txt']", "text_files names 1 files and text_share = 0.0"),
        ("model=tiny-zer", "there is no preset 'tiny-zer'; did you mean 'tiny-zero'?"),
        ("rl.max_completion_length=600", "rl.max_completion_length = 600, but model 'nano-zero' takes 512"),
        ("pretrain.sequence_length=1000", "pretrain.sequence_length = 1000, but model 'nano-zero' takes 512"),
        ("eval.problems_per_family=5000", "distinct test problems"),
        ("eval.problem_file=absent.json", "absent.json does not exist"),
        ("rl", "override 'rl' is not key=value"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_before_it_takes_a_name(tmp_path, override, sentence):
    assert sentence in refused(tmp_path, *override.split("\n"))


FAMILY = "{{ name = '{name}', document_levels = [{low}, 3], levels = [2, 3] }}"


@pytest.mark.parametrize(
    ("names", "low", "sentence"),
    [
        (["chain_sums"], 2, "there is no problem family 'chain_sums'; known are"),
        (["chain_sum", "chain_sum"], 2, "names family 'chain_sum' twice"),
        (["chain_sum"], 1, "task 'chain_sum' has no level 1; choose one of 2..12"),
        (["chain_sum"], 5, "document_levels = [5, 3] must be [lowest, highest]; swap the two"),
    ],
)
def test_families_and_their_levels_are_checked(tmp_path, names, low, sentence):
    listed = ", ".join(FAMILY.format(name=name, low=low) for name in names)
    assert sentence in refused(tmp_path, f"families=[{listed}]")


def test_a_prompt_longer_than_the_context_is_refused_before_the_base_is_trained(tmp_path):
    # 512 positions less 505 for the answer leave no room for any question.
    with pytest.raises(
        ConfigError, match=r"a prompt of family .* has \d+ tokens, and .* lower rl.max_completion"
    ):
        smoke(tmp_path, "rl.max_completion_length=505")
    assert not (tmp_path / "runs" / "smoke" / "02-base").exists()


@pytest.mark.parametrize("need", ["_memory_needed", "_disk_needed"])
def test_a_run_that_does_not_fit_takes_no_name(tmp_path, monkeypatch, need):
    monkeypatch.setattr(f"tenth.pipeline.flow.{need}", lambda _: 1 << 60)
    assert "this run needs about" in refused(tmp_path)


class StopAt:
    """A sink that stops the run where a stage begins."""

    def __init__(self, stage):
        self.stage = stage

    def start_stage(self, stage, *, total_steps):
        if stage == self.stage:
            raise KeyboardInterrupt

    def log(self, stage, step, metrics):
        pass

    def end_stage(self, stage):
        pass


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "web.jsonl is not a file; correct the path"),
        ("", "holds no text"),
        ('{"text": "one"}\n{"text": \n', "web.jsonl, line 2: not valid JSON"),
        ('{"body": "one"}\n', "web.jsonl, line 1: no string field 'text'"),
    ],
)
def test_text_files_are_named_with_file_and_line(tmp_path, content, sentence):
    path = tmp_path / "web.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=sentence):
        smoke(tmp_path, f"documents.text_files=['{path}']", "documents.text_share=0.5")
    # Nothing is done yet, so the mended recipe may have the name.
    with pytest.raises(KeyboardInterrupt):
        smoke(tmp_path, sinks=[StopAt("base")])


def test_text_files_are_part_of_the_corpus_but_for_pages_that_quote_the_test(tmp_path):
    swaps = "families=[{ name = 'swaps', document_levels = [2, 3], levels = [2, 4] }]"  # prompts of 20 words
    asked = held_out_problems(load_recipe(ZeroRecipe, SMOKE, [swaps]))
    pages = [f"the {i}th page " * 20 for i in range(2000)]
    leaks = [f"secret {i}: {problem.prompt}" for i, problem in enumerate(asked)]
    path = tmp_path / "web.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*leaks, *pages]))
    with pytest.raises(KeyboardInterrupt):
        smoke(
            tmp_path,
            swaps,
            f"documents.text_files=['{path}']",
            "documents.text_share=0.5",
            sinks=[StopAt("base")],
        )
    documents = tmp_path / "runs/smoke/01-documents"
    ids = load_tokens(documents / "train").open_tokens().tolist()
    text = Tokenizer.load(documents).decode(ids)
    assert text.count("page") * len("the 1000th page ") / len(text) == pytest.approx(0.5, abs=0.1)
    assert "secret" not in text


def test_another_recipe_in_the_directory_is_refused_and_nothing_is_lost(finished):
    before = sorted(path for path in finished.rglob("*"))
    with pytest.raises(
        RunError,
        match=r"rl.steps changed, so zero, measure-zero will run again and what they hold would be removed "
        r"\(documents, base, measure-base stay\); add --yes to agree, or give the run another name",
    ):
        run_zero(SMOKE, ["rl.steps=9"], runs_dir=finished.parent)
    with pytest.raises(RunError, match=r"seed changed, so documents, base, .* \(nothing stays\)"):
        run_zero(finished, ["seed=9"])
    with pytest.raises(RunError, match="is the run 'smoke', not 'fog'; begin another run from a recipe file"):
        run_zero(finished, ["name=fog"])
    assert sorted(path for path in finished.rglob("*")) == before
    assert read_json(finished / "recipe.json")["rl"]["steps"] == 6


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    there = tmp_path / "runs" / "smoke"
    there.mkdir(parents=True)
    (there / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="exists and is not a run; choose another name"):
        smoke(tmp_path)
    with pytest.raises(RunError, match=r"holds no run: recipe.json is missing"):
        run_zero(there)
    assert (there / "thesis.txt").read_text() == "years of work"


def test_what_a_kill_left_of_a_run_that_had_not_begun_is_no_obstacle(tmp_path):
    there = tmp_path / "runs" / "smoke"
    there.mkdir(parents=True)
    (there / "run.json").write_text("{}")
    (there / "recipe.json.partial").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        smoke(tmp_path, sinks=[StopAt("base")])


def test_a_run_of_a_newer_version_is_refused(finished):
    info = read_json(finished / "run.json")
    (finished / "run.json").write_text(json.dumps(info | {"format_version": 99}))
    with pytest.raises(RunError, match="has format 99, this version reads 1; use a newer tenth"):
        run_zero(finished)


def newest_checkpoint(stage):
    return sorted((stage / "checkpoint").glob("step-*"))[-1]


def test_a_corrupted_checkpoint_is_named_with_the_way_on(finished):
    (finished / "02-base" / "DONE.json").unlink()
    newest = newest_checkpoint(finished / "02-base")
    data = bytearray((newest / "tensors.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "tensors.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"is damaged: .* delete {newest} to continue from step \d+"):
        run_zero(finished)


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing that ends in one of these names can be written."""
    names = []

    def fill(*added):
        names[:] = added

    real = os.fsync

    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if any(name in path for name in names):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    return fill


@pytest.mark.parametrize(
    ("where", "stage", "next_stage"),
    [
        ("train/tokens.bin", "01-documents", "measure-base"),
        ("checkpoint/step-", "02-base", "measure-base"),
        ("02-base/model", "02-base", "measure-base"),
        ("02-base/DONE.json", "02-base", "measure-base"),
        ("rollouts/", "04-zero", "measure-zero"),
    ],
)
def test_a_full_disk_stops_with_a_sentence_and_the_run_goes_on_when_there_is_room(
    finished, full_disk, where, stage, next_stage
):
    (finished / stage / "DONE.json").unlink()
    shutil.rmtree(finished / stage / "checkpoint", ignore_errors=True)
    for later in finished.glob("0[3-5]*"):
        (later / "DONE.json").unlink(missing_ok=True)
    full_disk(where)
    with pytest.raises((RunError, CheckpointError), match=r"could not write .*No space left .*[Ff]ree some"):
        run_zero(finished)
    assert not (finished / stage / "DONE.json").exists()
    full_disk()
    with pytest.raises(KeyboardInterrupt):
        run_zero(finished, sinks=[StopAt(next_stage)])
    assert (finished / stage / "DONE.json").exists()
